"""What a user gets: the volume, and all that is known of how it came about."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.nifti import save
from invsr.motion import Motion
from invsr.numerics.iteration import Status
from invsr.operators.base import Data
from invsr.pipeline.methods import Method
from invsr.pipeline.problem import InverseProblem
from invsr.pipeline.slice_check import question, slice_correlation
from invsr.solvers.residuals import residuals
from invsr.solvers.solution import CHI2_EXPECTED, Solution
from invsr.uncertainty.evidence import Evidence, split_evidence
from invsr.volume import Volume

# Share of the volume that scans may leave out without a remark.
LEAST_HIDDEN = 0.02


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed volume in intensity units, with the problem, the method and the solver's solution behind it.

    Attributes
    ----------
    x : Tensor, shape (1, channel, *grid.shape)
        Intensities, in the first scan's units; complex ones where data are k-space.
    problem : InverseProblem
        What was solved, in scaled intensities.
    method : Method
    solution : Solution
        What the solver knows: iterations, status, chi2, in scaled intensities.
    std : Tensor or None, shape of x
        Standard deviation of the error of x, where it was asked for.
    noise : Tensor or None, shape of x
        Standard deviation that noise alone makes in x, where it was asked for.
    samples : Tensor or None, shape (n, 1, *grid.shape)
        Draws from the posterior, of which x is the mean.
    seed : int
        For what the method drew at random.
    networks : dict
        By which engines and in which number formats networks ran, by their class.
    """

    x: Tensor
    problem: InverseProblem
    method: Method
    solution: Solution
    std: Tensor | None = None
    noise: Tensor | None = None
    samples: Tensor | None = None
    seed: int = 0
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Where the volume lies."""
        return self.problem.domain

    @property
    def volume(self) -> Volume:
        """The result with its grid; it keeps the first scan's name and the space that its header names.

        The magnitude of a complex one.
        """
        return self._volume(self.x)

    @property
    def phase(self) -> Volume | None:
        """The phase of a complex result, radians from -pi to pi; None of a real one."""
        return self._volume(self.x.angle()) if self.x.is_complex() else None

    def _volume(self, x: Tensor) -> Volume:
        x = x.abs() if x.is_complex() else x
        if not self.problem.scans:
            return Volume(x, self.grid, self.problem.names[0])
        return self.problem.scans[0].volume.with_data(x, self.grid)

    @property
    def std_volume(self) -> Volume | None:
        """`std` with its grid."""
        return None if self.std is None else self._volume(self.std)

    @cached_property
    def predicted(self) -> Tensor | None:
        """`std`, or what a network that knows the method's errors predicts of it, where there is one for such scans."""
        if self.std is not None or not self.method.knows_deviation:
            return self.std
        if self.problem.obstacle or self.method.objections(self.problem):
            return None
        found = self.method.predicted_deviation(self.problem, self.solution.x)
        return self.problem.masked(found * self.problem.scale)

    @property
    def noise_volume(self) -> Volume | None:
        """`noise` with its grid."""
        return None if self.noise is None else self._volume(self.noise)

    @property
    def sample_volumes(self) -> list[Volume]:
        """`samples` with their grid."""
        return [] if self.samples is None else [self._volume(one[None]) for one in self.samples]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the volume: see `invsr.save`."""
        save(self.volume, path)

    @cached_property
    def prediction(self) -> Data:
        """What the operator makes of the result, as the problem's y."""
        found: Data = self.problem.operator(self.solution.x)
        return found

    @property
    def motion(self) -> Motion | None:
        """Where the scans and their slices lay, and their gains; None for one scan that did not move."""
        return self.problem.motion

    @cached_property
    def slice_correlations(self) -> list[float | None]:
        """For each scan `invsr.pipeline.slice_check.slice_correlation`, which tells whether its slice thickness fits.

        None, too, where slices moved one by one.
        """
        moved = () if self.motion is None else self.motion.scans
        if any(one.of_scan is None for one in moved):
            return [None] * len(self.problem.scans)
        return [slice_correlation(scan) for scan in self.problem.scans]

    @cached_property
    def evidence(self) -> Evidence:
        """What of the volume the data determine, and what the prior supplied, in scaled intensities.

        Raises
        ------
        InvsrError
            When the problem is not that of scans.
        """
        problem = self.problem
        if not problem.scans:
            raise InvsrError("what the data determine is told of scans' slices, and this problem has none")
        x = problem.masked(self.solution.x)
        gap = max(scan.slice_spacing for scan in problem.scans)
        seen = (x != 0) if len(problem.scans) > 1 else None
        return split_evidence(problem.operator, x, problem.sigma, 2 * gap, seen)

    @property
    def status(self) -> Status:
        """How the iteration ended."""
        return self.solution.status

    @property
    def history(self) -> list[dict[str, float]]:
        """Figures of each iteration."""
        return self.solution.history

    @property
    def lam(self) -> float:
        """Regularisation parameter that was used, for data scaled to a peak of 1."""
        return self.solution.lam

    @property
    def sigma(self) -> float:
        """Standard deviation of the first scan's noise, in intensity units."""
        return self.problem.noise_level

    @property
    def chi2(self) -> float | None:
        """Mean squared standardised residual per measured voxel."""
        return self.solution.chi2

    @property
    def gain(self) -> float:
        """Gain of the re-simulated data against the data."""
        return self.solution.gain

    @property
    def notes(self) -> list[str]:
        """One line for each thing that was found in the scans and changed before they were used, or that they miss."""
        return [*self.problem.notes, *self._hidden]

    def remarks(self) -> list[str]:
        """One line for each thing about this run that a user should know."""
        lines = [*self.notes, *self.solution.remarks()]
        if len(self.problem.scans) > 1 and self.chi2 is not None and self.chi2 > CHI2_EXPECTED[1]:
            lines.append(self._mismatch())
        for scan, found in zip(self.problem.scans, self.slice_correlations, strict=True):
            lines += question(scan, found)
        return lines

    @cached_property
    def _hidden(self) -> list[str]:
        """What no scan shows, where that is more than an edge."""
        scans = self.problem.scans
        if any(scan.mask is not None or scan.padded_slices for scan in scans) or not self.problem.is_partial:
            return []
        share = 1 - float(self.problem.seen.float().mean())
        where = f"the field of view of {', '.join(self.problem.names)}"
        return [f"{share:.0%} of the volume is outside {where}: it is 0 there"] * (share > LEAST_HIDDEN)

    def _mismatch(self) -> str:
        """Which scan fits the common volume how well."""
        left = residuals(
            self.problem.operator, self.problem.likelihoods, self.problem.y, self.prediction, self.problem.slice_axes
        )
        each = ", ".join(f"{name} {one.chi2:.1f}" for name, one in zip(self.problem.names, left, strict=True))
        return (
            f"the scans do not fit one volume (chi2 of each: {each}): one lies elsewhere than its header says "
            "(--motion stack), shows another contrast, has an offset, or has more noise than was estimated"
        )
