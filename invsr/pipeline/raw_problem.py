"""From k-space as it was measured to an inverse problem: coils, target grid, slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.noise.likelihoods import Gaussian
from invsr.noncartesian import NonCartesianData
from invsr.numerics.levels import peak
from invsr.operators.base import LinearOperator
from invsr.operators.scan_model import acquisition
from invsr.pipeline.problem import InverseProblem, SliceGeometry
from invsr.pipeline.raw_coils import received
from invsr.pipeline.raw_matrix import (
    FULL,
    has_holes,
    pixels_of,
    resampled_maps,
    resized,
    share_of_ellipsoid,
    with_positions,
)
from invsr.pipeline.raw_operator import kspace_operator
from invsr.pipeline.raw_weight import Slab, slab_of, weight_for
from invsr.pipeline.scan import LEAST_SIGMA
from invsr.priors.base import Prior
from invsr.raw import KSpaceData, RawData
from invsr.solvers.plug_and_play import noise_schedule, smooth_guess
from invsr.solvers.weighting import Schedule

# Slices further apart than this many times the pixels are thick: the target is isotropic then.
THICK = 1.2
# Maps whose norm is 1 but for this share stay as they are.
UNIT = 1e-3
# A denoiser's weight over sigma^2, its first level as a share of the peak and the number of levels: set on stroke_T2w,
# where benchmarks/kspace/quality.py shows the scores. Aliasing is a larger error than what slices hide, and takes
# longer to undo.
DENOISER_WEIGHT, SLICE_WEIGHT = 0.5, 0.2
FIRST_LEVEL, LEVELS = 0.15, 16


@dataclass(frozen=True, eq=False)
class RawProblem(InverseProblem):
    """The inverse problem of k-space; `InverseProblem`'s attributes and these.

    Attributes
    ----------
    raw : RawData or NonCartesianData
        What y was made of: whitened, of compressed coils, on the target's pixels; its samples are y.
    maps : Tensor, shape (coils, *raw.grid.shape), complex
        Coil sensitivities.
    first : Tensor, shape (1, 1, *domain.shape), complex
        The smoothest volume that explains the data, roughly.
    thickness : float or None
        Thickness of slices that become a volume of finer voxels, mm.
    slab : Slab or None
        A slab of the data, on the matrix as measured: what the weight of total variation is found on.
    units : float
        What maps were divided by, so that their ``sum |S|^2`` is about 1. `scale` is that of the image as it would be
        with the maps that were given.
    heard : Tensor of bool, shape (1, 1, *domain.shape), or None
        Where maps are not 0: elsewhere data say nothing, and priors would continue what is next to it.
    """

    raw: KSpaceData | None = None
    maps: Tensor | None = None
    first: Tensor | None = None
    thickness: float | None = None
    slab: Slab | None = None
    units: float = 1.0
    heard: Tensor | None = None

    def masked(self, x: Tensor) -> Tensor:
        return x if self.heard is None else x * self.heard

    @property
    def noise_level(self) -> float:
        return super().noise_level * self.units

    @property
    def suits_denoisers(self) -> bool:
        # Noise of k-space that merely ends early is smooth on a finer matrix, and passes for texture.
        complete = self.share >= (1.0 if self.round_axes is None else FULL * share_of_ellipsoid(self.round_axes))
        return self.thickness is not None or self.has_holes or complete

    @property
    def fits_to_noise(self) -> bool:
        # With few samples for each voxel a fit takes up a share of their noise that no one knows beforehand.
        return False

    def start(self, prior: Prior) -> Tensor | None:
        return self.guess()

    def schedule_of(self, prior: Prior, lam: float | None) -> Schedule | None:
        if not prior.is_denoiser:
            return None
        levels = noise_schedule(self.guess(), self.sigma, lam)
        if self.thickness is not None:  # what slices hide is the larger part of what is missing
            return levels
        # Of noise that is white in all of k-space, a voxel of truncated or undersampled k-space gets its share.
        levels = replace(levels, end=levels.end * math.sqrt(self.share))
        if not self.has_holes:
            return levels
        return replace(levels, start=max(FIRST_LEVEL, levels.start), n_steps=LEVELS)

    def weight_of(self, prior: Prior) -> float | None:
        assert self.slab is not None
        if prior.is_denoiser:
            return (DENOISER_WEIGHT if self.thickness is None else SLICE_WEIGHT) * self.sigma**2
        found = weight_for(self.slab, prior, self.scale * self.units)
        # A sample of a slice weighs as much as before, and its slopes are shared by more voxels.
        axis = self.data.slice_axis
        return found if axis is None else found * float(self.domain.spacing[axis] / self.data.grid.spacing[axis])

    @property
    def share(self) -> float:
        """Of k-space that was measured."""
        return float(self.data.covered.double().mean())

    @property
    def round_axes(self) -> tuple[int, ...] | None:
        """Axes along which k-space is measured as far as a circle or a sphere; None on the Cartesian grid."""
        return self.data.axes if isinstance(self.data, NonCartesianData) else None

    @property
    def has_holes(self) -> bool:
        """Whether frequencies were skipped."""
        return has_holes(self.data.covered, self.round_axes)

    @property
    def names(self) -> list[str]:
        return [self.data.name]

    @property
    def notes(self) -> list[str]:
        return list(self.data.notes)

    @property
    def slice_axes(self) -> list[int]:
        axis = self.data.slice_axis
        return [2 if axis is None else axis]

    @property
    def all_slices(self) -> list[SliceGeometry]:
        axis = self.data.slice_axis
        if axis is None or self.thickness is None:
            return []
        voxel, between = (float(grid.spacing[axis]) for grid in (self.domain, self.data.grid))
        return [SliceGeometry(axis, self.thickness / voxel, (between - self.thickness) / voxel)]

    @property
    def slices(self) -> SliceGeometry | None:
        found = self.all_slices
        return found[0] if found else None

    @property
    def data(self) -> KSpaceData:
        """`raw`, which `build_raw_problem` always gives."""
        assert self.raw is not None
        return self.raw

    def guess(self) -> Tensor:
        assert self.first is not None
        return self.first


def build_raw_problem(
    raw: RawData | NonCartesianData,
    *,
    spacing: float | Sequence[float] | None = None,
    slice_thickness: float | None = None,
    slice_profile: str | Path | None = None,
    noise: float | None = None,
    maps: Tensor | None = None,
    n_coils: int | None = None,
) -> RawProblem:
    """The inverse problem of k-space, of one coil or several.

    Coils are whitened and compressed; along readouts and stacks that are complete, data are transformed to positions.

    Parameters
    ----------
    raw : RawData or NonCartesianData
    spacing : float or three, mm, optional
        Voxel spacing of the result along the data's axes. Along Fourier axes k-space is zero-filled or cropped to the
        nearest matrix size that keeps the field of view; by default the matrix stays, and thick slices are made
        isotropic. Off the Cartesian grid nothing is cropped: a spacing too large for the trajectory is refused.
    slice_thickness : float, mm, optional
        By default what the file says, else the slice spacing.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr"} or path, optional
        Gaussian by default.
    noise : float, optional
        Standard deviation of the real and of the imaginary part of each sample of one average, the same in all coils,
        in the samples' units; by default that of the noise scan, else estimated.
    maps : Tensor, shape (coils, *raw.grid.shape), complex, optional
        Coil sensitivities; estimated by default.
    n_coils : int, optional
        Number of virtual coils; by default as many as it takes to keep the signal.

    Raises
    ------
    InvsrError
        When maps do not fit, or noise, thickness or spacing cannot be used.
    """
    used, maps, sigma = received(raw, noise, maps, n_coils)
    maps, units = (None, 1.0) if maps is None else _normalised(maps, raw.name)
    slab = slab_of(used, maps, sigma)
    grid = pixels_of(used, spacing)
    fine: KSpaceData = resized(used, grid)
    sigma *= math.sqrt(fine.grid.size / used.grid.size)
    fine = with_positions(fine)
    target, thickness = _target(fine, spacing, slice_thickness)
    heard = None if maps is None else _heard(maps, target)
    if heard is not None:
        note = f"coil maps are 0 in {1 - float(heard.float().mean()):.0%} of the voxels: the result is 0 there"
        fine = fine.with_samples(fine.samples, notes=(*fine.notes, note))
    if maps is not None:
        maps = resampled_maps(maps, fine.grid.shape, used.axes)
    weights = fine.counts.sqrt()
    operator: LinearOperator = kspace_operator(fine, weights, maps)
    if target != fine.grid:
        slices = acquisition(
            fine.grid,
            reference=target,
            slice_thickness=thickness,
            slice_profile=slice_profile or "gaussian",
            in_plane="none",
            through_plane=fine.slice_axis,
        )
        operator = operator @ slices.to(fine.samples.device)
    elif slice_profile is not None:
        raise InvsrError(f"{raw.name}: a slice profile belongs to slices thicker than voxels: leave it out")
    fine = fine.with_samples(fine.samples * weights)
    first = smooth_guess(operator, fine.samples)
    scale = peak(first)
    level = max(sigma / scale, LEAST_SIGMA)
    return RawProblem(
        operator,
        fine.samples.mul_(1 / scale),
        level,
        (Gaussian(level),),
        scale / units,
        raw=fine,
        maps=maps,
        first=first.div_(scale),
        thickness=thickness,
        slab=slab,
        units=units,
        heard=heard,
    )


def _normalised(maps: Tensor, name: str) -> tuple[Tensor, float]:
    """Maps whose ``sum |S|^2`` is about 1 where there are any, and what they were divided by.

    The weights of priors and the steps of networks are set for such maps; the image is the larger for it.

    Raises
    ------
    InvsrError
        When all maps are 0, or some value is not finite.
    """
    norm = maps.abs().square().sum(0).sqrt()
    if not bool(norm.isfinite().all()) or not bool(norm.any()):
        raise InvsrError(f"{name}: coil maps that are 0 everywhere, or not finite: give the sensitivities of its coils")
    units = float(norm[norm > 0].median())
    return (maps, 1.0) if abs(units - 1) < UNIT else (maps / units, units)


def _heard(maps: Tensor, target: Grid) -> Tensor | None:
    """Where some coil has a sensitivity, bool, shape (1, 1, *target.shape); None where one has everywhere."""
    found = maps.ne(0).any(0)[None, None]
    return None if bool(found.all()) else interpolate(found.float(), target.shape) > 0


def _target(
    raw: KSpaceData, spacing: float | Sequence[float] | None, slice_thickness: float | None
) -> tuple[Grid, float | None]:
    """The unknown's grid, and the thickness of slices."""
    axis, grid = raw.slice_axis, raw.grid
    if axis is None or grid.shape[axis] == 1:
        if slice_thickness is not None:
            what = "one slice" if axis is not None else "a three-dimensional acquisition"
            raise InvsrError(f"{raw.name}: slice thickness {slice_thickness} mm of {what}: leave it out")
        return grid, None
    between = float(grid.spacing[axis])
    thickness = slice_thickness or raw.slice_thickness or between
    if not (np.isfinite(thickness) and thickness > 0):
        raise InvsrError(f"{raw.name}: slice thickness {thickness} mm: it must be above zero")
    pixel = min(float(grid.spacing[n]) for n in (0, 1, 2) if n != axis)
    if spacing is not None:
        wanted = float(np.broadcast_to(np.asarray(spacing, float), 3)[axis])
    else:
        wanted = pixel if between > THICK * pixel else between
    if abs(wanted / between - 1) < 1e-3:
        if slice_thickness is not None:
            raise InvsrError(
                f"{raw.name}: slice thickness {slice_thickness} mm, but voxels as large as the slices are apart "
                f"({between:g} mm), which have no use for it: leave it out, or ask for a finer spacing"
            )
        return grid, None
    steps = grid.spacing.copy()
    steps[axis] = wanted
    return grid.refine(steps.tolist()), thickness
