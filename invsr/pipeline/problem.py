"""From scans to one inverse problem: operators, noise levels, one intensity scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.motion import Motion, ScanMotion
from invsr.motion.bias import field
from invsr.noise.likelihoods import Gaussian, Likelihood, Masked, likelihood
from invsr.numerics.levels import bright_middle, peak
from invsr.operators.base import Data, Diagonal, LinearOperator
from invsr.operators.separable import Separable
from invsr.operators.stack import Stack
from invsr.pipeline.grids import crossing, shows_all
from invsr.pipeline.moved import intensity_scale
from invsr.pipeline.scan import LEAST_SIGMA, Scan
from invsr.priors.base import Prior
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple, like_data
from invsr.solvers.spline import mean_of_cubics
from invsr.solvers.weighting import Schedule

# Voxels whose edges differ by less than this share may be turned, in volumes of at least so many along each axis.
ISOTROPIC, LEAST_CUBE = 0.1, 16


@dataclass(frozen=True)
class SliceGeometry:
    """How slices lie in the target: the axis across them, their thickness and gap in its voxels."""

    axis: int
    thickness: float
    gap: float


@dataclass(frozen=True, eq=False)
class InverseProblem:
    """``y = A x + n`` in scaled intensities: what every method solves.

    Attributes
    ----------
    operator : LinearOperator
        A: of one scan, or the `Stack` of several.
    y : Tensor, or tuple of them for a stack
        Data; bright tissue of the first scan is near 1, and all scans have its noise level.
    sigma : float
        Standard deviation of the noise of y.
    likelihoods : tuple of Likelihood
        One per scan.
    scale : float
        Intensity that counts as 1.
    scans : tuple of Scan
        What the data come from, without rows and columns that the masks leave out; empty for a problem that was made
        of an operator and data.
    motion : Motion or None
    levels : tuple of float
        Each scan's noise as a multiple of sigma.
    """

    operator: LinearOperator
    y: Data
    sigma: float
    likelihoods: tuple[Likelihood, ...]
    scale: float = 1.0
    scans: tuple[Scan, ...] = ()
    motion: Motion | None = None
    levels: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, operator: LinearOperator, y: Data, sigma: float | None = None) -> InverseProblem:
        """The problem of an operator and its data: deblurring, denoising, inpainting, k-space.

        Parameters
        ----------
        operator : LinearOperator
        y : Tensor, shape (1, channel, *operator.range.shape), or tuple of them for a stack
            In intensity units, as the operator produces it.
        sigma : float, optional
            Standard deviation of its noise, in intensity units; estimated from real data on one grid by default.
        """
        from invsr.noise.estimation import estimate_sigma

        parts = as_tuple(y)
        if not all(bool(one.isfinite().all() & one.any()) for one in parts):
            raise InvsrError("data are 0 everywhere, or NaN or infinite somewhere: there is nothing to reconstruct")
        if sigma is None:
            if len(parts) > 1 or parts[0].is_complex():
                raise InvsrError("noise is estimated from one real image: give sigma")
            sigma = estimate_sigma(parts[0])
        if not (np.isfinite(sigma) and sigma >= 0):
            raise InvsrError(f"sigma is {sigma}: give the standard deviation of the noise, finite and not below zero")
        # k-space has no bright tissue: the image that the data admit has.
        scale = peak(smooth_guess(operator, y))
        noise, scaled = max(float(sigma) / scale, LEAST_SIGMA), like_data(tuple(one / scale for one in parts), y)
        return cls(operator, scaled, noise, tuple(Gaussian(noise) for _ in parts), scale, levels=(1.0,) * len(parts))

    @property
    def domain(self) -> Grid:
        """Where the unknown lies."""
        return self.operator.domain

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        found: torch.device = as_tuple(self.y)[0].device
        return found

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Where each scan's data lie."""
        found = self.operator.range
        return found if isinstance(found, tuple) else (found,)

    @property
    def operator_memory(self) -> int:
        """Bytes that the operator takes while it is solved, beside the volumes of a method."""
        return self.operator.working_memory()

    @property
    def names(self) -> list[str]:
        """What messages call the scans."""
        return [scan.name for scan in self.scans] or [f"data {n + 1}" for n in range(len(self.grids))]

    @property
    def notes(self) -> list[str]:
        """One line for each thing that was found in the data and changed before they were used."""
        return [note for scan in self.scans for note in scan.notes]

    @property
    def slice_axes(self) -> list[int]:
        """Each scan's array axis across the slices; that of its largest voxels where nothing is known of slices."""
        return [scan.through_plane for scan in self.scans] or [grid.through_plane for grid in self.grids]

    @property
    def noise_level(self) -> float:
        """Standard deviation of the first scan's noise, in intensity units."""
        return self.sigma * self.scale

    @property
    def is_gaussian(self) -> bool:
        """Whether all data count, with white Gaussian noise."""
        return all(isinstance(one, Gaussian) for one in self.likelihoods)

    @property
    def is_moving(self) -> bool:
        """Whether a scan, or a slice, lies elsewhere than its header says."""
        return self.motion is not None and any(not one.still for one in self.motion.scans)

    @property
    def slices_move(self) -> bool:
        """Whether slices of one scan moved differently."""
        return self.motion is not None and any(one.of_scan is None for one in self.motion.scans if not one.still)

    @property
    def slices(self) -> SliceGeometry | None:
        """The first scan's slices in the target; None where nothing is known of slices."""
        return self.all_slices[0] if self.scans else None

    @property
    def all_slices(self) -> list[SliceGeometry]:
        """Each scan's slices in the target; none where nothing is known of slices."""
        found = []
        for scan in self.scans:
            between = scan.slice_spacing
            thickness = scan.thickness or between
            direction = scan.grid.directions[:, scan.through_plane]
            axis = int(np.abs(direction @ self.domain.directions).argmax())
            voxel = float(self.domain.spacing[axis])
            found.append(SliceGeometry(axis, thickness / voxel, (between - thickness) / voxel))
        return found

    @property
    def is_oblique(self) -> bool:
        """Whether a scan lies obliquely to the target, by its header or because it moved."""
        moved = [] if self.motion is None else [not one.still for one in self.motion.scans]
        return any(moved) or any(scan.grid.axes_in(self.domain) is None for scan in self.scans)

    @property
    def suits_denoisers(self) -> bool:
        """Whether a denoiser can tell the noise of what is measured from the image."""
        return True

    @property
    def fits_to_noise(self) -> bool:
        """Whether a good result leaves a chi2 near 1, so that weights may be chosen by it."""
        return True

    def start(self, prior: Prior) -> Tensor | None:
        """First guess for a prior; None for denoisers, which begin at a guess that explains the data."""
        return None if prior.is_denoiser else self.guess()

    def weight_of(self, prior: Prior) -> float | None:
        """The weight of a prior where it can be told before solving; None where the solver chooses it."""
        return None

    def schedule_of(self, prior: Prior, lam: float | None) -> Schedule | None:
        """Noise levels of a denoiser; None where the solver chooses them."""
        return None

    def with_data(self, y: Data) -> InverseProblem:
        """The same problem with other data."""
        return replace(self, y=y)

    @property
    def obstacle(self) -> str:
        """Why a network cannot tell the errors of a solver (`invsr.pipeline.deviation`), in words; empty if it can."""
        spacing = self.domain.spacing
        if spacing.max() > (1 + ISOTROPIC) * spacing.min() or min(self.domain.shape) < LEAST_CUBE:
            return f"it takes isotropic voxels, {LEAST_CUBE} along each axis or more, and the target is {self.domain}"
        if any(scan.noise_model != "gaussian" for scan in self.scans):
            return "it takes Gaussian noise"
        return ""

    def cube(self, x: Tensor, side: int) -> tuple[LinearOperator, Tensor]:
        """A cube in the middle of a volume's bright voxels, and the operator from it to the slices that cross it.

        Parameters
        ----------
        x : Tensor, shape (1, 1, *domain.shape)
        side : int
            Voxels; less where an axis of the volume has fewer.
        """
        side, middle = min(side, *self.domain.shape), bright_middle(x)
        low = [min(max(0, round(at - side / 2)), n - side) for at, n in zip(middle, self.domain.shape, strict=True)]
        grid = self.domain.part(low, [n + side for n in low])
        members, weights = [], []
        for n, (scan, level) in enumerate(zip(self.scans, self.levels, strict=True)):
            moved = None if self.motion is None else self.motion.scans[n]
            if self.motion is not None and moved is not None and not moved.still:
                # Which slices cross the cube depends on the motion.
                members.append(scan.operator(grid, _motion_of(moved), self.motion.centre))
            elif scan.grid.overlaps(grid):
                members.append(scan.operator(grid, part=crossing(scan.grid, grid)))
            else:
                continue
            weights.append(level**-2)
        i, j, k = (slice(n, n + side) for n in low)
        return (members[0] if len(members) == 1 else Stack(members, weights)), x[..., i, j, k]

    @cached_property
    def seen(self) -> Tensor:
        """Which voxels a scan shows inside its mask, bool, shape (1, 1, *domain.shape)."""
        found = torch.zeros((1, 1, *self.domain.shape), dtype=torch.bool, device=self.device)
        for n, scan in enumerate(self.scans):
            moved = None if self.motion is None else self.motion.scans[n]
            if self.motion is None or moved is None or moved.still:
                found |= scan.covers(self.domain)
            else:
                found |= scan.covers(self.domain, _motion_of(moved), self.motion.centre)
        return found

    @property
    def offset(self) -> float:
        """Intensity that counts as 0: the first scan's."""
        return self.scans[0].offset if self.scans else 0.0

    @property
    def is_partial(self) -> bool:
        """Whether scans, by masks or fields of view, may leave out voxels of the domain."""
        masked = any(scan.mask is not None or scan.padded_slices for scan in self.scans)
        return masked or (bool(self.scans) and not shows_all(self.grids, self.domain))

    def masked(self, x: Tensor) -> Tensor:
        """Volumes with 0 where no scan shows them inside its mask."""
        return x * self.seen if self.is_partial else x

    def shown(self, x: Tensor) -> Tensor:
        """Volumes of scaled intensities in the first scan's units, with 0 where no scan shows them."""
        return self.masked((x * self.scale).add_(self.offset))

    def guess(self) -> Tensor:
        """First guess of the volume: cubic interpolation of the scans, the mean of several scans'.

        With motion, and without scans, the smoothest volume that explains the data.
        """
        return smooth_guess(self.operator, self.y) if self.is_moving or not self.scans else self.interpolated()

    def interpolated(self) -> Tensor:
        """The data by cubic interpolation where their headers put them; of several scans the mean."""
        parts = [one * level for one, level in zip(as_tuple(self.y), self.levels, strict=True)]
        return mean_of_cubics(parts, self.grids, self.domain)


