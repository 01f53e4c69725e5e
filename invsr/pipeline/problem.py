"""From scans as they come to one inverse problem: grid, operators, noise levels, one intensity scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.motion.align import RegisteredScan
from invsr.motion.bias import N_TERMS, field
from invsr.motion.joint import NONE, SLICE, estimate, matched
from invsr.motion.order import by_times
from invsr.motion.transforms import Motion, ScanMotion
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import Gaussian, Likelihood, Masked, likelihood
from invsr.numerics.iteration import ProgressCallback
from invsr.operators.base import Diagonal, LinearOperator
from invsr.operators.scan_model import acquisition, slice_profile_of
from invsr.operators.separable import Separable
from invsr.operators.stack import Stack
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple, like_data, peak
from invsr.solvers.spline import cubic
from invsr.volume import Volume

# Noise is never taken to be less than this share of the peak: a fit closer than that is beyond float32 data.
LEAST_SIGMA = 5e-4
# What several masks' target has around them, mm.
MARGIN = 10.0
# A voxel that data weigh on by less than this share of the most is not seen.
LEAST_SHARE = 0.1
# Below this correlation with the other scans a scan's contrast is taken to be another one.
LEAST_CORRELATION = 0.5


@dataclass(frozen=True)
class SliceModel:
    """A scan's slices: kind of profile, and its full width at half maximum in mm (None where voxels are samples)."""

    profile: str | Path
    thickness: float | None


@dataclass(frozen=True)
class Prepared:
    """An inverse problem in scaled intensities.

    Attributes
    ----------
    operator : LinearOperator
        Of one scan, or the `Stack` of several.
    y : Tensor, or tuple of them for a stack
        Data; bright tissue of the first scan is near 1, and all scans have its noise level.
    sigma : float
        Noise of y.
    scale : float
        Of the first scan's intensities.
    likelihoods : tuple of Likelihood
    motion : Motion or None
    grids : tuple of Grid
        Of the data.
    levels : tuple of float
        Each scan's noise as a multiple of sigma.
    slices : tuple of SliceModel
        What each scan's slices were taken for.
    noise_given : tuple of bool
        Whether a scan's noise was given, not estimated.
    """

    operator: LinearOperator
    y: Any
    sigma: float
    scale: float
    likelihoods: tuple[Likelihood, ...]
    motion: Motion | None
    grids: tuple[Grid, ...]
    levels: tuple[float, ...]
    slices: tuple[SliceModel, ...]
    noise_given: tuple[bool, ...]

    def seen(self) -> Tensor:
        """1 where data say something, 0 where none was measured inside a mask; shape (1, 1, *domain.shape)."""
        parts = tuple(
            torch.ones_like(one) * (kind.mask if isinstance(kind, Masked) else 1)
            for one, kind in zip(as_tuple(self.y), self.likelihoods, strict=True)
        )
        share = self.operator.adjoint(like_data(parts, self.y))
        return (share > LEAST_SHARE * share.max()).to(share)

    def guess(self, data: Any) -> Tensor:
        """First guess of the volume from such data: cubic interpolation, the mean of several scans'.

        With motion the smoothest volume that explains them.
        """
        if self.motion is not None and any(not scan.still for scan in self.motion.scans):
            return smooth_guess(self.operator, data)
        return self.interpolated(data)

    def interpolated(self, data: Any) -> Tensor:
        """Such data by cubic interpolation where their headers put them; of several scans the mean."""
        parts = [one * level for one, level in zip(as_tuple(data), self.levels, strict=True)]
        return _mean_of_cubics(parts, self.grids, self.operator.domain)


