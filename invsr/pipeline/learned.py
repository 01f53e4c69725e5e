"""Methods with networks: plug-and-play, unrolled, equilibrium, posterior samples."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from invsr.errors import InvsrError
from invsr.models import engines
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import Network
from invsr.models.registry import DEFAULT as DEFAULT_DENOISER
from invsr.models.registry import models
from invsr.numerics.iteration import ProgressCallback, Status, split
from invsr.pipeline.deviation import deviation_by
from invsr.pipeline.memory import Extent
from invsr.pipeline.method import Method, iterated
from invsr.pipeline.problem import InverseProblem
from invsr.pipeline.ranges import outside, warn_outside
from invsr.priors.base import Prior
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained
from invsr.solvers.residuals import gain
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, HQS, PGD, RED, Step
from invsr.solvers.trained import DEQ, UNROLLED, load_solver
from invsr.uncertainty.deviation import require_samples
from invsr.uncertainty.posterior import sample_posterior
from invsr.uncertainty.predicted import knows_deviation, load_deviation

STEPS: dict[str, Callable[[], Step]] = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}
# A gradient-step denoiser's descent is deterministic: it goes on until it stands still.
DESCENT_RTOL = 1e-4
# Share of the time that the adaptation of a denoiser takes.
ADAPTING = 0.4
# Voxels of the smallest tile that networks are given: in smaller ones, most of the work is done twice.
LEAST_TILE = 500_000


@dataclass(frozen=True, kw_only=True)
class NetworkMethod(Method):
    """A method whose network takes the volume in tiles where memory is short; a subclass writes `prior_in_use`.

    Parameters
    ----------
    tile : int, optional
        Largest number of voxels that the network gets at once; by default what fits the memory (`within`).
    """

    tile: int | None = None

    def prior_in_use(self) -> Prior:
        """The prior that solving calls, or one whose network is as large."""
        raise TypeError(f"{type(self).__name__} does not define prior_in_use()")

    def own_memory(self, problem: Extent) -> int:
        """Bytes that solving takes beside the network."""
        return super().memory(problem)

    def memory(self, problem: Extent) -> int:
        whole, least = self._network_memory(problem)
        return self.own_memory(problem) + min(whole, least)

    def fast_memory(self, problem: Extent) -> int:
        prior, voxels = self.prior_in_use(), problem.domain.size
        network = getattr(prior, "network", None)
        if not isinstance(network, Network):
            return self.memory(problem)
        return self.memory(problem) + engines.memory_beside(network, voxels, problem.device)

    def within(self, problem: InverseProblem, available: int) -> Method:
        whole, least = self._network_memory(problem)
        left = available - self.own_memory(problem)
        if self.tile is not None or whole <= max(left, 0):
            return self
        return dataclasses.replace(self, tile=max(LEAST_TILE, left * LEAST_TILE // least))

    def _network_memory(self, problem: Extent) -> tuple[int, int]:
        """Bytes that the network takes with the tiles that it is given, and with the smallest."""
        prior = self.prior_in_use()
        if not isinstance(prior, Denoiser):
            return 0, 0
        shape, device = problem.domain.shape, problem.device
        whole, least = (self._tiled(prior, tile) for tile in (self.tile, self.tile or LEAST_TILE))
        return whole.memory(shape, device), least.memory(shape, device)

    def _tiled(self, prior: Any, tile: int | None) -> Any:
        """The prior, handing its network no more voxels than that at once."""
        if tile is None or not isinstance(prior, Denoiser) or prior.tile <= tile:
            return prior
        found = copy.copy(prior)  # it may be the user's
        found.tile = tile
        return found


@dataclass(frozen=True, kw_only=True)
class PnP(NetworkMethod):
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
    volumes_in_memory: ClassVar[float] = 14
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
        prior = self._tiled(_denoiser(self.denoiser, problem, self.adapt, self.seed, adapting), self.tile)
        step = STEPS[self.solver]() if isinstance(self.solver, str) else self.solver
        # Gradient-step denoisers come with a guarantee, which needs the descent.
        guaranteed = isinstance(getattr(prior, "network", None), GradientStep)
        if guaranteed and (step is None or isinstance(step, HQS)):
            return iterated(problem, prior, self.lam, self.max_iter, solving, HQS(descend=True), DESCENT_RTOL)
        return iterated(problem, prior, self.lam, self.max_iter, solving, step)

    def prior_in_use(self) -> Prior:
        return self.denoiser if isinstance(self.denoiser, Prior) else pretrained(self.denoiser)


@dataclass(frozen=True, kw_only=True)
class TrainedMethod(NetworkMethod):
    """A method whose whole solver was trained.

    Parameters
    ----------
    model : name or path
        Trained weights, of the package or from `invsr train`.

    Attributes
    ----------
    kind : str
        The kind of solver that the weights are to be of.
    """

    kind: ClassVar[str] = ""
    model: str | Path = ""

    def prior_in_use(self) -> Prior:
        if str(self.model) in models():
            return _kept_prior(str(self.model), self.kind)
        return _prior_of(self.model, self.kind)  # files may change

    @property
    def described(self) -> str:
        return f"method {self.name} with {self.model}"

    @property
    def knows_deviation(self) -> bool:
        return knows_deviation(self.model)

    def predicted_deviation(self, problem: InverseProblem, x: Tensor) -> Tensor:
        return deviation_by(load_deviation(self.model), load_solver(self.model, self.kind)[0], problem, x)

    def objections(self, problem: InverseProblem) -> list[str]:
        return list(self.outside(problem).values())

    def outside(self, problem: InverseProblem) -> dict[str, str]:
        """What of the problem lies outside the ranges of training (`invsr.pipeline.ranges.outside`)."""
        return outside(load_solver(self.model, self.kind)[1], problem)

    def prepared(self, problem: InverseProblem) -> Any:
        """The solver, where the problem's data are; warns where it was trained for other acquisitions."""
        solver, about = load_solver(self.model, self.kind)
        warn_outside(about, problem)
        for one in solver.modules():
            if isinstance(one, Denoiser) and self.tile is not None:
                one.tile = min(one.tile, self.tile)
        return solver.to(problem.device)


