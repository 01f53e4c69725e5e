"""Plug-and-play driver: repeat a step until it converges, choosing the prior's weight on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from invsr.linalg import Status
from invsr.operators.base import LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.likelihood import Gaussian, Likelihood
from invsr.solvers.solution import Solution
from invsr.solvers.statistics import as_tuple, chi2, gain, target
from invsr.solvers.steps import Problem, State
from invsr.solvers.weight import CHI2_TARGET, CHI2_TOLERANCE, require_weight

# Ratio of lam to rho for a prior on differences: the size of its step, in scaled intensity per voxel. Decides
# the speed of convergence, not the limit. A prior on the volume itself gets rho = 1, the norm of A* A.
GRADIENT_STEP = 0.04

Progress = Callable[[int, int, dict[str, float]], None]


class Step(Protocol):
    """What `iterate` drives: see `invsr.solvers.steps`."""

    def start(self, problem: Problem, x: Tensor) -> State: ...

    def __call__(self, state: State, problem: Problem, lam: float, rho: float) -> State: ...


def iterate(
    step: Step,
    operator: LinearOperator,
    y: Any,
    prior: Prior,
    *,
    lam: float | None = None,
    sigma: float | None = None,
    likelihood: Likelihood | tuple[Likelihood, ...] | None = None,
    x0: Tensor | None = None,
    max_iter: int = 60,
    rtol: float = 1e-3,
    progress: Progress | None = None,
) -> Solution:
    """Minimise ``data term + lam R(x)`` by repeating a step until the volume stops changing.

    Parameters
    ----------
    step : Step
        For example `ADMM()`.
    operator : LinearOperator
    y : Tensor (or tuple of them for a stack)
        Data, scaled so that its bright tissue is near 1.
    prior : Prior
    lam : float, optional
        Weight of the prior against ``1/2 ||A x - y||^2``, in scaled intensities. By default chosen so
        that the residual chi2 is about 1 (the discrepancy principle), which needs `sigma`.
    sigma : float, optional
        Standard deviation of the noise in y.
    likelihood : Likelihood (or one per scan of a stack), optional
        Gaussian by default; others re-target the data after every step (majorise-minimise).
    x0 : Tensor, optional
        First guess; by default ``A* y``.
    max_iter, rtol
        Stop when the relative change of x falls below rtol.
    progress : callable, optional
        Called with (iteration, max_iter, history entry).

    Returns
    -------
    Solution

    Raises
    ------
    InvsrError
        When neither lam nor sigma is known, or one of them is not positive.

    References
    ----------
    Morozov (1966), Soviet Math. Dokl. 7, 414-417, for the discrepancy principle.
    """
    require_weight(lam, sigma)
    automatic = lam is None
    noise = sigma if sigma is not None else 1.0
    likelihoods = as_tuple(likelihood) if likelihood is not None else tuple(Gaussian(noise) for _ in as_tuple(y))
    fixed_data = all(isinstance(one, Gaussian) for one in likelihoods)
    weight = 0.2 * noise if lam is None else float(lam)
    unit = GRADIENT_STEP / float(operator.domain.spacing.min())

    back = operator.adjoint(y)
    problem = Problem(operator, prior, back)
    state = step.start(problem, back if x0 is None else x0)
    history: list[dict[str, float]] = []
    status, settled, prediction = Status.MAX_ITER, not automatic, None
    for n in range(max_iter):
        if not fixed_data:
            prediction = operator(state.x) if prediction is None else prediction
            problem = replace(problem, back_projection=operator.adjoint(target(likelihoods, y, prediction)))
        before = state.x
        state = step(state, problem, weight, weight / unit if prior.analysis == GRADIENT else 1.0)
        prediction = operator(state.x)
        entry = {
            "lam": weight,
            "chi2": chi2(operator, likelihoods, y, prediction),
            "change": float((state.x - before).norm() / state.x.norm().clamp(min=1e-30)),
            "split": state.split_residual,
        }
        history.append(entry)
        if progress is not None:
            progress(n + 1, max_iter, entry)
        if automatic and n >= 2 and n % 2 == 0:
            # chi2 grows about in proportion to lam; lam and rho change together, which keeps the dual valid.
            mismatch = entry["chi2"] / CHI2_TARGET
            settled = abs(mismatch - 1) < CHI2_TOLERANCE
            if not settled:
                weight /= min(max(mismatch, 0.25), 4.0)
        if settled and n >= 5 and entry["change"] < rtol:
            status = Status.CONVERGED
            break
    return Solution.of_run(state.x, operator.domain, status, history, sigma, gain(y, prediction))
