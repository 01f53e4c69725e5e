"""The noise level that a trained solver assumes and the penalty of its last data step, found from the noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr import Grid
from invsr.noise.likelihoods import Gaussian, Masked, Rician
from invsr.operators import Stack, acquisition
from invsr.solvers import observation as observations
from invsr.solvers.discrepancy import (
    CHI2_MOST,
    MOST_MORE,
    RUNS,
    match_discrepancy,
    run_with_enough_noise,
)
from invsr.solvers.observation import Observation
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


def runs_of(first, power, *, whole_first=None):
    """A run whose chi2 follows the noise level to a power, and the calls that it got: where, and level over SIGMA."""
    calls = []

    def run(seen, sigma, progress):
        calls.append((seen, sigma / SIGMA))
        if progress is not None:
            progress(0.5, {})
            progress(1.0, {})
        start = first if whole_first is None or seen.guess.numel() < WHOLE else whole_first
        return len(calls), start * (sigma / SIGMA) ** power

    return run, calls


WHOLE = 24 * 24 * 24


def observation(likelihood=None):
    grid = Grid((24, 24, 24), np.eye(4))
    A = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    guess = torch.zeros(1, 1, 24, 24, 24)
    guess[..., 10:, 8:, :] = 1.0
    return Observation(A, A(guess), (likelihood or Gaussian(SIGMA),), guess)


@pytest.fixture
def small(monkeypatch):
    """Parts of 12 voxels a side."""
    monkeypatch.setattr(observations, "SIDE", 12)


@pytest.mark.parametrize("power", [1.3, 1.8, 3.0])
@pytest.mark.parametrize("first", [0.2, 0.4, 0.65])
def test_more_noise_is_told_until_the_result_does_not_follow_it(first, power):
    run, calls = runs_of(first, power)
    assert run_with_enough_noise(run, observation(), SIGMA) == len(calls) <= RUNS
    assert calls[0][1] == 1.0 and all(seen.guess.numel() == WHOLE for seen, _ in calls)
    assert 0.7 <= first * calls[-1][1] ** power <= 1.3


@pytest.mark.parametrize("power", [1.3, 1.8, 3.0])
@pytest.mark.parametrize("first", [0.2, 0.4, 0.65])
def test_the_level_is_found_on_a_part_and_the_whole_is_run_once(small, first, power):
    run, calls = runs_of(first, power)
    told = []
    assert run_with_enough_noise(run, observation(), SIGMA, lambda done, _: told.append(done)) == len(calls)
    sizes = [seen.guess.numel() for seen, _ in calls]
    assert sizes[-1] == WHOLE and len(sizes) == RUNS and set(sizes[:-1]) == {12**3}
    assert told == sorted(told) and told[-1] == 1 and told[-2] < 0.7  # half of the last run
    assert first * calls[-1][1] ** power == pytest.approx(CHI2_LEAST)  # two runs of the part tell the power


def test_a_part_that_explains_the_noise_keeps_its_level(small):
    run, calls = runs_of(0.9, 1.5, whole_first=0.5)
    run_with_enough_noise(run, observation(), SIGMA)
    assert [level for _, level in calls] == [1.0, 1.0]


def test_a_part_is_of_the_same_scan_with_the_same_share_of_signal(small):
    mask = torch.zeros(1, 1, 24, 24, 6, dtype=torch.bool)
    mask[..., 3:, :, :] = True
    whole = observation(Masked(Gaussian(SIGMA), mask))
    part = whole.part()
    assert part.guess.shape == (1, 1, 12, 12, 12) and part.y.shape == part.likelihoods[0].mask.shape
    assert abs(float(part.guess.mean() - whole.guess.mean())) < 0.1
    torch.testing.assert_close(part.operator(part.guess), part.y, atol=1e-5, rtol=0)  # as the whole's is explained
    assert part.chi2(part.operator(part.guess)) < 1e-4
    assert part.likelihoods[0].mask.any() and part.likelihoods[0].sigma == SIGMA


def test_what_cannot_be_cut_has_no_part(small, monkeypatch):
    whole = observation()
    stack = Stack([whole.operator, whole.operator])
    assert replace(whole, operator=stack, y=(whole.y, whole.y), likelihoods=whole.likelihoods * 2).part() is None
    assert replace(whole, operator=2.0 * whole.operator).part() is None
    assert replace(whole, likelihoods=(Rician(SIGMA),)).part() is None
    monkeypatch.setattr(observations, "SIDE", 20)  # more than a quarter of the whole
    assert whole.part() is None


@pytest.mark.parametrize("chi2", [0.7, 1.0, 5.0])
def test_a_result_that_does_not_follow_the_noise_is_the_first(chi2):
    run, calls = runs_of(chi2, 0.0)
    assert run_with_enough_noise(run, observation(), SIGMA) == 1
    assert [level for _, level in calls] == [1.0]


def test_it_ends_where_nothing_helps():
    run, calls = runs_of(1e-9, 0.0)
    run_with_enough_noise(run, observation(), SIGMA)
    np.testing.assert_allclose([level for _, level in calls], [1.0, MOST_MORE, MOST_MORE**2])


def test_on_a_coarser_grid_smooth_volumes_explain_the_same_data():
    grid = Grid((25, 24, 24), np.eye(4))
    A = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    points = torch.from_numpy(grid.points() - grid.centre)
    truth = torch.exp(-points.square().sum(-1) / 60)[None, None]
    coarse, finer = Observation(A, A(truth), (Gaussian(SIGMA),), truth).coarser()
    assert coarse.guess.shape == (1, 1, 13, 12, 12) and coarse.y.shape == A(truth).shape
    error = coarse.operator(coarse.guess) - coarse.y
    assert float(error.abs().max()) < 0.1 * float(coarse.y.max())
    torch.testing.assert_close(A(finer(coarse.guess)), coarse.operator(coarse.guess))
    small = Grid((15, 24, 24), np.eye(4))
    A = acquisition(small.coarsen((1, 1, 4)), reference=small)
    assert Observation(A, A(truth[..., :15, :, :]), (Gaussian(SIGMA),), truth[..., :15, :, :]).coarser() is None
