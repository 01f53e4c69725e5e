"""The methods that `invsr.reconstruct` offers: each owns its options, knows its memory, and solves a problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from invsr.errors import InvsrError
from invsr.models.gradient_step import GradientStep
from invsr.models.registry import DEFAULT as DEFAULT_DENOISER
from invsr.numerics.iteration import ProgressCallback, Status, split
from invsr.pipeline import memory
from invsr.pipeline.problem import InverseProblem
from invsr.pipeline.ranges import outside, warn_outside
from invsr.priors import tikhonov, tv
from invsr.priors.base import Prior
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained
from invsr.solvers.plug_and_play import iterate
from invsr.solvers.quadratic import solve_quadratic
from invsr.solvers.residuals import as_tuple, gain
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, HQS, PGD, RED, Step
from invsr.solvers.trained import DEQ, UNROLLED, load_solver
from invsr.uncertainty.deviation import require_samples
from invsr.uncertainty.posterior import sample_posterior

STEPS: dict[str, Callable[[], Step]] = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}
# A gradient-step denoiser's descent is deterministic: it goes on until it stands still.
DESCENT_RTOL = 1e-4
# Share of the time that the adaptation of a denoiser takes.
ADAPTING = 0.4


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to solve an inverse problem: a subclass has its options as fields, a `name`, and writes `solve`.

    Attributes
    ----------
    name : str
        What the command line and messages call it.
    volumes_in_memory : float
        Working memory in float32 volumes of the target's size, measured as peak memory less the start-up's.
    """

    name: ClassVar[str] = ""
    volumes_in_memory: ClassVar[float] = 40

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        """The volume, in the problem's scaled intensities, and how it was found."""
        raise TypeError(f"{type(self).__name__} does not define solve(problem, progress)")

    def objections(self, problem: InverseProblem) -> list[str]:
        """Why the problem does not suit this method, in words; empty where it does."""
        return []

    def memory(self, problem: InverseProblem) -> int:
        """Bytes that solving takes."""
        return memory.needed_memory(self.volumes_in_memory, problem.domain, problem.grids, problem.is_moving)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class Cubic(Method):
    """Cubic B-spline interpolation at the true positions: what every other method is compared with."""

    name: ClassVar[str] = "cubic"
    volumes_in_memory: ClassVar[float] = 12

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        return Solution(problem.guess(), problem.domain)


@dataclass(frozen=True, kw_only=True)
class Tikhonov(Method):
    """The smoothest volume that explains the data: squared slopes as regularisation.

    Parameters
    ----------
    lam : float, optional
        Regularisation parameter for data scaled to a peak of 1; by default such that chi2 is about 1.
    max_iter : int
        Largest number of iterations.
    """

    name: ClassVar[str] = "tikhonov"
    volumes_in_memory: ClassVar[float] = 24
    lam: float | None = None
    max_iter: int = 60

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        if not problem.is_gaussian:
            return _iterated(problem, tikhonov.Tikhonov(), self.lam, self.max_iter, progress)
        return solve_quadratic(
            problem.operator,
            problem.y,
            tikhonov.Tikhonov(),
            lam=self.lam,
            sigma=problem.sigma,
            x0=problem.guess(),
            max_iter=self.max_iter,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class TV(Method):
    """Total variation by ADMM: nothing trained, for any operator.

    Parameters
    ----------
    lam : float, optional
        Regularisation parameter for data scaled to a peak of 1; by default such that chi2 is about 1.
    huber : float
        Slopes (of the peak per mm) below which Huber's function smooths instead of flattening.
    max_iter : int
        Largest number of iterations.
    """

    name: ClassVar[str] = "tv"
    volumes_in_memory: ClassVar[float] = 22
    lam: float | None = None
    huber: float = 0.0
    max_iter: int = 60

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        return _iterated(problem, tv.TV(self.huber), self.lam, self.max_iter, progress)


@dataclass(frozen=True, kw_only=True)
class PnP(Method):
    """Plug-and-play: a step is iterated with a pretrained denoiser as its prior, for any operator.

    Parameters
    ----------
    denoiser : Prior, name or path
        What `invsr.priors.pretrained` takes.
    solver : Step or {"hqs", "admm", "pgd", "red"}, optional
        The step that is iterated; by default ADMM, and HQS, which then descends, with denoisers that have a cost
        (gradient steps).
    lam : float, optional
        Weight of the prior for data scaled to a peak of 1; by default in proportion to the noise variance.
    adapt : bool
        Train the denoiser further on the first scan's own in-plane detail, for about a minute
        (`invsr.training.adapt`).
    max_iter : int
        Largest number of iterations.
    seed : int
        For the denoiser's random symmetries.
    """

    name: ClassVar[str] = "pnp"
    volumes_in_memory: ClassVar[float] = 105
    denoiser: Prior | str | Path = DEFAULT_DENOISER
    solver: Step | str | None = None
    lam: float | None = None
    adapt: bool = False
    max_iter: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.solver, str) and self.solver not in STEPS:
            raise InvsrError(f"unknown solver {self.solver!r}: use one of {', '.join(STEPS)}")

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        adapting, solving = split(progress, ADAPTING if self.adapt else 0.0)
        prior = _denoiser(self.denoiser, problem, self.adapt, self.seed, adapting)
        step = STEPS[self.solver]() if isinstance(self.solver, str) else self.solver
        # Gradient-step denoisers come with a guarantee, which needs the descent.
        guaranteed = isinstance(getattr(prior, "network", None), GradientStep)
        if guaranteed and (step is None or isinstance(step, HQS)):
            return _iterated(problem, prior, self.lam, self.max_iter, solving, HQS(descend=True), DESCENT_RTOL)
        return _iterated(problem, prior, self.lam, self.max_iter, solving, step)