def prepare(
    scans: Sequence[Volume],
    target: Grid,
    *,
    slice_thickness: Sequence[float | None],
    slice_profile: Sequence[str | Path],
    in_plane: str,
    noise: Sequence[float | None],
    noise_model: str,
    masks: Sequence[Tensor | None],
    motion: str | Motion,
    progress: ProgressCallback | None,
) -> Prepared:
    """The inverse problem of scans on a target grid; arguments as of `invsr.reconstruct`, one for each scan."""
    widths = [_thickness(scan, one) for scan, one in zip(scans, slice_thickness, strict=True)]
    profiles = ["none" if width is None else one for width, one in zip(widths, slice_profile, strict=True)]
    models = tuple(SliceModel(kind, width) for kind, width in zip(profiles, widths, strict=True))
    given = tuple(level is not None for level in noise)
    scale = peak(scans[0].data if masks[0] is None else scans[0].data[masks[0]])
    sigmas = []
    for scan, level, mask in zip(scans, noise, masks, strict=True):
        sigmas.append(max(_sigma(scan, level, mask) / scale, LEAST_SIGMA))
    if len(scans) == 1 and motion == NONE:
        operator = _operator(scans[0], target, widths[0], profiles[0], in_plane)
        kind = likelihood(noise_model, sigmas[0])
        kinds = (kind if masks[0] is None else Masked(kind, masks[0]),)
        y = scans[0].data / scale
        return Prepared(operator, y, sigmas[0], scale, kinds, None, (scans[0].grid,), (1.0,), models, given)

    if isinstance(motion, Motion):
        found = motion.fitting([scan.name for scan in scans], [scan.grid for scan in scans])
    else:
        found = find_motion(
            scans, target, slice_thickness=slice_thickness, slice_profile=slice_profile, masks=masks, motion=motion,
            progress=progress,
        )  # fmt: skip
    scans, masks = cropped(scans, masks)
    members, parts, levels = [], [], []
    likelihoods: list[Likelihood] = []
    sigma = sigmas[0]
    for n, (scan, one) in enumerate(zip(scans, found.scans, strict=True)):
        moved = None if one.still else one.motion if one.of_scan is None else one.of_scan
        operator = _operator(scan, target, widths[n], profiles[n], in_plane, moved, found.centre)
        data = scan.data / scale
        level = sigmas[n] / one.gain
        used = _used(scan.grid, masks[n], one)
        kind = likelihood(noise_model, sigma)
        if used is None:
            likelihoods.append(kind)
        elif isinstance(kind, Gaussian) and not isinstance(operator, Separable):
            # Conjugate gradients are needed anyway: what is not used is left out of the operator.
            operator = Diagonal(scan.grid, used[0, 0].to(scan.data)) @ operator
            data = data * used
            likelihoods.append(kind)
        else:
            likelihoods.append(Masked(kind, used))
        members.append(operator)
        levels.append(level / sigma)
        if one.bias.any():
            data = data / field(torch.from_numpy(one.bias), scan.grid, torch.from_numpy(found.centre)).to(data)
        parts.append(data / one.gain * (sigma / level))
    # All scans are brought to the first one's noise level.
    several = len(members) > 1
    return Prepared(
        Stack(members, weights=[level**-2 for level in levels]) if several else members[0],
        tuple(parts) if several else parts[0],
        sigma, scale, tuple(likelihoods), found, tuple(scan.grid for scan in scans), tuple(levels), models, given,
    )  # fmt: skip


def cropped(scans: Sequence[Volume], masks: Sequence[Tensor | None]) -> tuple[list[Volume], list[Tensor | None]]:
    """Scans and masks without the rows and columns in which nothing is inside; all slices stay."""
    found: list[Volume] = []
    left: list[Tensor | None] = []
    for scan, mask in zip(scans, masks, strict=True):
        data, grid = scan.data, scan.grid
        if mask is not None:
            at = torch.nonzero(mask[0, 0])
            low, high = at.amin(0).tolist(), (at.amax(0) + 1).tolist()
            low[grid.through_plane], high[grid.through_plane] = 0, grid.shape[grid.through_plane]
            i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
            affine = grid.affine.copy()
            affine[:3, 3] = grid.to_world(low)
            data, mask = data[..., i, j, k], mask[..., i, j, k]
            grid = Grid(data.shape[2:], affine)
        found.append(replace(scan, data=data, grid=grid))
        left.append(mask)
    return found, left


def target_grid(
    scans: Sequence[Volume], spacing: float | Sequence[float] | None, masks: Sequence[Tensor | None]
) -> Grid:
    """The grid along the first scan that covers all fields of view, or all masks with a margin.

    Voxels lie where the first scan alone would have them.

    Raises
    ------
    InvsrError
        When a scan overlaps none of the others.
    """
    first = scans[0].grid
    for n, scan in enumerate(scans):
        if len(scans) > 1 and not any(scan.grid.overlaps(other.grid) for m, other in enumerate(scans) if m != n):
            raise InvsrError(
                f"{scan.name}: does not overlap any other scan in world space: check its orientation, or leave it out"
            )
    grid = first.isotropic() if spacing is None else first.refine(spacing)
    if len(scans) == 1:
        return grid
    reached = []
    for scan, mask in zip(scans, masks, strict=True):
        if mask is None:
            reached.append(scan.grid.corners())
        else:
            at = torch.nonzero(mask[0, 0]).cpu().numpy()
            reached.append(scan.grid.to_world(at))
    everywhere = all(mask is None for mask in masks)
    return grid.covering(np.concatenate(reached), 0.0 if everywhere else MARGIN)


