"""The driver of steps: levels and weights from iteration to iteration, convergence, the first guess."""

import numpy as np
import pytest
import torch
from small_grids import noise
from smoother import F64, GRID, STEPS, Smoother

from invsr.errors import InvsrError
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.differences import gradient
from invsr.numerics.levels import peak
from invsr.numerics.linear import largest_eigenvalue
from invsr.operators import Stack, acquisition
from invsr.solvers import HQS, Schedule, Status, iterate
from invsr.solvers import plug_and_play as driver
from invsr.solvers.residuals import chi2
from invsr.solvers.weighting import CHI2_LEAST, CHI2_TOLERANCE, ENDING
from invsr.testing.phantoms import centred_grid, shapes


def scan_of_shapes(sigma=0.03):
    grid = centred_grid((16, 14, 12), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 3)), reference=grid)
    clean = operator(shapes(grid, n_samples=4, size=16.0, dtype=F64))
    return operator, clean + sigma * noise(*clean.shape)


@pytest.mark.parametrize("name", STEPS)
def test_history_follows_the_schedule(name):
    operator, y = scan_of_shapes()
    schedule = Schedule(0.2, 0.05, 6, 1e-3)
    solution = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03, schedule=schedule, max_iter=9, rtol=0.0)
    assert all({"lam", "sigma", "chi2", "change", "split"} <= set(entry) for entry in solution.history)
    levels = [entry["sigma"] for entry in solution.history]
    np.testing.assert_allclose(levels, [*np.geomspace(0.2, 0.05, 6), 0.05, 0.05, 0.05])
    lams = [entry["lam"] for entry in solution.history]
    if name in ("pgd", "red"):  # their penalty is the operator's norm, whatever the level
        np.testing.assert_allclose(lams, largest_eigenvalue(operator.gram, solution.x) * np.square(levels))
    else:
        np.testing.assert_allclose(lams, 1e-3)
    assert solution.status is Status.MAX_ITER and len(solution.history) == 9
    assert solution.lam == lams[-1] and solution.chi2 == solution.history[-1]["chi2"]
    assert schedule == Schedule(0.2, 0.05, 6, 1e-3)  # good for another run


def test_default_schedule_ends_below_the_noise():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother(), sigma=0.03)
    levels = [entry["sigma"] for entry in solution.history]
    first = driver.FIRST_LEVEL * peak(driver.smooth_guess(operator, y))
    assert (
        levels[0] == pytest.approx(first)
        and levels[HQS.n_levels - 1] == pytest.approx(driver.LAST_LEVEL * 0.03) == levels[-1]
    )
    early = solution.history[: HQS.n_levels - ENDING + 1]
    assert all(entry["lam"] == pytest.approx(driver.PRIOR_WEIGHT * 0.03**2) for entry in early)
    assert solution.status is Status.CONVERGED and solution.history[-1]["change"] < 2e-2
    given = iterate(HQS(), operator, y, Smoother(), sigma=0.03, lam=0.02, max_iter=1)
    assert given.lam == 0.02


@pytest.mark.parametrize("name", STEPS)
def test_the_weight_grows_where_noise_is_fitted(name):
    operator, y = scan_of_shapes()
    light = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03, schedule=Schedule(0.2, 0.0075, 10, 1e-6))
    solution = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03)
    assert light.chi2 < 0.6 and solution.status is Status.CONVERGED
    assert CHI2_LEAST * (1 - 2 * CHI2_TOLERANCE) <= solution.chi2 < 1.3 and solution.lam > light.lam


def test_no_convergence_before_the_last_level():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother(), sigma=0.03, lam=driver.PRIOR_WEIGHT * 0.03**2, rtol=1e3)
    assert solution.status is Status.CONVERGED and len(solution.history) == HQS.n_levels


def test_noise_is_estimated_for_denoisers():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother())
    assert solution.sigma == estimate_sigma(y)
    assert solution.history[-1]["sigma"] == pytest.approx(driver.LAST_LEVEL * solution.sigma)


@pytest.mark.parametrize("name", STEPS)
def test_weights_out_of_range(name):
    operator, y = acquisition(GRID, 1.0), noise(1, 1, *GRID.shape)

    def run(data=y, a=operator, **options):
        return iterate(STEPS[name](), a, data, Smoother(), **options)

    for lam in (0.0, -1.0):
        with pytest.raises(InvsrError, match=f"lam is {lam}"):
            run(lam=lam, sigma=0.1)
    for sigma in (0.0, -1.0):
        with pytest.raises(InvsrError, match="give lam or sigma"):
            run(sigma=sigma)
        with pytest.raises(InvsrError, match=f"sigma is {sigma}"):
            run(sigma=sigma, lam=0.1)
    with pytest.raises(InvsrError, match="stack of 2: give sigma"):
        run((y, y), Stack([operator, operator]))
    with pytest.raises(InvsrError, match="max_iter is 0"):
        run(sigma=0.1, max_iter=0)


@pytest.mark.parametrize("kind", ["constant", "ramp"])
def test_smooth_guess_continues_what_it_sees(kind):
    grid = centred_grid((10, 9, 24), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    points = torch.from_numpy(grid.points())
    truth = (points @ torch.tensor([0.02, -0.03, 0.05], dtype=F64) + 1)[None, None]
    truth = torch.full_like(truth, 0.7) if kind == "constant" else truth
    found = driver.smooth_guess(operator, operator(truth))
    if kind == "constant":
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
    else:
        # A slope costs, so that it is a little too small, most at the faces.
        assert float((found - truth)[..., 4:-4].abs().max()) < 0.02


def test_smooth_guess_explains_the_data():
    operator, y = scan_of_shapes(sigma=0.03)
    guess = driver.smooth_guess(operator, y)
    assert chi2(operator, (Gaussian(0.03),), y, operator(guess)) < 0.2
    spread = gradient(guess, [1.0] * 3, operator.boundary).square().sum()
    zeros = operator.solve(operator.adjoint(y), 1e-6, "identity").x  # the least volume, not the least slope
    assert float(spread) < float(gradient(zeros, [1.0] * 3, operator.boundary).square().sum())