def build_problem(scans: Sequence[Scan], target: Grid, motion: Motion | None) -> InverseProblem:
    """The inverse problem of scans on a target grid, with the motion that `estimate_motion` returned."""
    scale = intensity_scale(scans[0])
    sigmas = [max(scan.sigma() / scale, LEAST_SIGMA) for scan in scans]
    if motion is None:
        (scan,), (sigma,) = scans, sigmas
        kind = _likelihood(scan, sigma, scan.used)
        return InverseProblem(scan.operator(target), scan.continued() / scale, sigma, (kind,), scale, (scan,))
    members: list[LinearOperator] = []
    parts: list[Tensor] = []
    likelihoods: list[Likelihood] = []
    sigma, cropped = sigmas[0], [scan.cropped() for scan in scans]
    levels = [one / moved.gain / sigma for one, moved in zip(sigmas, motion.scans, strict=True)]
    for scan, moved, level in zip(cropped, motion.scans, levels, strict=True):
        operator = scan.operator(target, None if moved.still else _motion_of(moved), motion.centre)
        data = scan.continued() / scale
        if moved.bias.any():
            bias, centre = torch.from_numpy(moved.bias), torch.from_numpy(motion.centre)
            data = data / field(bias, scan.grid, centre).to(data)
        used = _used(scan, moved)
        if used is not None and scan.noise_model == "gaussian" and not isinstance(operator, Separable):
            # Conjugate gradients are needed anyway: what is not used is left out of the operator.
            operator = Diagonal(scan.grid, used[0, 0].to(data)) @ operator
            data, used = data * used, None
        members.append(operator)
        # All scans are brought to the first one's noise level.
        parts.append(data / moved.gain / level)
        likelihoods.append(_likelihood(scan, sigma, used))
    several = len(members) > 1
    return InverseProblem(
        Stack(members, weights=[level**-2 for level in levels]) if several else members[0],
        tuple(parts) if several else parts[0],
        sigma,
        tuple(likelihoods),
        scale,
        tuple(cropped),
        motion,
        tuple(levels),
    )


def _likelihood(scan: Scan, sigma: float, used: Tensor | None) -> Likelihood:
    kind = likelihood(scan.noise_model, sigma)
    return kind if used is None else Masked(kind, used)


def _motion_of(moved: ScanMotion) -> np.ndarray:
    return moved.motion if moved.of_scan is None else moved.of_scan


def _used(scan: Scan, motion: ScanMotion) -> Tensor | None:
    """Which samples count, shape (1, 1, *grid.shape); None for all."""
    if not motion.rejected:
        return scan.used
    shape = [-1 if n == 2 + scan.through_plane else 1 for n in range(5)]
    kept = torch.from_numpy(motion.weights != 0).reshape(shape).expand(1, 1, *scan.grid.shape).to(scan.data.device)
    return kept if scan.used is None else kept & scan.used
