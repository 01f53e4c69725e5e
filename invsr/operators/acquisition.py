"""From protocol numbers and grids to the operator of one scan, and from several scans to a stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invsr.differences import NEUMANN, PERIODIC
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators.base import Diagonal, LinearOperator
from invsr.operators.profiles import (
    PROFILES,
    AxisProfile,
    band_limited_matrix,
    profile_samples,
    read_profile,
    sampled_matrix,
)
from invsr.operators.separable import Separable
from invsr.operators.slices import Slices
from invsr.operators.warp import Resample, Rigid

IN_PLANE = ("kspace", "gaussian", "none")
# A sample and a voxel are in the same place when closer than this share of a voxel.
ALIGNED = 1e-3
# Pixels of moving slices that are larger than voxels by less than this factor count as points.
COARSE = 1.25

Array = npt.NDArray[np.float64]


class Sampling(Separable):
    """Samples of a volume on a grid parallel to its own: a weighting along each axis, then decimation.

    Per range axis one of: an `AxisProfile` (weighted mean), "kspace" (band-limited to the samples'
    Nyquist frequency), "none" (interpolation). Where an axis' samples coincide with the voxels, "kspace"
    and "none" are the identity.

    Parameters
    ----------
    domain, range : Grid
        Parallel up to axis order and direction.
    axes : three of AxisProfile, "kspace" or "none"

    Attributes
    ----------
    width : nn.Parameter, shape (3,), mm
        Profile widths per range axis; ``A.width.requires_grad_()`` makes them learnable.

    Raises
    ------
    InvsrError
        When the grids are oblique to one another.
    """

    width: nn.Parameter

    def __init__(self, domain: Grid, range: Grid, axes: Sequence[AxisProfile | str]) -> None:
        order = range.axes_in(domain)
        if order is None:
            raise InvsrError(f"{domain} and {range} are oblique to one another: compose with a Resample operator")
        LinearOperator.__init__(self, domain, range)
        self.order = order
        self._cache = {}
        self.width = nn.Parameter(
            torch.tensor([a.width if isinstance(a, AxisProfile) else 0.0 for a in axes], dtype=torch.float64),
            requires_grad=False,
        )
        boundary = [NEUMANN, NEUMANN, NEUMANN]
        self._kinds: list[str] = []
        for n, axis in enumerate(axes):
            d = order[n]
            positions = _positions(domain, range, n, d)
            size, spacing = domain.shape[d], float(domain.spacing[d])
            kind = "profile"
            if isinstance(axis, AxisProfile):
                self.register_buffer(f"offsets_{n}", axis.offsets)
                self.register_buffer(f"weights_{n}", axis.weights)
            elif axis in ("kspace", "none"):
                kind = _without_profile(axis, size, spacing, positions)
                if kind == "band":
                    boundary[d] = PERIODIC
            else:
                raise InvsrError(f"unknown sampling {axis!r} of axis {n}: use a profile, 'kspace' or 'none'")
            self.register_buffer(f"positions_{n}", positions)
            self._kinds.append(kind)
        self.boundary = (boundary[0], boundary[1], boundary[2])
        for n in (0, 1, 2):  # what never changes is built once
            if self._kinds[n] != "profile":
                self.register_buffer(f"matrix_{n}", self._constant(n))

    def _constant(self, n: int) -> Tensor | None:
        d = self.order[n]
        size, spacing = self.domain.shape[d], float(self.domain.spacing[d])
        positions = getattr(self, f"positions_{n}")
        if self._kinds[n] == "identity":
            return None
        if self._kinds[n] == "band":
            return band_limited_matrix(size, spacing, positions, float(self.range.spacing[n]))
        return sampled_matrix(size, spacing, positions)

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b, c = (self._matrix(n) for n in (0, 1, 2))
        return a, b, c

    def _matrix(self, n: int) -> Tensor | None:
        if self._kinds[n] != "profile":
            constant: Tensor | None = getattr(self, f"matrix_{n}")
            return constant
        d = self.order[n]
        offsets = getattr(self, f"offsets_{n}").double() * self.width[n].double()
        return sampled_matrix(
            self.domain.shape[d],
            float(self.domain.spacing[d]),
            getattr(self, f"positions_{n}"),
            offsets,
            getattr(self, f"weights_{n}").double(),
        )


def acquisition(
    scan: Grid,
    spacing: float | Sequence[float] | None = None,
    *,
    reference: Grid | None = None,
    slice_thickness: float | None = None,
    slice_profile: str | Path = "gaussian",
    in_plane: str = "kspace",
    through_plane: int | None = None,
    motion: Tensor | npt.ArrayLike | None = None,
    centre: npt.ArrayLike | None = None,
) -> LinearOperator:
    """The operator that takes an isotropic volume to a thick-slice scan of it.

    Parameters
    ----------
    scan : Grid
        Of the acquired data.
    spacing : float or three, mm, optional
        Of the unknown volume, which covers the scan's field of view edge to edge; by default
        isotropic at the scan's finest spacing.
    reference : Grid, optional
        The unknown's grid itself, instead of `spacing`; may be oblique to the scan.
    slice_thickness : float, mm, optional
        Full width at half maximum of the slice profile; by default the slice spacing. A thickness
        below the spacing means gaps, above it overlapping slices.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr", "none"} or path
        A file holds offsets in mm and amplitudes in two columns, and sets the width itself. "none" samples
        points: with a target as fine as the scan that is the identity, the operator of denoising.
    in_plane : {"kspace", "gaussian", "none"}
        What pixels larger than the unknown's voxels are: a truncated k-space, Gaussian-weighted means
        (full width at half maximum of a pixel), or point samples.
    through_plane : {0, 1, 2}, optional
        The scan axis along which slices are stacked; by default that of the largest spacing.
    motion : array_like, shape (6,) or (n_slices, 6), optional
        Rotation vector in radians and translation in mm that take points of the scan to points of the volume, for the
        whole scan or for each slice (`Rigid`, `Slices`).
    centre : array_like, shape (3,), mm, optional
        World point that rotations are about; by default the middle of the scan's field of view.

    Returns
    -------
    LinearOperator
        From the unknown's grid to `scan`; separable unless there is motion or `reference` is oblique to the scan.

    Raises
    ------
    InvsrError
        When a number is not positive, a name is unknown, or the grids do not overlap.

    Examples
    --------
    >>> import numpy as np
    >>> scan = Grid((64, 64, 10), np.diag([1.0, 1.0, 4.0, 1.0]))
    >>> A = acquisition(scan, slice_thickness=3.0)
    >>> A.domain.shape
    (64, 64, 40)
    """
    if in_plane not in IN_PLANE:
        raise InvsrError(f"unknown in-plane model {in_plane!r}: use one of {', '.join(IN_PLANE)}")
    axis = scan.through_plane if through_plane is None else through_plane
    if axis not in (0, 1, 2):
        raise InvsrError(f"through-plane axis {axis}: use 0, 1 or 2")
    thickness = float(scan.spacing[axis]) if slice_thickness is None else float(slice_thickness)
    if not (np.isfinite(thickness) and thickness > 0):
        raise InvsrError(f"slice thickness {thickness} mm: it must be above zero")
    if reference is not None and spacing is not None:
        raise InvsrError("give either a target spacing or a reference grid, not both")
    target = reference if reference is not None else scan.isotropic() if spacing is None else scan.refine(spacing)
    if not target.overlaps(scan):
        raise InvsrError(
            f"the target {target} does not overlap the scan {scan} in world space: check both files' orientation"
        )
    moved = None if motion is None else torch.as_tensor(motion).double()
    around = scan.centre if centre is None else np.asarray(centre, float)
    if moved is not None and moved.ndim == 2:
        return _moving_slices(target, scan, axis, slice_profile_of(slice_profile, thickness), in_plane, moved, around)
    # An oblique or moved target is first resampled onto a grid along the scan's own axes.
    parallel = moved is None and scan.axes_in(target) is not None
    aligned = target if parallel else scan.refine(float(target.spacing.min()))
    order = scan.axes_in(aligned)
    if order is None:
        raise InvsrError(f"no grid along the axes of {scan} could be laid")
    axes: list[AxisProfile | str] = []
    for n in (0, 1, 2):
        if n == axis:
            axes.append("none" if slice_profile == "none" else slice_profile_of(slice_profile, thickness))
        else:
            axes.append(_pixels(in_plane, float(aligned.spacing[order[n]]), float(scan.spacing[n])))
    sampling = Sampling(aligned, scan, axes)
    if aligned is target:
        return sampling
    finer, motion_of_scan = _finer(target), None if moved is None else Rigid(moved, around)
    turned = sampling @ (Resample(finer.range, aligned, motion_of_scan, reach=0) @ finer)
    # As along the scan's own axes: samples that see half of their weight or more are normalised, others left out.
    with torch.no_grad():
        seen = turned(torch.ones((1, 1, *target.shape), dtype=torch.float64))
    return Diagonal(scan, torch.where(seen > 0.5, 1 / seen.clamp(min=0.5), 0.0)) @ turned


def _moving_slices(
    target: Grid, scan: Grid, axis: int, profile: AxisProfile, in_plane: str, motion: Tensor, centre: Array
) -> LinearOperator:
    finest = float(target.spacing.min())
    spacing = [s if n == axis or s < COARSE * finest else finest for n, s in enumerate(scan.spacing.tolist())]
    fine = scan.refine(spacing)
    finer = _finer(target)
    moving = Slices(finer.range, fine, profile, motion, centre=centre, through_plane=axis, planes=finest, reach=0)
    slices = moving @ finer
    if fine == scan:
        return slices
    axes: list[AxisProfile | str] = [
        "none" if n == axis else _pixels(in_plane, float(fine.spacing[n]), float(scan.spacing[n])) for n in (0, 1, 2)
    ]
    return Sampling(fine, scan, axes) @ slices


def _finer(target: Grid) -> Separable:
    """The volume at half its spacing by Keys' convolution, voxels, what lies midway between them, and the faces.

    Linear interpolation between those hardly blurs, and not at all where samples coincide with voxels. The outermost
    lie on the faces of the field of view, which therefore ends there (``reach=0``).
    """
    affine = target.affine.copy()
    affine[:3, :3] /= 2
    affine[:3, 3] = target.to_world([-0.5] * 3)
    half = Grid([2 * n + 1 for n in target.shape], affine)
    i, j, k = (
        sampled_matrix(n, spacing, (torch.arange(2 * n + 1, dtype=torch.float64) - 1) * spacing / 2)
        for n, spacing in zip(target.shape, target.spacing.tolist(), strict=True)
    )
    return Separable(target, half, (i, j, k))


def _pixels(in_plane: str, voxel: float, pixel: float) -> AxisProfile | str:
    if in_plane != "gaussian":
        return in_plane
    return AxisProfile(*profile_samples("gaussian"), pixel) if voxel < pixel * (1 - ALIGNED) else "none"


def slice_profile_of(profile: str | Path, thickness: float) -> AxisProfile:
    """What a slice averages; `profile` as in `acquisition`, `thickness` in mm."""
    if profile == "none":
        return AxisProfile(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 0.0)
    if isinstance(profile, str) and profile in PROFILES:
        return AxisProfile(*profile_samples(profile), thickness)
    return AxisProfile(*read_profile(profile), 1.0)


def _positions(domain: Grid, range: Grid, n: int, d: int) -> Tensor:
    """Positions of range axis n's samples along domain axis d, mm from its voxel 0."""
    index = np.zeros((range.shape[n], 3))
    index += (np.array(range.shape) - 1) / 2  # along the middle, where small angles shift least
    index[:, n] = np.arange(range.shape[n])
    found = torch.from_numpy(domain.to_voxel(range.to_world(index))[:, d] * domain.spacing[d])
    # Headers hold float32. Samples that divide the same field of view evenly, but for that rounding, are put where
    # they do: only then is the k-space of one exactly part of the other's, and the data step direct.
    extent = float(domain.extent[d])
    even = (torch.arange(len(found), dtype=torch.float64) + 0.5) * (extent / len(found)) - float(domain.spacing[d]) / 2
    even = even if found[0] <= found[-1] else even.flip(0)
    return even if float((found - even).abs().max()) < ALIGNED * float(domain.spacing[d]) else found


def _without_profile(kind: str, size: int, spacing: float, positions: Tensor) -> str:
    """How samples without a profile follow from the voxels: "identity", "band" or "interpolate"."""
    if len(positions) == size:
        there = torch.arange(size, dtype=torch.float64) * spacing
        if float((positions - there).abs().max()) < ALIGNED * spacing:
            return "identity"
        if float((positions - there.flip(0)).abs().max()) < ALIGNED * spacing:
            return "interpolate"  # at the voxels themselves, in reverse: nothing is cut, nothing is periodic
    if kind == "none" or len(positions) < 2:
        return "interpolate"
    step = float((positions[1] - positions[0]).abs())
    finer = step < spacing * (1 - ALIGNED)
    covers = abs(len(positions) * step - size * spacing) < ALIGNED * spacing
    # Cutting frequencies is right wherever voxels are finer than samples. The other way round, the Fourier
    # series serves only where both fields of view are one period; elsewhere it would wrap round.
    return "band" if covers or not (finer or abs(step - spacing) < ALIGNED * spacing) else "interpolate"
