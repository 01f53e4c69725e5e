"""Methods that solve several contrasts of one head together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch

from invsr.errors import InvsrError
from invsr.numerics.iteration import ProgressCallback
from invsr.pipeline.choice import AUTO, is_hardly_thick
from invsr.pipeline.learned import Unrolled
from invsr.pipeline.memory import Extent
from invsr.pipeline.method import Method
from invsr.pipeline.methods import TV
from invsr.pipeline.problem import InverseProblem
from invsr.priors.denoiser import Denoiser
from invsr.priors.joint_tv import NUCLEAR
from invsr.priors.joint_tv import JointTV as JointPrior
from invsr.solvers.contrasts import Contrast, joint_tv, of_contrast, solve_contrasts
from invsr.solvers.solution import Solution
from invsr.solvers.trained import load_solver


@dataclass(frozen=True, kw_only=True)
class Together(Method):
    """A method for several contrasts at once: a subclass writes `solve_together`."""

    def solve_together(
        self, problems: Sequence[InverseProblem], progress: ProgressCallback | None = None
    ) -> list[Solution]:
        """A solution for each contrast, in its problem's scaled intensities."""
        raise TypeError(f"{type(self).__name__} does not define solve_together(problems, progress)")

    def memory_together(self, problems: Sequence[Extent]) -> int:
        """Bytes that solving all contrasts takes, at the least."""
        return sum(self.memory(one) for one in problems)

    def within_together(self, problems: Sequence[InverseProblem], available: int) -> Together:
        """The method, set so that it takes no more than the bytes available, where that is its choice."""
        found = self.within(problems[0], available // len(problems))
        assert isinstance(found, Together)  # for the type checker
        return found


@dataclass(frozen=True, kw_only=True)
class JointTV(TV, Together):
    """Total variation of all contrasts together, by ADMM: see `invsr.priors.JointTV`.

    Parameters
    ----------
    lam, huber, max_iter
        As of `TV`; one weight for all contrasts, scaled to the noise level of the first one, whose peak is 1.
    norm : {"nuclear", "euclidean"}
        As of the prior.
    """

    name: ClassVar[str] = "joint-tv"
    norm: str = NUCLEAR

    def solve_together(
        self, problems: Sequence[InverseProblem], progress: ProgressCallback | None = None
    ) -> list[Solution]:
        """As of `Together`; the solutions share history and weight."""
        contrasts = [_contrast(one) for one in problems]
        found, x = joint_tv(
            contrasts,
            JointPrior(self.huber, self.norm),
            lam=self.lam,
            max_iter=self.max_iter,
            guess=torch.cat([one.guess() for one in problems], 1),
            progress=progress,
        )
        return [of_contrast(found, *one) for one in zip(contrasts, torch.split(x, 1, 1), strict=True)]


def _contrast(problem: InverseProblem) -> Contrast:
    return Contrast(problem.operator, problem.y, problem.sigma, problem.likelihoods)


@dataclass(frozen=True, kw_only=True)
class JointUnrolled(Unrolled, Together):
    """Joint total variation, then unrolled steps whose network takes all contrasts together
    (`invsr.models.joint.JointUNet`).

    Contrasts whose slices are hardly thicker than voxels serve the others, and keep joint total variation: the network
    smooths them.

    Parameters
    ----------
    model, tile
        As of `Unrolled`.
    """

    name: ClassVar[str] = "joint-unrolled"
    model: str | Path = "mri-unrolled-joint"

    def solve_together(
        self, problems: Sequence[InverseProblem], progress: ProgressCallback | None = None
    ) -> list[Solution]:
        """As of `Together`; warns where a contrast lies outside the ranges of training."""
        resolved = _resolved(problems)
        solver, _ = load_solver(self.model, self.kind)
        if not all(prior.joint for prior in solver.modules() if isinstance(prior, Denoiser)):
            raise InvsrError(f"{self.model}: holds a network for one contrast: train one with --contrasts")
        if len(resolved) == len(problems):
            return JointTV().solve_together(problems, progress)
        solver, *_ = [self.prepared(one) for n, one in enumerate(problems) if n not in resolved]
        return solve_contrasts(solver, [_contrast(one) for one in problems], progress, resolved)

    def objections_together(self, problems: Sequence[InverseProblem]) -> list[str]:
        """Why the contrasts do not suit the network, in words; empty where they do."""
        resolved = _resolved(problems)
        return [words for n, one in enumerate(problems) if n not in resolved for words in self.objections(one)]


def _resolved(problems: Sequence[InverseProblem]) -> list[int]:
    """The contrasts whose slices are hardly thicker than voxels."""
    slices = [one.slices for one in problems]
    return [n for n, one in enumerate(slices) if one is not None and is_hardly_thick(one)]


#: The methods for several contrasts by the names that the command line knows them by, the best one first.
TOGETHER: dict[str, type[Together]] = {"unrolled": JointUnrolled, "tv": JointTV}


def together_of(method: str, options: Mapping[str, Any]) -> Together | None:
    """The method of a name and the options that were given (not None); None where the problems are to decide.

    Parameters
    ----------
    method : str
        A name of `TOGETHER`, the method's own name, or "auto".
    options : mapping

    Raises
    ------
    InvsrError
        When there is no such method for several contrasts, or it does not use an option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if method == AUTO and not given:
        return None
    kinds = TOGETHER | {kind.name: kind for kind in TOGETHER.values()}
    if method not in (AUTO, *kinds):
        raise InvsrError(
            f"method {method} reconstructs each contrast alone: leave contrasts out, or use "
            f"{' or '.join(TOGETHER)}, which take all contrasts together"
        )
    for kind in TOGETHER.values() if method == AUTO else [kinds[method]]:
        if set(given) <= {one.name for one in fields(kind)}:
            return kind(**given)
    names = ", ".join(given)
    raise InvsrError(f"method {method} of several contrasts does not use all of the options {names}: leave some out")