@dataclass(frozen=True, kw_only=True)
class Unrolled(TrainedMethod):
    """A fixed number of steps, trained end to end over random acquisitions; options as of `TrainedMethod`."""

    name: ClassVar[str] = UNROLLED
    kind: ClassVar[str] = UNROLLED
    volumes_in_memory: ClassVar[float] = 13
    model: str | Path = f"mri-{UNROLLED}"

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        solver: Any = self.prepared(problem)
        found: Solution = solver.solve(
            problem.operator,
            problem.y,
            problem.sigma,
            problem.start(solver.priors[0]),
            likelihood=problem.likelihoods,
            progress=progress,
            matched=problem.fits_to_noise,
        )
        return found


@dataclass(frozen=True, kw_only=True)
class Equilibrium(TrainedMethod):
    """The fixed point of a trained step, a deep equilibrium model; options as of `TrainedMethod`."""

    name: ClassVar[str] = DEQ
    kind: ClassVar[str] = DEQ
    volumes_in_memory: ClassVar[float] = 28
    model: str | Path = f"mri-{DEQ}"

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        if not problem.is_gaussian:
            raise InvsrError("method deq takes Gaussian noise in all voxels only: use --method unrolled or pnp")
        found: Solution = self.prepared(problem).solve(problem.operator, problem.y, problem.sigma, progress=progress)
        return found

    def objections(self, problem: InverseProblem) -> list[str]:
        found = super().objections(problem)
        return found if problem.is_gaussian else ["noise that is not Gaussian, or masked data", *found]


@dataclass(frozen=True, kw_only=True)
class Posterior(NetworkMethod):
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
    volumes_in_memory: ClassVar[float] = 26
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
            self._tiled(_denoiser(self.denoiser, problem, self.adapt, self.seed, adapting), self.tile),
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

    def own_memory(self, problem: Extent) -> int:
        return super().own_memory(problem) + 4 * self.n_samples * problem.domain.size  # the samples are kept

    def prior_in_use(self) -> Prior:
        return self.denoiser if isinstance(self.denoiser, Prior) else pretrained(self.denoiser)


@lru_cache(maxsize=4)
def _kept_prior(model: str, kind: str) -> Prior:
    """The prior of a model of the package: for its size alone, since all share it."""
    return _prior_of(model, kind)


def _prior_of(model: str | Path, kind: str) -> Prior:
    """The prior of trained weights."""
    solver, _ = load_solver(model, kind)
    return next(one for one in solver.modules() if isinstance(one, Denoiser))


def _denoiser(
    denoiser: Prior | str | Path, problem: InverseProblem, adapt: bool, seed: int, progress: ProgressCallback | None
) -> Prior:
    prior = denoiser if isinstance(denoiser, Prior) else pretrained(denoiser, seed=seed)
    prior = prior.to(problem.device)
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
