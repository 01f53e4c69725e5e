"""What every method is: options, a name, its memory, and a way to solve a problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invsr.numerics.iteration import ProgressCallback
from invsr.pipeline.memory import Extent, needed_memory
from invsr.pipeline.problem import InverseProblem
from invsr.priors.base import Prior
from invsr.solvers.plug_and_play import iterate
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, Step


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

    @property
    def knows_deviation(self) -> bool:
        """Whether a network knows this method's errors (`predicted_deviation`)."""
        return False

    def predicted_deviation(self, problem: InverseProblem, x: Tensor) -> Tensor:
        """The standard deviation of the error of each voxel of a result, in the problem's scaled intensities."""
        raise TypeError(f"{type(self).__name__} does not define predicted_deviation(problem, x)")

    def objections(self, problem: InverseProblem) -> list[str]:
        """Why the problem does not suit this method, in words; empty where it does."""
        return []

    def memory(self, problem: Extent) -> int:
        """Bytes that solving takes, at the least."""
        volumes = needed_memory(self.volumes_in_memory, problem.domain, problem.grids, problem.is_moving)
        return volumes + problem.operator_memory

    def fast_memory(self, problem: Extent) -> int:
        """Bytes with which solving is fastest; more than `memory` where an engine trades memory for time."""
        return self.memory(problem)

    def within(self, problem: InverseProblem, available: int) -> Method:
        """The method, set so that it takes no more than the bytes available, where that is its choice."""
        return self

    @property
    def described(self) -> str:
        """The method in words, with its model where it has one."""
        return f"method {self.name}"

    def __str__(self) -> str:
        return self.name


def iterated(
    problem: InverseProblem,
    prior: Prior,
    lam: float | None,
    max_iter: int,
    progress: ProgressCallback | None,
    step: Step | None = None,
    rtol: float | None = None,
) -> Solution:
    """The problem's solution by plug-and-play or classical iterations."""
    step = step or ADMM()
    lam = problem.weight_of(prior) if lam is None else lam
    return iterate(
        step,
        problem.operator,
        problem.y,
        prior,
        lam=lam,
        sigma=problem.sigma,
        likelihood=problem.likelihoods,
        schedule=None if step.explicit or step.descends else problem.schedule_of(prior, lam),
        x0=problem.start(prior),
        max_iter=max_iter,
        rtol=rtol,
        progress=progress,
    )
