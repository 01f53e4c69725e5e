"""Quadratic priors: one data step is the whole solution."""

from __future__ import annotations

import math

from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.iteration import ProgressCallback, Status, Steps, steps_left
from invsr.numerics.linear import LinearSolution
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.residuals import as_tuple, back_project, chi2, gain, intensity_scale
from invsr.solvers.solution import CHI2_EXPECTED, Solution
from invsr.solvers.weighting import CHI2_TARGET, CHI2_TOLERANCE, LEAST_POWER, require_weight

# First weight of the search, first guess of d log(chi2) / d log(lam) and the least that is believed, and the largest
# change of log(lam) from one solve to the next.
FIRST_LAM = 0.05
FIRST_SLOPE, LEAST_SLOPE, MOST_CHANGE = 1 / 1.2, 0.02, 4.0
# The automatic weight is never less than this times the squared noise (relative to the peak, per squared voxel for a
# prior on differences). Heads whose model holds end at 50 to 250 times it with slices of 3 to 5 mm.
LEAST_SHARE = 1.0
# Solves that the search usually takes.
USUAL_SOLVES = 5
# Solves that progress leaves room for beyond those expected: the last one is known only when it has ended.
ROOM = 0.25
# Tolerance of a solve, and iterations after which it is begun anew: where these bring its residual down by less than
# the factor, rounding allows no more.
RTOL, ITERATIONS, LEAST_GAIN = 1e-5, 500, 2.0


def solve_quadratic(
    operator: LinearOperator,
    y: Data,
    prior: Prior,
    *,
    lam: float | None = None,
    sigma: float | None = None,
    x0: Tensor | None = None,
    max_iter: int = 30,
    progress: ProgressCallback | None = None,
) -> Solution:
    """``(A* A + lam K* K)^-1 A* y`` for a quadratic prior, with lam found so that chi2 is about 1.

    The residual grows monotonically with lam, so a bracketed secant search in the logarithms finds the
    weight in a handful of exact solves.

    Parameters
    ----------
    operator, y, prior, lam, sigma, x0, progress
        As `invsr.solvers.iterate`; the prior must be quadratic.
    max_iter : int
        Limit on the solves; one that has not converged is gone on with, which counts as another.

    Raises
    ------
    InvsrError
        When the prior is not quadratic, or neither lam nor sigma is known.
    """
    if not prior.quadratic:
        raise InvsrError(f"{type(prior).__name__} is not quadratic: use invsr.solvers.iterate")
    require_weight(lam, sigma)
    back = back_project(operator, y)
    noise = tuple(Gaussian(sigma or 1.0) for _ in as_tuple(y))
    history: list[dict[str, float]] = []
    x, prediction = back if x0 is None else x0, y
    least = _least_lam(operator, y, x, sigma, prior) if lam is None else lam
    search = _Search(FIRST_LAM if lam is None else lam, least)
    status, steps = Status.MAX_ITER, Steps(progress)
    for _ in range(max_iter):
        off = [abs(entry["chi2"] / CHI2_TARGET - 1) for entry in history]
        left = 1 if lam is not None else steps_left(off, CHI2_TOLERANCE, USUAL_SOLVES, max_iter)
        with steps.step(left + ROOM):
            solved = operator.solve(back, search.lam, prior.analysis, x0=x, rtol=RTOL, max_iter=ITERATIONS)
        x = solved.x
        prediction = operator(x)
        misfit = chi2(operator, noise, y, prediction)
        history.append({"lam": search.lam, "chi2": misfit, "residual": solved.residual})
        steps.tell(history[-1])
        ended = _ending(solved, history)
        if ended is not None and (lam is not None or search.ends(misfit)):
            status = ended
            break
    steps.finish()
    return Solution.of_run(x, operator.domain, status, history, sigma, gain(noise, y, prediction))


def _ending(solved: LinearSolution, history: list[dict[str, float]]) -> Status | None:
    """How a solve ended; None where going on with it would bring it nearer."""
    if solved.status is not Status.MAX_ITER:
        return solved.status
    before = [entry["residual"] for entry in history[:-1] if entry["lam"] == history[-1]["lam"]]
    return Status.STALLED if before and solved.residual * LEAST_GAIN > before[-1] else None


class _Search:
    """The weight at which chi2 reaches its target: a secant search in the logarithms, kept inside its bracket.

    Where the model is wrong no weight brings chi2 down to its target: it ends at the least weight, and before that goes
    back to the weight below which chi2 hardly follows (`LEAST_POWER`).
    """

    def __init__(self, lam: float, least: float) -> None:
        self.least = math.log(least)
        self.log_lam = max(math.log(lam), self.least)
        self.low, self.high = -math.inf, math.inf
        self.before: tuple[float, float] | None = None
        self.went_back = False

    @property
    def lam(self) -> float:
        return math.exp(self.log_lam)

    def ends(self, misfit: float) -> bool:
        """Take the chi2 of the present weight; whether the search is over, else the next weight is set."""
        excess = math.log(max(misfit, 1e-12) / CHI2_TARGET)
        if self.went_back or abs(misfit / CHI2_TARGET - 1) < CHI2_TOLERANCE:
            return True
        if excess > 0:
            self.high = self.log_lam
        else:
            self.low = self.log_lam
        slope = FIRST_SLOPE
        if self.before is not None and self.before[0] != self.log_lam:
            slope = max((excess - self.before[1]) / (self.log_lam - self.before[0]), LEAST_SLOPE)
            if misfit > CHI2_EXPECTED[1] and slope < LEAST_POWER and self.log_lam < self.before[0]:
                self.log_lam, self.went_back = self.before[0], True
                return False
        if excess > 0 and self.log_lam <= self.least:
            return True
        self.before = self.log_lam, excess
        guess = self.log_lam - min(max(excess / slope, -MOST_CHANGE), MOST_CHANGE)
        if not self.low < guess < self.high:
            guess = 0.5 * (self.low + self.high)
        guess = max(guess, self.least)
        if abs(guess - self.log_lam) < 1e-4:
            return True
        self.log_lam = guess
        return False


def _least_lam(operator: LinearOperator, y: Data, x: Tensor, sigma: float | None, prior: Prior) -> float:
    """The least automatic weight: see `LEAST_SHARE`."""
    if sigma is None:
        return 1e-30
    relative = sigma / intensity_scale(y, tuple(Gaussian(sigma) for _ in as_tuple(y)), x)
    unit = float(operator.domain.spacing.min()) ** 2 if prior.analysis == GRADIENT else 1.0
    return LEAST_SHARE * relative**2 * unit
