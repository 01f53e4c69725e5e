"""From volumes and what is told of them to scans that the model fits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.inspection.resolution import MOST_ROUNDS, measured_matrix
from invsr.noise.estimation import air_sigma
from invsr.operators.sampling import Sampling
from invsr.pipeline.faults import without_faults
from invsr.pipeline.offset import above_floor
from invsr.pipeline.scan import Scan
from invsr.pipeline.thickness import with_thickness
from invsr.volume import Volume

# Pixels are finer than voxels where they are smaller by more than this factor.
FINER = 0.9
# What is done about faults of slices and zero-filled pixels: found and corrected, or kept as they are.
AUTO, KEEP = "auto", "keep"


def scans_of(
    volumes: Volume | Scan | Sequence[Volume | Scan],
    *,
    slice_thickness: float | str | Sequence[float | str] | None = None,
    slice_profile: str | Path | Sequence[str | Path] | None = None,
    in_plane: str | None = None,
    noise: float | Sequence[float] | None = None,
    noise_model: str | None = None,
    masks: Volume | Sequence[Volume] | None = None,
    slice_axis: int | Sequence[int] | None = None,
    zero_filling: str = AUTO,
    faults: str = AUTO,
) -> list[Scan]:
    """Volumes with what is known of their acquisition; each value is one for all, or one for each.

    Negative intensities are counted from their floor, faults of slices are corrected, and zero-filling that the data
    show is taken back, unless they are to be kept: see `above_floor`, `without_faults` and `without_zero_filling`. A
    slice thickness of "auto" is estimated from the data; one that nobody states is, where slices are seen to be samples
    (`with_thickness`). A `Scan` is taken at its word.

    Raises
    ------
    InvsrError
        When there is no scan, something else than a volume, a number of values that does not fit, or an acquisition
        option beside a `Scan`, which has its own.
    """
    for what, choice in {"zero_filling": zero_filling, "faults": faults}.items():
        if choice not in (AUTO, KEEP):
            raise InvsrError(f"unknown {what} {choice!r}: use {AUTO} or {KEEP}")
    given = [volumes] if isinstance(volumes, Volume | Scan) else list(volumes)
    if not given:
        raise InvsrError("no scan given: name at least one NIfTI file")
    for one in given:
        if not isinstance(one, Volume | Scan):
            raise InvsrError(
                f"a {type(one).__name__} is not a scan: make one with invsr.Volume.from_array(array, spacing=...), or "
                "invsr.load(path)"
            )
    options = {
        "slice_thickness": per_scan(slice_thickness, len(given), "slice thickness"),
        "slice_profile": per_scan(slice_profile, len(given), "slice profile"),
        "in_plane": per_scan(in_plane, len(given), "in-plane model"),
        "noise": per_scan(noise, len(given), "noise"),
        "noise_model": per_scan(noise_model, len(given), "noise model"),
        "mask": mask_of_each(masks, len(given)),
        "slice_axis": per_scan(slice_axis, len(given), "slice axis"),
    }
    thicknesses = options["slice_thickness"]
    for value in thicknesses:
        if isinstance(value, str) and value != AUTO:
            raise InvsrError(f"slice thickness {value!r}: give it in mm, or {AUTO}")
    estimated = [value == AUTO for value in thicknesses]
    options["slice_thickness"] = [None if value == AUTO else value for value in thicknesses]
    found = []
    for n, one in enumerate(given):
        own = {name: values[n] for name, values in options.items() if values[n] is not None}
        if isinstance(one, Volume):
            found.append(Scan(one, **own))
        elif own or estimated[n]:
            own |= {"slice_thickness": AUTO} if estimated[n] else {}
            raise InvsrError(f"{one.name}: {', '.join(own)} given beside a Scan: put it into the Scan")
        else:
            found.append(one)
    sound = [len(found) == 1 for _ in found]
    if faults == AUTO:
        found = [above_floor(scan) for scan in found]
        corrected = [without_faults(scan, alone=len(found) == 1) for scan in found]
        sound = [one and scan is before for one, scan, before in zip(sound, corrected, found, strict=True)]
        found = corrected
    for scan in found:
        scan.question()
    if zero_filling == AUTO:
        found = [without_zero_filling(scan) for scan in found]
    return [
        scan if isinstance(one, Scan) else with_thickness(scan, *rest)
        for one, scan, *rest in zip(given, found, estimated, sound, strict=True)
    ]


def question_copies(scans: Sequence[Scan]) -> None:
    """Warn of scans with the same voxels in the same place: their noise is one, and would count as two.

    Files are copied and renamed; that a file itself is given twice is an error of the command line.
    """
    for n, scan in enumerate(scans):
        # Grids first: `torch.equal` reads the voxels.
        twin = next((one for one in scans[:n] if one.grid == scan.grid and torch.equal(one.data, scan.data)), None)
        if twin is not None:
            warnings.warn(
                f"{scan.name}: has the same voxels in the same place as {twin.name}: a copy counts as another "
                "measurement, and stated errors come out too small: leave one out, or name the scan that was meant",
                InvsrWarning,
                stacklevel=3,
            )


def without_zero_filling(scan: Scan) -> Scan:
    """The scan on the pixels that were measured, where its scanner filled k-space with zeros to a larger matrix.

    Pixels that k-space was filled in for add nothing, and their noise is correlated: noise level, chi2 and the target's
    default spacing follow from what was measured. Cropping k-space undoes the filling exactly; the field of view stays.
    """
    axes = [n for n in (0, 1, 2) if n != scan.through_plane]
    stored, data = scan.grid, scan.data
    for _ in range(MOST_ROUNDS):
        matrix = measured_matrix(data, axes)
        if matrix == tuple(data.shape[2:]):
            break
        grid = _of_matrix(stored, matrix)
        data = _pixels(scan, grid, axes)
    if data is scan.data:
        return scan
    pixels, measured = ("x".join(str(one.shape[n]) for n in axes) for one in (stored, grid))
    size = "x".join(f"{grid.spacing[n]:.3g}" for n in axes)
    note = (
        f"{scan.name}: {pixels} pixels from a measured matrix of {measured} (zero-filled k-space): taken as pixels of "
        f"{size} mm (--zero-filling keep takes them as they are)"
    )
    found = replace(_stored_as(scan, data, grid), notes=(*scan.notes, note))
    if scan.noise is not None:
        return found
    # Zero-filling leaves a pixel's noise as large as it was, and in air its distribution, which cropping changes.
    try:
        air = air_sigma(scan.data, axes, scan.used)
    except InvsrError as error:
        raise InvsrError(f"{scan.name}: {error} (noise=, command line: --noise)") from None
    return replace(found, air_noise=air) if math.isfinite(air) else found


def as_coarse_as(scan: Scan, spacing: float) -> Scan:
    """The scan with k-space cropped in the plane to pixels of a spacing, mm; itself where they are no finer.

    For scans that lie obliquely to a target of that spacing: what its voxels cannot show would count as misfit there.
    """
    grid, axes = scan.grid, [n for n in (0, 1, 2) if n != scan.through_plane]
    matrix = list(grid.shape)
    for n in axes:
        if grid.spacing[n] < FINER * spacing:
            matrix[n] = max(2, math.floor(grid.extent[n] / spacing))
    if matrix == list(grid.shape):
        return scan
    coarse = _of_matrix(grid, matrix)
    found = _stored_as(scan, _pixels(scan, coarse, axes), coarse)
    # White noise falls with the root of what is kept of k-space.
    kept = math.sqrt(math.prod(matrix) / math.prod(grid.shape))
    noise, air = (None if one is None else float(one) * kept for one in (scan.noise, scan.air_noise))
    return replace(found, noise=noise, air_noise=air)


def _pixels(scan: Scan, grid: Grid, axes: Sequence[int]) -> Tensor:
    """The scan's data with k-space cropped along some axes to a grid in the same field of view."""
    crop = Sampling(scan.grid, grid, ["kspace" if n in axes else "none" for n in (0, 1, 2)])
    data: Tensor = crop.to(scan.data.device)(scan.data)
    return data


