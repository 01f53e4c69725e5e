"""How weights, penalties and noise levels go from iteration to iteration."""

import math

import numpy as np
import pytest

from invsr.errors import InvsrError
from invsr.priors import TV, Tikhonov
from invsr.solvers import Schedule
from invsr.solvers.weighting import CHI2_TARGET, CHI2_TOLERANCE, ENDING, LEAST_POWER, Constant, require_weight


def walk(schedule, n):
    """Level, weight and penalty of n iterations, and whether the walk was over before each."""
    seen = []
    for step in range(n):
        seen.append((schedule.sigma, schedule.lam, schedule.rho(), schedule.settled))
        schedule.learn(step, chi2=1.0)
    return [np.array(column) for column in zip(*seen, strict=True)]


def test_schedule_falls_evenly_in_the_logarithm_and_stays():
    sigma, lam, rho, settled = walk(Schedule(0.4, 0.025, 5, weight=1e-3), 8)
    np.testing.assert_allclose(sigma, [0.4, 0.2, 0.1, 0.05, 0.025, 0.025, 0.025, 0.025])
    np.testing.assert_allclose(lam, 1e-3)
    np.testing.assert_allclose(lam / rho, sigma**2)
    assert settled.tolist() == [False] * 5 + [True] * 3


def test_one_step_is_a_constant_level():
    sigma, _, _, settled = walk(Schedule(0.4, 0.025, 1, weight=1e-3), 3)
    np.testing.assert_allclose(sigma, 0.025)
    assert settled.tolist() == [False, True, True]


def test_a_given_penalty_makes_the_weight_follow():
    sigma, lam, rho, _ = walk(Schedule(0.4, 0.1, 3, weight=1e-3, penalty=0.5), 4)
    np.testing.assert_allclose(rho, 0.5)
    np.testing.assert_allclose(lam, 0.5 * sigma**2)


@pytest.mark.parametrize("penalty", [None, 0.5])
def test_an_automatic_schedule_gains_weight_in_the_end_until_chi2_is_high_enough(penalty):
    schedule = Schedule(0.4, 0.1, 6, weight=1e-3, penalty=penalty, automatic=True)
    settled = []
    for n in range(12):
        # Fits the noise by half until the weight has grown fivefold.
        grown = schedule.weight / 1e-3
        schedule.learn(n, chi2=0.9 if grown > 5 else 0.4)
        settled.append(schedule.settled)
        assert (grown > 1) == (n > 6 - ENDING)  # from then on, and no further than needed
    assert settled == [False] * 5 + [True] * 7
    assert 5 < schedule.weight / 1e-3 < 20
    if penalty is not None:
        assert schedule.penalty / penalty == pytest.approx(schedule.weight / 1e-3)


def test_penalty_of_a_constant_weight():
    # On the volume that of A* A; on differences it follows lam, at the same slope for any voxel when per voxel.
    assert Constant.of(Tikhonov("identity"), 0.3, None, 2.0).rho() == 1.0
    thresholds = []
    for spacing in (0.5, 2.0):
        weights = Constant.of(TV(), 0.3, None, spacing)
        thresholds.append(weights.lam / weights.rho() * spacing)
        assert weights.settled
    assert thresholds[0] == pytest.approx(thresholds[1])


@pytest.mark.parametrize("prior, power", [(TV(), 1), (Tikhonov(), 2)])
def test_weights_of_slopes_do_not_depend_on_the_unit_of_length(prior, power):
    # Squares of slopes are per mm^2, and what their prox takes away is a share: a ratio lam / rho without a unit.
    one, fine = (Constant.of(prior, None, 0.1, spacing) for spacing in (1.0, 0.02))
    assert fine.lam / one.lam == pytest.approx(0.02**power)
    assert fine.least / one.least == pytest.approx(0.02**power)
    assert (fine.lam / fine.rho()) / (one.lam / one.rho()) == pytest.approx(0.02 ** (power - 2))


def test_a_given_weight_is_kept():
    weights = Constant.of(TV(), 0.3, 0.1, 1.0)
    for n in range(10):
        weights.learn(n, chi2=50.0)
    assert weights.lam == 0.3 and weights.settled


@pytest.mark.parametrize("start", [1e-3, 30.0])
def test_automatic_weight_meets_its_target(start):
    # chi2 in proportion to a power of lam, as a fit has it.
    weights = Constant.of(TV(), None, 0.1, 1.0)
    weights.lam = start
    for n in range(60):
        weights.learn(n, chi2=2.0 * weights.lam**0.7)
    assert weights.settled
    assert 2.0 * weights.lam**0.7 == pytest.approx(CHI2_TARGET, rel=CHI2_TOLERANCE)


@pytest.mark.parametrize("floor", [1.3, 3.0, 16.0])
@pytest.mark.parametrize("start", [0.02, 0.3, 30.0])
def test_automatic_weight_stays_where_chi2_hardly_follows_it(start, floor):
    # A wrong model: something is left that no weight explains.
    def chi2(lam):
        return floor + 2.0 * lam**0.7

    weights = Constant.of(TV(), None, 0.1, 1.0)
    weights.lam = start
    for n in range(60):
        weights.learn(n, chi2(weights.lam))
    assert weights.settled
    power = math.log(chi2(4 * weights.lam) / chi2(weights.lam)) / math.log(4)
    # One change beyond the power at most; a first weight that is too small for it stays.
    assert power > LEAST_POWER / 4 or weights.lam == start


@pytest.mark.parametrize("figures", [(9.0, 2.0, 2.0, 2.0, 2.01), (9.0, 2.0, 1.9, 1.9, 1.8), (1.1, 1.1, 1.1, 1.1, 1.1)])
def test_automatic_weight_is_lowered_where_chi2_is_not_steady_or_expected(figures):
    # The volume still follows the weights before, or noise is most of what there is.
    weights = Constant.of(TV(), None, 0.1, 1.0)
    first = weights.lam
    for n, chi2 in enumerate(figures):
        weights.learn(n, chi2)
    assert not weights.settled and weights.lam < first / 1.5


def test_automatic_weight_changes_by_at_most_four_and_waits_for_the_start():
    weights = Constant.of(TV(), None, 0.1, 1.0)
    first = weights.lam
    for n in (0, 1):
        weights.learn(n, chi2=1e6)
        assert weights.lam == first
    weights.learn(2, chi2=1e6)
    assert weights.lam == pytest.approx(first / 4) and not weights.settled
    weights.learn(3, chi2=1e6)
    assert weights.lam == pytest.approx(first / 4)
    weights.learn(4, chi2=0.0)
    assert weights.lam == pytest.approx(first)


@pytest.mark.parametrize("lam, sigma", [(None, None), (None, 0.0), (None, -1.0), (None, float("nan"))])
def test_some_weight_is_required(lam, sigma):
    with pytest.raises(InvsrError, match=f"noise level above zero, not {sigma}: give lam or sigma"):
        require_weight(lam, sigma)


@pytest.mark.parametrize("lam", [0.0, -1.0, float("nan")])
def test_weight_is_positive(lam):
    with pytest.raises(InvsrError, match=f"lam is {lam}"):
        require_weight(lam, 0.1)
    require_weight(0.1, None)
    require_weight(None, 0.1)
