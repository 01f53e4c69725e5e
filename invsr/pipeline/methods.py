"""The methods that `invsr.reconstruct` offers: each owns its options, knows its memory, and solves a problem."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from invsr.numerics.iteration import ProgressCallback
from invsr.pipeline.learned import Equilibrium, PnP, Posterior, Unrolled
from invsr.pipeline.method import Method, iterated
from invsr.pipeline.problem import InverseProblem
from invsr.priors import tikhonov, tv
from invsr.solvers.quadratic import solve_quadratic
from invsr.solvers.solution import Solution

__all__ = ["METHODS", "TV", "Cubic", "Equilibrium", "Method", "PnP", "Posterior", "Tikhonov", "Unrolled", "options_of"]


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
        Regularisation parameter for data scaled to a peak of 1; by default such that chi2 is about 1, of k-space what
        the noise and the usual slopes of a head make it.
    max_iter : int
        Largest number of solves, each exact or of 500 conjugate gradients at most; one that has not converged goes on.
    """

    name: ClassVar[str] = "tikhonov"
    volumes_in_memory: ClassVar[float] = 24
    lam: float | None = None
    max_iter: int = 60

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        if not problem.is_gaussian:
            return iterated(problem, tikhonov.Tikhonov(), self.lam, self.max_iter, progress)
        prior = tikhonov.Tikhonov()
        return solve_quadratic(
            problem.operator,
            problem.y,
            prior,
            lam=problem.weight_of(prior) if self.lam is None else self.lam,
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
        Regularisation parameter for data scaled to a peak of 1; by default such that chi2 is about 1, of k-space such
        that samples that were left out are predicted best.
    huber : float
        Slopes (of the peak per mm) below which Huber's function smooths instead of flattening.
    max_iter : int
        Largest number of iterations.
    """

    name: ClassVar[str] = "tv"
    volumes_in_memory: ClassVar[float] = 15
    lam: float | None = None
    huber: float = 0.0
    max_iter: int = 60

    def solve(self, problem: InverseProblem, progress: ProgressCallback | None = None) -> Solution:
        return iterated(problem, tv.TV(self.huber), self.lam, self.max_iter, progress)


#: The methods by the name that the command line knows them by.
METHODS: dict[str, type[Method]] = {
    one.name: one for one in (Cubic, Tikhonov, TV, PnP, Unrolled, Equilibrium, Posterior)
}


def options_of(method: type[Method]) -> list[str]:
    """Names of the options that a method takes."""
    return [one.name for one in dataclasses.fields(method)]