def find_motion(
    scans: Sequence[Volume],
    target: Grid,
    *,
    slice_thickness: Sequence[float | None],
    slice_profile: Sequence[str | Path],
    masks: Sequence[Tensor | None],
    motion: str,
    progress: ProgressCallback | None,
) -> Motion:
    """The motion of scans by level "stack" or "slice"; for "none" their gains alone."""
    widths = [_thickness(scan, one) for scan, one in zip(scans, slice_thickness, strict=True)]
    scale = peak(scans[0].data if masks[0] is None else scans[0].data[masks[0]])
    whole = [scan.grid for scan in scans]
    scans, masks = cropped(scans, masks)
    data = [scan.data / scale for scan in scans]
    if motion == SLICE and len(scans) < 2:
        raise InvsrError("motion of slices is found against scans in other directions: give at least two, or none")
    centre = torch.from_numpy(target.centre)
    known = [
        RegisteredScan(
            data=one, grid=scan.grid, profile=slice_profile_of("none" if width is None else profile, width or 1.0),
            axis=scan.grid.through_plane, mask=mask, centre=centre,
            motion=torch.zeros(scan.grid.shape[scan.grid.through_plane], 6, dtype=torch.float64),
            weights=torch.ones(scan.grid.shape[scan.grid.through_plane], dtype=torch.float64),
            bias=torch.zeros(N_TERMS, dtype=torch.float64),
            ordered=_times(scan) is not None,
            order=by_times(_times(scan) or range(scan.grid.shape[scan.grid.through_plane])),
        )
        for one, scan, width, profile, mask in zip(data, scans, widths, slice_profile, masks, strict=True)
    ]  # fmt: skip
    found = matched(known, target) if motion == NONE else estimate(known, target, motion, progress)
    for scan, one in zip(scans, found, strict=True):
        if one.correlation < LEAST_CORRELATION:
            warnings.warn(
                f"{scan.name}: correlates with the other scans by {one.correlation:.2f} only: another contrast, or "
                "not where its header says? Leave it out, or try --motion stack",
                InvsrWarning,
                stacklevel=2,
            )
    return Motion(
        target.centre,
        tuple(
            ScanMotion(scan.name, grid, one.motion.numpy(), one.weights.numpy(), one.gain, one.bias.numpy())
            for scan, grid, one in zip(scans, whole, found, strict=True)
        ),
    )


def _times(scan: Volume) -> tuple[float, ...] | None:
    """When its slices were acquired, where that is known of the slices across its through-plane axis."""
    times, n_slices = scan.slice_times, scan.grid.shape[scan.grid.through_plane]
    return times if times is not None and len(times) == n_slices else None


def _used(grid: Grid, mask: Tensor | None, motion: ScanMotion) -> Tensor | None:
    """Which samples count, shape (1, 1, *grid.shape); None for all."""
    if not motion.rejected:
        return mask
    shape = [1, 1, 1, 1, 1]
    shape[2 + grid.through_plane] = -1
    kept = torch.from_numpy(motion.weights != 0).reshape(shape).expand(1, 1, *grid.shape)
    return kept if mask is None else kept.to(mask.device) & mask


def _thickness(scan: Volume, given: float | None) -> float | None:
    """mm; None for voxels that are isotropic already, which are samples of the volume as it is."""
    if given is None and scan.slice_thickness is None and scan.grid.spacing.max() < 1.01 * scan.grid.spacing.min():
        return None
    known = scan.slice_thickness if given is None else given
    return float(scan.grid.spacing[scan.grid.through_plane]) if known is None else known


def _operator(
    scan: Volume,
    target: Grid,
    width: float | None,
    profile: str | Path,
    in_plane: str,
    motion: npt.NDArray[np.float64] | None = None,
    centre: npt.NDArray[np.float64] | None = None,
) -> LinearOperator:
    try:
        found = acquisition(
            scan.grid, reference=target, slice_thickness=width, slice_profile=profile, in_plane=in_plane,
            motion=motion, centre=centre,
        )  # fmt: skip
    except InvsrError as error:
        raise InvsrError(f"{scan.name}: {error}") from None
    return found.to(scan.data.device)


def _sigma(scan: Volume, given: float | None, mask: Tensor | None) -> float:
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise InvsrError(f"{scan.name}: noise {given}: a standard deviation must be above zero")
        return float(given)
    fine = [n for n in (0, 1, 2) if scan.grid.spacing[n] < 1.5 * scan.grid.spacing.min()]
    try:
        return estimate_sigma(scan.data, axes=fine, mask=mask)
    except InvsrError as error:
        raise InvsrError(f"{scan.name}: {error} (noise=, command line: --noise)") from None


def _mean_of_cubics(data: Sequence[Tensor], grids: Sequence[Grid], target: Grid) -> Tensor:
    """Mean of the scans' cubic interpolations, each where it saw the target."""
    if len(data) == 1:
        return cubic(data[0], grids[0], target)
    total = torch.zeros((1, 1, *target.shape), device=data[0].device)
    weight = torch.zeros_like(total)
    points = target.points()
    for one, grid in zip(data, grids, strict=True):
        seen = torch.from_numpy(grid.contains(points)).to(total)[None, None]
        total += cubic(one, grid, target) * seen
        weight += seen
    return torch.where(weight > 0, total / weight.clamp(min=1), cubic(data[0], grids[0], target))
