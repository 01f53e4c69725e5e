"""The methods that `invsr.reconstruct` offers: each composes a prior with a solver."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.models.gradient_step import GradientStep
from invsr.noise.likelihoods import Gaussian, Likelihood
from invsr.numerics.iteration import ProgressCallback, Status
from invsr.operators.base import LinearOperator
from invsr.operators.separable import Separable
from invsr.operators.stack import Stack
from invsr.priors.base import Prior
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained
from invsr.priors.tikhonov import Tikhonov
from invsr.priors.tv import TV
from invsr.solvers.plug_and_play import iterate
from invsr.solvers.quadratic import solve_quadratic
from invsr.solvers.residuals import chi2, gain
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, HQS, Step
from invsr.solvers.trained import DEQ, UNROLLED, load_solver
from invsr.uncertainty.posterior import sample_posterior

# Whichever `best` finds.
AUTO = "auto"
# A gradient-step denoiser's descent is deterministic: it goes on until it stands still.
DESCENT_RTOL = 1e-4
# By this share an acquisition may leave a range of training unremarked.
MARGIN = 0.15


@dataclass(frozen=True)
class Slices:
    """How one scan's slices lie in the target: the axis across them, their thickness and gap in its voxels."""

    axis: int
    thickness: float
    gap: float


@dataclass(frozen=True)
class Task:
    """What every method gets: the operator, scaled data, noise level, first guess."""

    operator: LinearOperator
    y: Any
    sigma: float
    likelihoods: tuple[Likelihood, ...]
    x0: Tensor
    lam: float | None
    huber: float
    max_iter: int
    progress: ProgressCallback | None
    step: Step | None
    denoiser: Prior | str | Path
    adapt: bool
    seed: int
    slices: Slices
    model: str | Path | None
    n_samples: int


def _cubic(task: Task) -> Solution:
    prediction = task.operator(task.x0)
    return Solution(
        task.x0,
        task.operator.domain,
        Status.CONVERGED,
        sigma=task.sigma,
        chi2=chi2(task.operator, task.likelihoods, task.y, prediction),
        gain=gain(task.y, prediction),
    )


def _tikhonov(task: Task) -> Solution:
    if not all(isinstance(one, Gaussian) for one in task.likelihoods):
        return _iterated(task, Tikhonov())
    return solve_quadratic(
        task.operator, task.y, Tikhonov(), lam=task.lam, sigma=task.sigma, x0=task.x0, progress=task.progress
    )


def _tv(task: Task) -> Solution:
    return _iterated(task, TV(task.huber))


def _iterated(task: Task, prior: Prior, step: Step | None = None, rtol: float | None = None) -> Solution:
    return iterate(
        step or ADMM(),
        task.operator,
        task.y,
        prior,
        lam=task.lam,
        sigma=task.sigma,
        likelihood=task.likelihoods,
        # Denoisers begin at a guess that explains the data.
        x0=None if prior.takes_noise_level else task.x0,
        max_iter=task.max_iter,
        rtol=rtol,
        progress=task.progress,
    )


def _pnp(task: Task) -> Solution:
    prior = _denoiser(task)
    # Gradient-step denoisers come with a guarantee, which needs the descent.
    guaranteed = isinstance(getattr(prior, "network", None), GradientStep)
    if guaranteed and (task.step is None or isinstance(task.step, HQS)):
        return _iterated(task, prior, HQS(descend=True), DESCENT_RTOL)
    return _iterated(task, prior, task.step)


def _denoiser(task: Task) -> Prior:
    prior = task.denoiser
    if not isinstance(prior, Prior):
        prior = pretrained(prior, seed=task.seed)
    prior = prior.to(task.x0.device)
    return _adapted(prior, task, task.slices) if task.adapt else prior


def _adapted(prior: Prior, task: Task, slices: Slices) -> Prior:
    from invsr.training.adapt import adapt

    if not isinstance(prior, Denoiser):
        raise InvsrError(f"{type(prior).__name__} cannot be adapted: use a denoiser of this package")
    return adapt(
        prior, task.x0, axis=slices.axis, thickness=slices.thickness, gap=slices.gap, sigma=task.sigma, seed=task.seed,
        progress=task.progress,
    )  # fmt: skip


