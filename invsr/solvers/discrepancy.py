"""What a trained solver's result owes to the data: to explain them up to their noise, and not to follow it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from invsr.numerics.iteration import ProgressCallback, Steps, split
from invsr.operators.base import LinearOperator
from invsr.solvers.observation import Observation
from invsr.solvers.solution import CHI2_EXPECTED
from invsr.solvers.weighting import CHI2_LEAST

# Where chi2 goes from above: as far inside the expected band as `CHI2_LEAST` is from below.
CHI2_MOST = CHI2_EXPECTED[1] - (CHI2_LEAST - CHI2_EXPECTED[0])
# How far the penalty may go from the one that was learned, and how exactly it is found; logarithms.
REACH = 7.0
TOLERANCE = 0.02
# Of the data steps where they are inexact (conjugate gradients).
RTOL, MOST_ITERATIONS = 1e-4, 50
# Largest number of runs; largest factor by which the assumed noise level grows from one to the next, and the power of
# it that chi2 follows until two runs have told: measured on heads, 1.3 to 1.8.
RUNS = 3
MOST_MORE = 2.0
POWER = 1.5
# The powers that two runs are believed.
POWERS = (1.0, 5.0)

T = TypeVar("T")


def run_with_enough_noise(
    run: Callable[[Observation, float, ProgressCallback | None], tuple[T, float]],
    observation: Observation,
    sigma: float,
    progress: ProgressCallback | None = None,
) -> T:
    """Run a trained solver, with a higher assumed noise level where its result would fit the noise.

    Networks smooth according to the noise level that they are given, tuned to the anatomy that they were trained on.
    Smoother anatomy leaves a chi2 below the expected band: part of the noise is then in the result. The level that
    brings it to `CHI2_LEAST` is found on a part of the volume (`Observation.part`), and the whole of it run once; in
    up to `RUNS` runs of the whole where it has no such part.

    Parameters
    ----------
    run : callable
        From an observation, a noise level and whom it tells of its progress to a result and its chi2, by the noise that
        there is.
    observation : Observation
    sigma : float
        The noise that there is.
    progress : callable, optional
    """
    part = observation.part()
    share, tries = 1.0, RUNS
    if part is not None:
        tries = RUNS - 1
        share = tries * part.guess.numel() / (tries * part.guess.numel() + observation.guess.numel())
    finding, last = split(progress, share)
    steps, level, found = Steps(finding), sigma, []
    for left in range(tries, 0, -1):
        with steps.step(left / 2) as inner:  # one or two will do, as a rule
            result, misfit = run(part or observation, level, inner)
        found.append((level, misfit))
        if fits(found) and (part is None or left == tries):  # two runs of the part tell the level more exactly
            break
        level = next_level(found)
    steps.finish()
    return result if part is None else run(observation, level, last)[0]


def fits(found: list[tuple[float, float]]) -> bool:
    """Whether the last noise level will do, of levels and their chi2; the first one that is no less than expected."""
    low, high = CHI2_EXPECTED
    return low <= found[-1][1] <= (high if len(found) > 1 else math.inf)


def next_level(found: list[tuple[float, float]]) -> float:
    """The noise level that should bring chi2 to `CHI2_LEAST`: chi2 follows a power of it."""
    level, misfit = found[-1]
    power = POWER
    if len(found) > 1:
        before, other = found[-2]
        measured = math.log(max(misfit, 1e-6) / max(other, 1e-6)) / math.log(level / before)
        power = min(max(measured, POWERS[0]), POWERS[1])
    return level * min(MOST_MORE, math.pow(CHI2_LEAST / max(misfit, 1e-6), 1 / power))


def match_discrepancy(
    operator: LinearOperator,
    back_projection: Tensor,
    x: Tensor,
    rho: float,
    misfit: Callable[[Tensor], float],
) -> tuple[Tensor, float]:
    """The volume near x that explains the data up to their noise, no closer.

    .. code-block:: text

        x(rho) = argmin 1/2 ||A x - t||^2 + rho/2 ||x - z||^2,    z = x + A*(A x - t) / rho for the rho given

    chi2 grows with rho from the best fit's to z's. With the rho given x stays x; where its chi2 lies outside the
    expected band, rho is found by bisection so that it is `CHI2_LEAST` or `CHI2_MOST` (discrepancy principle,
    Morozov 1966). Networks learn a rho for the acquisitions that they were trained on: real scans have other noise.

    Parameters
    ----------
    operator : LinearOperator
    back_projection : Tensor, shape (batch, channel, *operator.domain.shape)
        ``A* t``.
    x : Tensor, the same shape
    rho : float
        Penalty of the data step that x comes from, above zero.
    misfit : callable
        chi2 of a volume.

    Returns
    -------
    (Tensor, float)
        The volume and its penalty: those given where their chi2 is in the band, what comes nearest where nothing brings
        it there.
    """
    found = misfit(x)
    if CHI2_EXPECTED[0] <= found <= CHI2_EXPECTED[1]:
        return x, rho
    from scipy.optimize import brentq  # takes longer to import than all the rest

    z = x + (operator.gram(x) - back_projection) / rho
    aim = CHI2_LEAST if found < 1 else CHI2_MOST

    nearest = x

    def at(logarithm: float) -> Tensor:
        nonlocal nearest
        penalty = math.exp(logarithm)
        rhs = back_projection + penalty * z
        nearest = operator.solve(rhs, penalty, x0=nearest, rtol=RTOL, max_iter=MOST_ITERATIONS).x
        return nearest

    def excess(logarithm: float) -> float:
        return misfit(at(logarithm)) - aim

    here = math.log(rho)
    there = here + math.copysign(REACH, aim - found)
    if excess(there) * (found - aim) < 0:
        there = float(brentq(excess, here, there, xtol=TOLERANCE))
    return at(there), math.exp(there)