@dataclass(frozen=True, kw_only=True)
class Unrolled(Method):
    """A fixed number of steps, trained end to end over random thick-slice acquisitions.

    Parameters
    ----------
    model : name or path
        Trained weights, of the package or from `invsr train`.
    """

    name: ClassVar[str] = UNROLLED
    volumes_in_memory: ClassVar[float] = 105
    model: str | Path = f"mri-{UNROLLED}"

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        solver, about = load_solver(self.model, UNROLLED)
        warn_outside(about, problem)
        found: Any = solver.to(as_tuple(problem.y)[0].device)
        solution: Solution = found.solve(
            problem.operator, problem.y, problem.sigma, likelihood=problem.likelihoods, progress=progress
        )
        return solution

    def objections(self, problem: InverseProblem) -> list[str]:
        return outside(load_solver(self.model, UNROLLED)[1], problem)


@dataclass(frozen=True, kw_only=True)
class Equilibrium(Method):
    """The fixed point of a trained step: a deep equilibrium model.

    Parameters
    ----------
    model : name or path
        Trained weights, of the package or from `invsr train`.
    """

    name: ClassVar[str] = DEQ
    volumes_in_memory: ClassVar[float] = 105
    model: str | Path = f"mri-{DEQ}"

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        if not problem.is_gaussian:
            raise InvsrError("method deq takes Gaussian noise in all voxels only: use --method unrolled or pnp")
        solver, about = load_solver(self.model, DEQ)
        warn_outside(about, problem)
        found: Any = solver.to(as_tuple(problem.y)[0].device)
        solution: Solution = found.solve(problem.operator, problem.y, problem.sigma, progress=progress)
        return solution

    def objections(self, problem: InverseProblem) -> list[str]:
        found = outside(load_solver(self.model, DEQ)[1], problem)
        return found if problem.is_gaussian else ["noise that is not Gaussian, or masked data", *found]


@dataclass(frozen=True, kw_only=True)
class Posterior(Method):
    """Samples that explain the data and look like anatomy: their mean and standard deviation.

    Parameters
    ----------
    denoiser : Prior, name or path
        What `invsr.priors.pretrained` takes.
    n_samples : int
        Number of samples, at least 2.
    adapt : bool
        As of `PnP`.
    seed : int
        For the noise that is drawn.
    """

    name: ClassVar[str] = "posterior"
    volumes_in_memory: ClassVar[float] = 140
    denoiser: Prior | str | Path = DEFAULT_DENOISER
    n_samples: int = 8
    adapt: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_samples(self.n_samples)

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        adapting, drawing = split(progress, ADAPTING / self.n_samples if self.adapt else 0.0)
        drawn = sample_posterior(
            problem.operator,
            problem.y,
            _denoiser(self.denoiser, problem, self.adapt, self.seed, adapting),
            problem.sigma,
            n_samples=self.n_samples,
            seed=self.seed,
            likelihood=problem.likelihoods,
            progress=drawing,
        )
        # The samples' chi2: it is they that are to explain the data up to their noise. Their mean comes closer.
        misfit = sum(entry["chi2"] for entry in drawn.history) / len(drawn.history)
        return Solution(
            drawn.mean,
            problem.domain,
            Status.CONVERGED,
            drawn.history,
            sigma=problem.sigma,
            chi2=misfit,
            gain=gain(problem.likelihoods, problem.y, problem.operator(drawn.mean)),
            std=drawn.std,
            samples=drawn.samples,
        )


def _iterated(
    problem: InverseProblem,
    prior: Prior,
    lam: float | None,
    max_iter: int,
    progress: ProgressCallback | None,
    step: Step | None = None,
    rtol: float | None = None,
) -> Solution:
    return iterate(
        step or ADMM(),
        problem.operator,
        problem.y,
        prior,
        lam=lam,
        sigma=problem.sigma,
        likelihood=problem.likelihoods,
        # Denoisers begin at a guess that explains the data.
        x0=None if prior.is_denoiser else problem.guess(),
        max_iter=max_iter,
        rtol=rtol,
        progress=progress,
    )


def _denoiser(
    denoiser: Prior | str | Path, problem: InverseProblem, adapt: bool, seed: int, progress: ProgressCallback | None
) -> Prior:
    prior = denoiser if isinstance(denoiser, Prior) else pretrained(denoiser, seed=seed)
    prior = prior.to(as_tuple(problem.y)[0].device)
    if not adapt:
        return prior
    from invsr.training import adapt as adaptation

    slices = problem.slices
    if not isinstance(prior, Denoiser) or slices is None:
        what = type(prior).__name__ if slices is not None else "a problem without slices"
        raise InvsrError(f"{what} cannot be adapted: use a denoiser of this package, and thick-slice scans")
    return adaptation.adapt(
        prior,
        problem.guess(),
        axis=slices.axis,
        thickness=slices.thickness,
        gap=slices.gap,
        sigma=problem.sigma,
        seed=seed,
        progress=progress,
    )


#: The methods by the name that the command line knows them by.
METHODS: dict[str, type[Method]] = {
    one.name: one for one in (Cubic, Tikhonov, TV, PnP, Unrolled, Equilibrium, Posterior)
}


def options_of(method: type[Method]) -> list[str]:
    """Names of the options that a method takes."""
    return [one.name for one in dataclasses.fields(method)]
