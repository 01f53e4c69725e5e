"""Plug-and-play driver: repeat a step until it converges, the weights going along as the prior needs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import Likelihood
from invsr.numerics.iteration import ProgressCallback, Status, Steps, steps_left
from invsr.numerics.levels import peak
from invsr.numerics.linear import norm, number
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.divergence import Bounds
from invsr.solvers.residuals import as_tuple, back_project, chi2, gain, intensity_scale, likelihoods_of
from invsr.solvers.solution import Solution
from invsr.solvers.state import Problem, Step
from invsr.solvers.weighting import LEAST_NOISE, Constant, Schedule, Weights, require_weight

# Set on stroke_* (benchmarks/tuning/pnp_settings.py): a denoiser's noise level in the first iteration as a share of the
# peak and in the last as a share of the data's noise, weight of the prior over sigma^2, and weight of the squared slope
# (per voxel) in the first guess.
FIRST_LEVEL = 0.07
LAST_LEVEL = 0.25
PRIOR_WEIGHT = 0.25
SMOOTHNESS = 1e-2
# Tolerance and most iterations of the first guess, from slices and from k-space.
GUESS_RTOL, GUESS_ITERATIONS = 1e-4, 200
ROUGH_RTOL, ROUGH_ITERATIONS = 1e-2, 20
# Descent with a gradient-step denoiser: its last level and weight, the same shares. At lower levels it hardly moves.
DESCENT_LAST_LEVEL = 3.0
DESCENT_WEIGHT = 2.0
RTOL, DENOISER_RTOL = 1e-3, 2e-2
# Iterations that usually come to stand still, and the fewest that are taken.
USUAL_ITERATIONS, LEAST_ITERATIONS = 22, 6


def iterate(
    step: Step,
    operator: LinearOperator,
    y: Data,
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
        `HQS()`, `ADMM()`, `PGD()`, `RED()`, or one of your own (`invsr.solvers.Step`).
    operator : LinearOperator
    y : Tensor (or tuple of them for a stack)
        Data, in any unit: with the data, sigma and x0 times c, x comes out times c. Denoisers are given intensities
        scaled to a peak of 1 (`invsr.solvers.residuals.intensity_scale`).
    prior : Prior
    lam : float, optional
        Weight of the prior against ``1/2 ||A x - y||^2``, both in the units of the data: it grows with them for TV,
        with their square for denoisers. By default chosen so that the residual chi2 is about 1 (the discrepancy
        principle); for denoisers in proportion to sigma^2.
    sigma : float, optional
        Standard deviation of the noise in y. Estimated for denoisers if it is not given, which needs one scan.
    likelihood : Likelihood (or one per scan of a stack), optional
        Gaussian by default; others re-target the data before every step (majorise-minimise).
    schedule : Schedule, optional
        Noise levels of a denoiser; by default those of `noise_schedule`.
    x0 : Tensor, optional
        First guess; by default ``A* y``, and for denoisers and k-space, whose ``A* y`` may be far from the volume, the
        smoothest volume that explains the data (`smooth_guess`).
    max_iter, rtol
        Stop when the relative change of x falls below rtol: by default 0.001, and 0.02 with denoisers, whose random
        symmetries leave 0.003 to 0.015 once the schedule has ended.
    progress : callable, optional
        Called with the share that is done, 0 to 1, and the history entry of the last iteration; how many are to come
        is told from the rate of convergence.

    Returns
    -------
    Solution
        With status DIVERGED where the volume or its misfit grew beyond any bound: x is the last one then.

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
    n_scans = len(as_tuple(y))
    if prior.is_denoiser and sigma is None:
        if isinstance(y, tuple):
            raise InvsrError(f"noise is estimated from one scan, not from a stack of {n_scans}: give sigma")
        sigma = estimate_sigma(y)
    require_weight(lam, sigma)
    noise = sigma if sigma is not None else 1.0
    likelihoods = likelihoods_of(y, likelihood, noise)
    back = back_project(operator, y)
    if x0 is None:
        x0 = smooth_guess(operator, y) if prior.is_denoiser or operator.complex_range else back
    if rtol is None:
        rtol = DENOISER_RTOL if prior.is_denoiser else RTOL
    scale = intensity_scale(y, likelihoods, x0 if bool(x0.any()) else back)
    problem = Problem(operator, prior.scaled(scale), back, y)
    weights = _weights(step, problem, x0, lam, sigma, schedule, scale)

    state = step.start(problem, x0)
    del x0
    history: list[dict[str, float]] = []
    bounds = Bounds.of(operator, likelihoods, y)
    prediction: Data | None = None
    status, lam_before, steps = Status.MAX_ITER, weights.lam, Steps(progress)
    soonest = min(max(LEAST_ITERATIONS, weights.n_steps), max_iter)
    usual = soonest if prior.is_denoiser else USUAL_ITERATIONS
    for n in range(max_iter):
        before, surrogate = state.x, problem.retargeted(likelihoods, y, state.x, prediction)
        if surrogate is not problem or weights.lam != lam_before:
            state = replace(state, objective=None)  # it was that of the old data or of the old weight
        if surrogate is problem:
            prediction = None  # k-space of several coils does not fit into memory often
        lam_before, rho = weights.lam, weights.rho()
        changes = [entry["change"] for entry in history]
        with steps.step(max(soonest - n, steps_left(changes, rtol, usual, max_iter))):
            state = step(state, surrogate, lam_before, rho)
        prediction = operator(state.x)
        entry = {
            "lam": lam_before,
            "sigma": (lam_before / rho) ** 0.5,
            "chi2": chi2(operator, likelihoods, y, prediction),
            "change": float(norm(state.x - before) / norm(state.x).clamp(min=1e-30)),
            "split": state.split_residual,
        }
        if state.objective is not None:
            entry["objective"] = state.objective
        history.append(entry)
        steps.tell(entry)
        if bounds.exceeded(entry["chi2"], float(norm(state.x))):
            status = Status.DIVERGED
            break
        weights.learn(n, entry["chi2"])
        if weights.settled and n + 1 >= LEAST_ITERATIONS and entry["change"] < rtol:
            status = Status.CONVERGED
            break
    steps.finish()
    assert prediction is not None  # there was an iteration
    return Solution.of_run(state.x, operator.domain, status, history, sigma, gain(likelihoods, y, prediction))


def _weights(
    step: Step,
    problem: Problem,
    x0: Tensor,
    lam: float | None,
    sigma: float | None,
    schedule: Schedule | None,
    scale: float,
) -> Weights:
    """Weight and penalty of each iteration, as the prior and the step need them."""
    if not problem.prior.is_denoiser:
        spacing = float(problem.operator.domain.spacing.min())
        penalty = number(problem.norm) if step.explicit else 1.0
        return Constant.of(problem.prior, lam, sigma, spacing, scale=scale, penalty=penalty)
    levels = schedule or noise_schedule(x0, sigma or 1.0, lam, step.n_levels)
    if step.descends and schedule is None:
        # One objective to descend on: its weight stays.
        weight = levels.weight * DESCENT_WEIGHT / PRIOR_WEIGHT if lam is None else lam
        end = levels.end * DESCENT_LAST_LEVEL / LAST_LEVEL
        levels = replace(levels, start=max(levels.start, end), end=end, weight=weight, automatic=False)
    if step.explicit:
        # Their penalty is not free: the last level is the one at which the weight comes out the same.
        penalty = number(problem.norm)
        end = levels.end if schedule else (levels.weight / penalty) ** 0.5
        levels = replace(levels, penalty=penalty, start=max(levels.start, end), end=end)
    return replace(levels)  # a copy, because it counts iterations


def noise_schedule(x0: Tensor, sigma: float, lam: float | None = None, n_steps: int = Step.n_levels) -> Schedule:
    """From an error of `FIRST_LEVEL` of the peak to `LAST_LEVEL` of the noise, the weight in proportion to sigma^2.

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
    noise = max(sigma, LEAST_NOISE * scale)
    weight = PRIOR_WEIGHT * noise**2 if lam is None else lam
    return Schedule(
        max(FIRST_LEVEL * scale, LAST_LEVEL * noise), LAST_LEVEL * noise, n_steps, weight, automatic=lam is None
    )


def learnt_weights(
    step: Step, problem: Problem, variance: Tensor, log_weight: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor]:
    """lam and rho of a trained step; their ratio is the square of the denoiser's noise level, `variance`.

    lam is ``PRIOR_WEIGHT sigma^2 exp(log_weight)``, unless rho has to be the operator's norm.
    """
    lam = problem.norm * variance if step.rho_is_norm else PRIOR_WEIGHT * sigma**2 * log_weight.exp()
    return lam, lam / variance


def smooth_guess(operator: LinearOperator, y: Data) -> Tensor:
    """The volume of least slope among those that explain the data, nearly: Tikhonov with a small weight.

    From k-space roughly so: samples that are missing are found slowly, and by the steps that follow.
    """
    rho = SMOOTHNESS * float(operator.domain.spacing.min()) ** 2
    rtol, most = (ROUGH_RTOL, ROUGH_ITERATIONS) if operator.complex_range else (GUESS_RTOL, GUESS_ITERATIONS)
    return operator.solve(back_project(operator, y), rho, GRADIENT, rtol=rtol, max_iter=most).x