def _stored_as(scan: Scan, data: Tensor, grid: Grid) -> Scan:
    """The scan with cropped data, on their grid."""
    if bool((scan.data >= 0).all()):
        data = data.abs()  # of a magnitude image, the one that the scanner would have written; differs in air only
    mask = scan.mask
    if mask is not None:
        mask = replace(mask, data=_nearest(mask.data, scan.grid, grid), grid=grid)
    volume = replace(scan.volume, data=data, grid=grid)
    return replace(scan, volume=volume, mask=mask, slice_axis=scan.through_plane)


def _nearest(data: Tensor, stored: Grid, grid: Grid) -> Tensor:
    """Values of the nearest voxels on a parallel grid in the same field of view."""
    for n in (0, 1, 2):
        centres = (torch.arange(grid.shape[n], dtype=torch.float64) + 0.5) * (stored.shape[n] / grid.shape[n])
        data = data.index_select(2 + n, centres.long().to(data.device))
    return data


def _of_matrix(grid: Grid, matrix: Sequence[int]) -> Grid:
    """The grid with another number of voxels in the same field of view."""
    affine = grid.affine.copy()
    affine[:3, :3] *= np.array(grid.shape) / np.array(matrix)
    affine[:3, 3] = grid.to_world([-0.5] * 3) + affine[:3, :3] @ np.full(3, 0.5)
    return Grid(matrix, affine)


def mask_of_each(masks: Volume | Sequence[Volume] | None, count: int) -> list[Volume | None]:
    """The mask of each scan; None where there are no masks.

    Raises
    ------
    InvsrError
        When there is not one for each.
    """
    if masks is None:
        return [None] * count
    found = [masks] if isinstance(masks, Volume) else list(masks)
    if len(found) != count:
        raise InvsrError(f"{len(found)} masks for {count} scans: give one for each scan, in the same order")
    return [*found]


def per_scan(value: Any, count: int, what: str) -> list[Any]:
    """A value for each scan, from one for all or one for each.

    Raises
    ------
    InvsrError
        When there are as many as neither.
    """
    if value is None or isinstance(value, float | int | str | Path) or not isinstance(value, Sequence):
        return [value] * count
    values = list(value)
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise InvsrError(f"{len(values)} values of {what} for {count} scans: give one, or one for each scan")
    return values
