"""Several contrasts: a channel for each, and nothing of one in another."""

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import Contrasts, Stack, acquisition

VOLUME = Grid((12, 12, 12), np.eye(4))
THICK, ACROSS, LAST = (acquisition(VOLUME.coarsen(s), reference=VOLUME) for s in ((1, 1, 4), (4, 1, 1), (1, 3, 1)))


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_data_are_those_of_each_contrast_alone():
    operator = Contrasts([THICK, Stack([ACROSS, LAST], [1.0, 0.5])])
    x = noise(1, 2, *VOLUME.shape)
    first, second, third = operator(x)
    torch.testing.assert_close(first, THICK(x[:, :1]))
    torch.testing.assert_close(second, ACROSS(x[:, 1:]))
    torch.testing.assert_close(third, 0.5**0.5 * LAST(x[:, 1:]))
    assert [one.range for one in operator.operators] == list(operator.range)


@pytest.mark.parametrize("regulariser", ["identity", "gradient"])
def test_solve_is_that_of_each_contrast_alone(regulariser):
    operator, rho = Contrasts([THICK, ACROSS]), 0.3
    b = noise(1, 2, *VOLUME.shape)
    found = operator.solve(b, rho, regulariser)
    torch.testing.assert_close(found.x[:, :1], THICK.solve(b[:, :1], rho, regulariser).x)
    torch.testing.assert_close(operator.normal(found.x, rho, regulariser), b)
    assert found.n_iter == 0  # exact, as each is


def test_each_contrast_may_have_its_own_penalty():
    operator, rho = Contrasts([THICK, ACROSS]), torch.tensor([0.3, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    b = noise(1, 2, *VOLUME.shape)
    found = operator.solve(b, rho).x
    torch.testing.assert_close(operator.gram(found) + rho * found, b)
    alone = Contrasts([THICK]).solve(b[:, :1], rho[:1]).x
    torch.testing.assert_close(alone, found[:, :1])
    gradients = torch.autograd.grad(operator.solve(b, rho.requires_grad_()).x.square().sum(), rho)[0]
    step = 1e-6 * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1)
    sides = [operator.solve(b, rho.detach() + sign * step) for sign in (1, -1)]
    slope = (sides[0].x.square().sum() - sides[1].x.square().sum()) / 2e-6
    torch.testing.assert_close(gradients[0, 0, 0, 0], slope, rtol=1e-6, atol=0)
    with pytest.raises(InvsrError, match="3 penalties for 2 contrasts"):
        operator.solve(b, torch.ones(3))


def test_a_solve_reports_the_contrast_that_is_worst():
    hard = Stack([THICK, acquisition(VOLUME.coarsen((1, 1, 3)), reference=VOLUME, motion=[0.1, 0, 0, 1, 0, 0])])
    found = Contrasts([ACROSS, hard]).solve(noise(1, 2, *VOLUME.shape), 1e-3, rtol=1e-12, max_iter=2)
    assert found.status.value != "converged" and found.residual > 0 and found.n_iter == 2


def test_refuses():
    with pytest.raises(InvsrError, match="at least one"):
        Contrasts([])
    other = acquisition(VOLUME.coarsen((1, 1, 4)), reference=VOLUME.refine(0.5))
    with pytest.raises(InvsrError, match="one reference"):
        Contrasts([THICK, other])
    with pytest.raises(InvsrError, match="itself several contrasts"):
        Contrasts([THICK, Contrasts([THICK, ACROSS])])
    with pytest.raises(InvsrError, match="3 channels for 2 contrasts"):
        Contrasts([THICK, ACROSS])(torch.zeros(1, 3, *VOLUME.shape))
    with pytest.raises(InvsrError, match="not added up"):
        Contrasts([THICK]) + THICK
