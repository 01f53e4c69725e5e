"""Pseudo-replicas: the noise of linear methods is known exactly."""

from functools import partial

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import acquisition
from invsr.operators.kspace import KSpaceMask
from invsr.testing.kspace import sensitivities
from invsr.uncertainty import noise_replicas
from invsr.uncertainty.deviation import mean_variance

SIGMA, RHO = 0.05, 0.3
GRID = Grid((6, 8, 5), np.eye(4))


def tikhonov(operator, y):
    return operator.solve(operator.adjoint(y), RHO, rtol=1e-10).x


def exact(operator, dtype):
    """Variance of the part along the phase of 1, from the dense matrix of data to volume."""
    shape = operator.range.shape
    channels = 3 if dtype.is_complex else 1
    size = channels * int(np.prod(shape))
    units = torch.eye(size, dtype=dtype).reshape(size, channels, *shape)
    rows = tikhonov(operator, units)
    # Re(M n) of white noise in both parts of n: |M|^2; real noise: M^2.
    return rows.abs().square().sum(0, keepdim=True)


@pytest.mark.parametrize("kind", ["slices", "k-space"])
def test_noise_of_a_linear_method(kind):
    if kind == "slices":
        operator = acquisition(Grid((6, 8, 2), np.diag([1, 1, 2.5, 1])), reference=GRID)
        x = torch.rand(1, 1, *GRID.shape, dtype=torch.float64)
    else:
        mask = torch.ones(GRID.shape, dtype=torch.float64)
        mask[:, 1::2] = 0
        operator = KSpaceMask(GRID, mask, sensitivities(GRID.shape, 3).to(torch.complex128), axes=(1,))
        x = torch.ones(1, 1, *GRID.shape, dtype=torch.complex128)
    y = operator(x)
    found = noise_replicas(partial(tikhonov, operator), operator, x, y, SIGMA, n_samples=400)
    wanted = SIGMA * mean_variance(exact(operator, y.dtype)).sqrt()
    assert found.shape == x.shape and not found.is_complex()
    # 400 replicas and their neighbours: about 2 % uncertain.
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.0)
    assert float((found / wanted).mean()) == pytest.approx(1, abs=0.02)


def test_undersampling_amplifies_noise():
    maps = sensitivities(GRID.shape, 4).to(torch.complex128)
    x = torch.ones(1, 1, *GRID.shape, dtype=torch.complex128)
    noise = []
    for step in (1, 2):
        mask = torch.zeros(GRID.shape, dtype=torch.float64)
        mask[:, ::step] = 1
        operator = KSpaceMask(GRID, mask, maps, axes=(1,))

        def run(y, operator=operator):
            return operator.solve(operator.adjoint(y), 1e-6, rtol=1e-8).x

        noise.append(float(noise_replicas(run, operator, x, operator(x), SIGMA, n_samples=50).mean()))
    # Complete k-space and maps whose squares add up to 1: the noise of a sample. Half of it: sqrt(2) g, g > 1.
    assert noise[0] == pytest.approx(SIGMA, rel=0.03)
    assert noise[1] > 1.5 * SIGMA


def test_samples_of_two_at_least():
    operator = KSpaceMask(GRID, torch.ones(GRID.shape))
    x = torch.ones(1, 1, *GRID.shape)
    with pytest.raises(InvsrError, match="n_samples is 1"):
        noise_replicas(lambda y: x, operator, x, operator(x), SIGMA, n_samples=1)
