"""What a trained solver's result owes to the data: to explain them up to their noise, and not to follow it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from invsr.operators.base import LinearOperator
from invsr.solvers.solution import CHI2_EXPECTED
from invsr.solvers.weighting import CHI2_LEAST

# Where chi2 goes from above: as far inside the expected band as `CHI2_LEAST` is from below.
CHI2_MOST = CHI2_EXPECTED[1] - (CHI2_LEAST - CHI2_EXPECTED[0])
# How far the penalty may go from the one that was learned, and how exactly it is found; logarithms.
REACH = 7.0
TOLERANCE = 0.02
# Largest number of runs; largest factor by which the assumed noise level grows from one to the next, and the power of
# chi2 that it follows: measured on heads, chi2 grows as the assumed noise level to the power of 1.3 to 1.8.
RUNS = 3
MOST_MORE = 2.0
POWER = 1 / 1.5
# Runs that are expected, for the time left.
EXPECTED_RUNS = 1.5

T = TypeVar("T")


def rerun_with_more_noise(run: Callable[[float], tuple[T, float]], sigma: float) -> T:
    """Run a trained solver, again with a higher assumed noise level where its result fits the noise.

    Networks smooth according to the noise level that they are given, tuned to the anatomy that they were trained on.
    Smoother anatomy leaves a chi2 below the expected band: part of the noise is then in the result.

    Parameters
    ----------
    run : callable
        From a noise level to a result and its chi2, by the noise that there is.
    sigma : float
        That noise.
    """
    assumed_sigma = sigma
    result, chi2 = run(assumed_sigma)
    for _ in range(RUNS - 1):
        if chi2 >= CHI2_EXPECTED[0]:
            break
        assumed_sigma *= min(MOST_MORE, (CHI2_LEAST / max(chi2, 1e-6)) ** POWER)
        result, chi2 = run(assumed_sigma)
    return result


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
    from scipy.optimize import brentq  # takes longer to import than all the rest

    found = misfit(x)
    if CHI2_EXPECTED[0] <= found <= CHI2_EXPECTED[1]:
        return x, rho
    z = x + (operator.gram(x) - back_projection) / rho
    aim = CHI2_LEAST if found < 1 else CHI2_MOST

    def at(logarithm: float) -> Tensor:
        penalty = math.exp(logarithm)
        return operator.solve(back_projection + penalty * z, penalty, x0=x, rtol=1e-5).x

    def excess(logarithm: float) -> float:
        return misfit(at(logarithm)) - aim

    here = math.log(rho)
    there = here + math.copysign(REACH, aim - found)
    if excess(there) * (found - aim) < 0:
        there = float(brentq(excess, here, there, xtol=TOLERANCE))
    return at(there), math.exp(there)
