"""What every method is: options, a name, its memory, and a way to solve a problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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

    def objections(self, problem: InverseProblem) -> list[str]:
        """Why the problem does not suit this method, in words; empty where it does."""
        return []

    def memory(self, problem: Extent) -> int:
        """Bytes that solving takes, at the least."""
        return needed_memory(self.volumes_in_memory, problem.domain, problem.grids, problem.is_moving)

    def fast_memory(self, problem: Extent) -> int:
        """Bytes with which solving is fastest; more than `memory` where an engine trades memory for time."""
        return self.memory(problem)

    def within(self, problem: InverseProblem, available: int) -> Method:
        """The method, set so that it takes no more than the bytes available, where that is its choice."""
        return self

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
