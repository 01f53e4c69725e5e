"""Quadratic priors: one data step is the whole solution."""

from __future__ import annotations

import math

from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.iteration import ProgressCallback, Status
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import Prior
from invsr.solvers.residuals import as_tuple, back_project, chi2, gain
from invsr.solvers.solution import Solution
from invsr.solvers.weighting import CHI2_TARGET, CHI2_TOLERANCE, require_weight


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
        Limit on the solves of the search.

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
    low, high = -math.inf, math.inf
    log_lam = math.log(lam if lam is not None else 0.05)
    status = Status.MAX_ITER
    x, prediction = back if x0 is None else x0, y
    for n in range(max_iter):
        solved = operator.solve(back, math.exp(log_lam), prior.analysis, x0=x, rtol=1e-5)
        x = solved.x
        prediction = operator(x)
        misfit = chi2(operator, noise, y, prediction)
        history.append({"lam": math.exp(log_lam), "chi2": misfit, "residual": solved.residual})
        if progress is not None:
            progress(n + 1, max_iter, history[-1])
        if lam is not None or abs(misfit / CHI2_TARGET - 1) < CHI2_TOLERANCE:
            status = solved.status
            break
        if misfit > CHI2_TARGET:
            high = log_lam
        else:
            low = log_lam
        # chi2 grows about as the square root of lam to the first power; the bracket guards the guess.
        guess = log_lam - 1.2 * math.log(misfit / CHI2_TARGET) if misfit > 0 else log_lam + 2.0
        guess = min(max(guess, log_lam - 4.0), log_lam + 4.0)
        if not low < guess < high:
            guess = 0.5 * (low + high)
        if abs(guess - log_lam) < 1e-4:
            break
        log_lam = guess
    return Solution.of_run(x, operator.domain, status, history, sigma, gain(y, prediction))
