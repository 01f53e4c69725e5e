"""Plug-and-play driver: repeat a step until it converges, the weights going along as the prior needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import Gaussian, Likelihood
from invsr.numerics.iteration import ProgressCallback, Status
from invsr.numerics.linear import inner
from invsr.operators.base import LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.residuals import as_tuple, chi2, gain, peak, target
from invsr.solvers.solution import Solution
from invsr.solvers.steps import HQS, PGD, RED, Problem, Step
from invsr.solvers.weighting import Constant, Schedule, Weights, require_weight

# Plug-and-play, set on stroke_* (benchmarks/pnp_settings.py): noise level of the first iteration as a share of the
# peak and of the last as a share of the data's, weight of the prior over sigma^2, iterations from the first level to
# the last, and weight of the squared slope (per voxel) in the first guess.
START = 0.07
END = 0.25
WEIGHT = 0.25
STEPS = 10
# Descent with a gradient-step denoiser: its last level and weight, the same shares. At lower levels it hardly moves.
DESCENT_END = 3.0
DESCENT_WEIGHT = 2.0
# RED takes half a step towards the prior, half a step towards the data at a time: it needs more of them.
GRADIENT_STEPS = 16
SMOOTHNESS = 1e-2
RTOL, DENOISER_RTOL = 1e-3, 2e-2


def iterate(
    step: Step,
    operator: LinearOperator,
    y: Any,
    prior: Prior,
    *,
    lam: float | None = None,
    sigma: float | None = None,
    likelihood: Likelihood | tuple[Likelihood, ...] | None = None,
    schedule: Schedule | None = None,
    x0: Tensor | None = None,
    max_iter: int = 60,
    rtol: float | None = None,
    progress: ProgressCallback | None = None,
) -> Solution:
    """Minimise ``data term + lam R(x)``, or its like for a denoiser, by repeating a step until nothing changes.

    Parameters
    ----------
    step : Step
        `HQS()`, `ADMM()`, `PGD()` or `RED()`.
    operator : LinearOperator
    y : Tensor (or tuple of them for a stack)
        Data, scaled so that its bright tissue is near 1.
    prior : Prior
    lam : float, optional
        Weight of the prior against ``1/2 ||A x - y||^2``, in scaled intensities. By default chosen so
        that the residual chi2 is about 1 (the discrepancy principle); for denoisers in proportion to sigma^2.
    sigma : float, optional
        Standard deviation of the noise in y. Estimated for denoisers if it is not given, which needs one scan.
    likelihood : Likelihood (or one per scan of a stack), optional
        Gaussian by default; others re-target the data after every step (majorise-minimise).
    schedule : Schedule, optional
        Noise levels of a denoiser; by default those of `noise_schedule`.
    x0 : Tensor, optional
        First guess; by default ``A* y``, and for denoisers the smoothest volume that explains the data
        (`smooth_guess`).
    max_iter, rtol
        Stop when the relative change of x falls below rtol: by default 0.001, and 0.02 with denoisers, whose random
        symmetries leave 0.003 to 0.015 once the schedule has ended.
    progress : callable, optional
        Called with (iteration, max_iter, history entry).

    Returns
    -------
    Solution

    Raises
    ------
    InvsrError
        When neither lam nor sigma is known, or one of them or `max_iter` is not positive.

    References
    ----------
    Morozov (1966), Soviet Math. Dokl. 7, 414-417, for the discrepancy principle.
    """
    if max_iter < 1:
        raise InvsrError(f"max_iter is {max_iter}: at least one iteration is needed")
    likelihoods = as_tuple(likelihood) if likelihood is not None else None
    back = operator.adjoint(y)
    if prior.takes_noise_level and sigma is None:
        if isinstance(y, tuple):
            raise InvsrError(f"noise is estimated from one scan, not from a stack of {len(y)}: give sigma")
        sigma = estimate_sigma(y)
    require_weight(lam, sigma)
    if x0 is None:
        x0 = smooth_guess(operator, y) if prior.takes_noise_level else back
    if rtol is None:
        rtol = DENOISER_RTOL if prior.takes_noise_level else RTOL
    noise = sigma if sigma is not None else 1.0
    likelihoods = likelihoods or tuple(Gaussian(noise) for _ in as_tuple(y))
    problem = Problem(operator, prior, back, y)
    if isinstance(step, PGD | RED):
        problem = replace(problem, norm=largest_eigenvalue(operator, back))
    weights: Weights
    if not prior.takes_noise_level:
        weights = Constant.of(prior, lam, sigma, float(operator.domain.spacing.min()))
    else:
        n_steps = GRADIENT_STEPS if isinstance(step, RED) else STEPS
        levels = schedule or noise_schedule(x0, noise, lam, n_steps)
        if isinstance(step, HQS) and step.descend and schedule is None:
            # One objective to descend on: its weight stays.
            weight = levels.weight * DESCENT_WEIGHT / WEIGHT if lam is None else lam
            end = levels.end * DESCENT_END / END
            levels = replace(levels, start=max(levels.start, end), end=end, weight=weight, automatic=False)
        if isinstance(step, PGD | RED):
            # Their penalty is not free: the last level is the one at which the weight comes out the same.
            end = levels.end if schedule else (levels.weight / problem.norm) ** 0.5
            levels = replace(levels, penalty=problem.norm, start=max(levels.start, end), end=end)
        weights = replace(levels)  # a copy, because it counts iterations

    fixed_data = all(isinstance(one, Gaussian) for one in likelihoods)
    state = step.start(problem, x0)
    history: list[dict[str, float]] = []
    status, prediction, lam_now = Status.MAX_ITER, None, weights.lam
    for n in range(max_iter):
        if not fixed_data:
            prediction = operator(state.x) if prediction is None else prediction
            aim = target(likelihoods, y, prediction)
            problem = replace(problem, back_projection=operator.adjoint(aim), target=aim)
            state = replace(state, objective=None)  # it was that of the old data
        before = state.x
        if weights.lam != lam_now:
            state = replace(state, objective=None)  # it was that of the old weight
        lam_now, rho_now = weights.lam, weights.rho()
        state = step(state, problem, lam_now, rho_now)
        prediction = operator(state.x)
        entry = {
            "lam": lam_now,
            "sigma": (lam_now / rho_now) ** 0.5,
            "chi2": chi2(operator, likelihoods, y, prediction),
            "change": float((state.x - before).norm() / state.x.norm().clamp(min=1e-30)),
            "split": state.split_residual,
        }
        if state.objective is not None:
            entry["objective"] = state.objective
        history.append(entry)
        if progress is not None:
            progress(n + 1, max_iter, entry)
        weights.learn(n, entry["chi2"])
        if weights.settled and n >= 5 and entry["change"] < rtol:
            status = Status.CONVERGED
            break
    return Solution.of_run(state.x, operator.domain, status, history, sigma, gain(y, prediction))


def noise_schedule(x0: Tensor, sigma: float, lam: float | None = None, n_steps: int = STEPS) -> Schedule:
    """From an error of `START` of the peak down to `END` of the noise, the weight in proportion to sigma^2.

    Unless `lam` is given, the weight grows in the end where the residual chi2 stays below `CHI2_LEAST`.

    Parameters
    ----------
    x0 : Tensor
        First guess, for the intensity scale.
    sigma : float
        Noise of the data.
    lam : float, optional
    n_steps : int
    """
    scale = peak(x0) if bool(x0.any()) else 1.0
    noise = max(sigma, 1e-4 * scale)
    weight = WEIGHT * noise**2 if lam is None else lam
    return Schedule(max(START * scale, END * noise), END * noise, n_steps, weight, automatic=lam is None)


def smooth_guess(operator: LinearOperator, y: Any) -> Tensor:
    """The volume of least slope among those that explain the data, nearly: Tikhonov with a small weight."""
    spacing = float(operator.domain.spacing.min())
    return operator.solve(operator.adjoint(y), SMOOTHNESS * spacing**2, GRADIENT, rtol=1e-4).x


def largest_eigenvalue(operator: LinearOperator, like: Tensor, n_iter: int = 15) -> float:
    """``||A*A||``, one per cent added for what is missing to convergence.

    References
    ----------
    Lanczos (1950), J. Res. Natl. Bur. Stand. 45, 255-282. Power iteration stays 5 % low on stacks of scans.
    """
    q = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.real.dtype).to(like)
    q, before = q / q.norm(), torch.zeros_like(q)
    diagonal: list[float] = []
    beside: list[float] = [0.0]
    for _ in range(n_iter):
        w = operator.gram(q) - beside[-1] * before
        diagonal.append(float(inner(q, w)))
        w = w - diagonal[-1] * q
        beside.append(float(inner(w, w)) ** 0.5)
        if beside[-1] <= 1e-6 * max(diagonal):
            break
        q, before = w / beside[-1], q
    off = torch.tensor(beside[1:-1], dtype=torch.float64)
    tridiagonal = torch.tensor(diagonal, dtype=torch.float64).diag() + off.diag(1) + off.diag(-1)
    return 1.01 * float(torch.linalg.eigvalsh(tridiagonal)[-1])
