"""The penalty of the last data step, found from the noise."""

import numpy as np
import pytest
import torch

from invsr import Grid
from invsr.operators import acquisition
from invsr.solvers.discrepancy import CHI2_MOST, MOST_MORE, RUNS, match_discrepancy, rerun_with_more_noise
from invsr.solvers.weighting import CHI2_LEAST

SIGMA = 0.02


def noisy_scan():
    grid = Grid((12, 12, 16), np.eye(4))
    A = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand((1, 1, *grid.shape), generator=generator)
    clean = A(truth)
    return A, clean + SIGMA * torch.randn(clean.shape, generator=generator)


@pytest.mark.parametrize(("rho", "aim"), [(1e-3, CHI2_LEAST), (30.0, CHI2_MOST)])
def test_chi2_is_brought_into_the_band(rho, aim):
    A, y = noisy_scan()
    back, z = A.adjoint(y), torch.full((1, 1, *A.domain.shape), 0.5)
    misfit = lambda x: float(((A(x) - y) / SIGMA).square().mean())  # noqa: E731
    x = A.solve(back + rho * z, rho).x
    assert not 0.7 <= misfit(x) <= 1.3
    found, penalty = match_discrepancy(A, back, x, rho, misfit)
    assert misfit(found) == pytest.approx(aim, rel=0.05)
    # It is the data step from the same z with that penalty.
    torch.testing.assert_close(found, A.solve(back + penalty * z, penalty).x, rtol=1e-3, atol=1e-3)


def test_what_explains_the_data_is_left_alone():
    A, y = noisy_scan()
    x = torch.zeros(1, 1, *A.domain.shape)
    found, penalty = match_discrepancy(A, A.adjoint(y), x, 2.0, lambda _: 1.0)
    assert found is x
    assert penalty == 2.0


def test_what_nothing_explains_comes_as_near_as_it_can():
    A, y = noisy_scan()
    back, x = A.adjoint(y), torch.zeros(1, 1, *A.domain.shape)
    misfit = lambda v: 5.0 + float((A(v) - y).square().mean())  # noqa: E731
    found, penalty = match_discrepancy(A, back, x, 1.0, misfit)
    assert penalty < 1e-2
    assert torch.isfinite(found).all()
    assert misfit(found) < misfit(x)


@pytest.mark.parametrize("power", [1.3, 1.8])
@pytest.mark.parametrize("first", [0.4, 0.65])
def test_more_noise_is_told_until_the_result_does_not_follow_it(first, power):
    assumed = []

    def run(sigma):
        assumed.append(sigma / SIGMA)
        return len(assumed), first * assumed[-1] ** power

    last = rerun_with_more_noise(run, SIGMA)
    assert last == len(assumed) <= RUNS and assumed[0] == 1.0
    assert 0.7 <= first * assumed[-1] ** power <= 1.0


@pytest.mark.parametrize("chi2", [0.7, 1.0, 5.0])
def test_a_result_that_does_not_follow_the_noise_is_the_first(chi2):
    assumed = []
    assert rerun_with_more_noise(lambda sigma: (assumed.append(sigma) or "result", chi2), SIGMA) == "result"
    assert assumed == [SIGMA]


def test_it_ends_where_nothing_helps():
    assumed = []
    rerun_with_more_noise(lambda sigma: (assumed.append(sigma), 1e-9), SIGMA)
    np.testing.assert_allclose(assumed, SIGMA * np.array([1.0, MOST_MORE, MOST_MORE**2]))
