"""Several scans as one operator."""

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.linear import conjugate_gradient
from invsr.operators import Resample, Rigid, Separable, Stack, acquisition

VOLUME = Grid((12, 12, 12), np.eye(4))
SCANS = [VOLUME.coarsen(step) for step in ((1, 1, 4), (4, 1, 1), (1, 4, 1))]


def stack(weights=None):
    return Stack([acquisition(scan, reference=VOLUME) for scan in SCANS], weights)


def noise(shape, seed=0):
    return torch.randn((1, 1, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_weights_are_those_of_the_least_squares_sum():
    weights = [1.0, 0.25, 4.0]
    operator, x = stack(weights), noise(VOLUME.shape)
    y = tuple(noise(scan.shape, n) for n, scan in enumerate(SCANS))
    residual = sum(float((a - b).square().sum()) for a, b in zip(operator(x), operator.weigh(y), strict=True))
    plain = [acquisition(scan, reference=VOLUME)(x) for scan in SCANS]
    expected = sum(w * float((a - b).square().sum()) for w, a, b in zip(weights, plain, y, strict=True))
    assert residual == pytest.approx(expected)


@pytest.mark.parametrize("regulariser", ["identity", "gradient"])
def test_preconditioner_saves_iterations(regulariser):
    operator, rho = stack([1.0, 0.5, 2.0]), 0.01
    b = operator.adjoint(operator(noise(VOLUME.shape)))
    plain = conjugate_gradient(lambda x: operator.normal(x, rho, regulariser), b, rtol=1e-8, max_iter=1000)
    helped = operator.solve(b, rho, regulariser, rtol=1e-8)
    torch.testing.assert_close(helped.x, plain.x, atol=1e-5, rtol=1e-5)
    assert helped.n_iter < plain.n_iter / 2


def test_moved_members_enter_too():
    moved = acquisition(SCANS[0], reference=VOLUME) @ Resample(VOLUME, VOLUME, Rigid([0.1, 0, 0, 0, 0.5, 0]))
    operator = Stack([acquisition(SCANS[1], reference=VOLUME), moved])
    x = noise(VOLUME.shape)
    found = operator.solve(operator.normal(x, 0.1), 0.1, rtol=1e-10, max_iter=500)
    torch.testing.assert_close(found.x, x, atol=1e-6, rtol=1e-6)


def test_refuses():
    with pytest.raises(InvsrError, match="at least one"):
        Stack([])
    other = acquisition(SCANS[0], reference=VOLUME.refine(0.5))
    with pytest.raises(InvsrError, match="reference"):
        Stack([acquisition(SCANS[0], reference=VOLUME), other])
    with pytest.raises(InvsrError, match="weights"):
        stack([1.0, -1.0, 1.0])


def test_what_members_begin_with_is_done_once_and_the_sum_stays(monkeypatch):
    turn = [0.2, 0.1, 0.0, 1.0, 0.0, -1.0]
    members = [acquisition(scan, reference=VOLUME, motion=turn) for scan in SCANS]
    members.append(acquisition(SCANS[0], reference=VOLUME))
    operator = Stack(members, [1.0, 2.0, 0.5, 1.0])
    x, y = noise(VOLUME.shape), tuple(noise(scan.shape, n) for n, scan in enumerate([*SCANS, SCANS[0]]))
    for found, member, root in zip(operator(x), members, operator.weights.sqrt(), strict=True):
        torch.testing.assert_close(found, root * member(x))
    expected = sum(r * m.adjoint(part) for r, m, part in zip(operator.weights.sqrt(), members, y, strict=True))
    torch.testing.assert_close(operator.adjoint(y), expected)
    upsampled = []
    forward = Separable._forward
    monkeypatch.setattr(Separable, "_forward", lambda self, x: upsampled.append(self.range.size) or forward(self, x))
    operator(x)
    assert upsampled.count(25**3) == 1