def _unrolled(task: Task) -> Solution:
    solver, about = load_solver(task.model or f"mri-{UNROLLED}", UNROLLED)
    warn_outside(about, task)
    found: Any = solver.to(task.x0.device)
    solution: Solution = found.solve(
        task.operator, task.y, task.sigma, likelihood=task.likelihoods, progress=task.progress
    )
    return solution


def _deq(task: Task) -> Solution:
    if not all(isinstance(one, Gaussian) for one in task.likelihoods):
        raise InvsrError("method deq knows Gaussian noise in all voxels only: use --method unrolled or pnp")
    solver, about = load_solver(task.model or f"mri-{DEQ}", DEQ)
    warn_outside(about, task)
    return solver.to(task.x0.device).solve(task.operator, task.y, task.sigma)


def _posterior(task: Task) -> Solution:
    drawn = sample_posterior(
        task.operator, task.y, _denoiser(task), task.sigma, n_samples=task.n_samples, seed=task.seed,
        likelihood=task.likelihoods, progress=task.progress,
    )  # fmt: skip
    # The samples' chi2: it is they that are to explain the data up to their noise. Their mean comes closer.
    misfit = sum(entry["chi2"] for entry in drawn.history) / len(drawn.history)
    return Solution(
        drawn.mean, task.operator.domain, Status.CONVERGED, drawn.history, sigma=task.sigma,
        chi2=misfit, gain=gain(task.y, task.operator(drawn.mean)),
        std=drawn.std, samples=drawn.samples,
    )  # fmt: skip


def best(task: Task) -> str:
    """The method that the benchmarks show ahead: see `invsr benchmark`, and benchmarks/stacks.py for several scans."""
    plain = all(isinstance(one, Gaussian) for one in task.likelihoods)
    if not plain or task.lam is not None or task.huber:
        return "tv"
    if isinstance(task.operator, Stack):
        # Where scans lie obliquely, or moved, plug-and-play falls behind TV.
        return "pnp" if all(isinstance(one, Separable) for one in task.operator.operators) else "tv"
    _, about = load_solver(f"mri-{UNROLLED}", UNROLLED)
    return "tv" if outside(about, task) else UNROLLED


def warn_outside(about: dict[str, Any], task: Task) -> None:
    """Warn where a trained solver is asked for what it was not trained on: see `outside`."""
    for what in outside(about, task):
        warnings.warn(
            f"{what}: compare with --method pnp, which is trained for no acquisition", InvsrWarning, stacklevel=2
        )


def outside(about: dict[str, Any], task: Task) -> list[str]:
    """What of a task lies outside a trained solver's ranges, in words.

    Parameters
    ----------
    about : dict
        The description in the weights file: ranges "thickness" (voxels), "gap" (share of it), "noise" (of the peak).
    task : Task
    """
    slices, found = task.slices, []
    for what, value, (low, high) in (
        ("slices {:.3g} target voxels thick", slices.thickness, about["thickness"]),
        ("gaps of {:.3g} of the thickness", slices.gap / slices.thickness, (0.0, about["gap"])),
        ("noise of {:.3g} of the peak", task.sigma, about["noise"]),
    ):
        # Less noise than in training is no difficulty.
        least = 0.0 if what.startswith("noise") else (1 - MARGIN) * low
        if not least <= value + 1e-6 <= (1 + MARGIN) * high + 1e-5:
            found.append(f"{what.format(value)}: the network was trained on {low:g} to {high:g}")
    if isinstance(task.y, tuple):
        found.append(f"{len(task.y)} scans: the network was trained on one")
    return found


#: What `reconstruct` can do, by the name that the command line knows it by.
METHODS: dict[str, Callable[[Task], Solution]] = {
    "cubic": _cubic, "tikhonov": _tikhonov, "tv": _tv, "pnp": _pnp, "unrolled": _unrolled, "deq": _deq,
    "posterior": _posterior,
}  # fmt: skip
