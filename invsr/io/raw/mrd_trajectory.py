"""k-space in ISMRMRD files whose lines follow a trajectory: radial, spiral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import require_memory
from invsr.io.raw.header import Encoding
from invsr.io.raw.lines import BLOCK, Lines, samples_of
from invsr.io.raw.readout import Complex, Indices
from invsr.io.raw.slices import grid_of, slices_in_order
from invsr.io.raw.units import Floats, in_cycles
from invsr.noncartesian import ROUNDING, NonCartesianData
from invsr.raw import ALL_AXES

# Trajectories of the header that are read where every line brings its own.
KINDS = ("radial", "goldenangle", "spiral", "other")


def has_trajectory(lines: Lines, encoding: Encoding) -> bool:
    """Whether the lines of the image say where in k-space their samples lie, and are not on a Cartesian grid."""
    return encoding.trajectory in KINDS and bool((lines.heads["trajectory_dimensions"][lines.imaging] > 0).all())


def read_trajectory(
    path: Path,
    dataset: Any,
    lines: Lines,
    encoding: Encoding,
    *,
    affine: npt.ArrayLike | None = None,
    slice_thickness: float | None = None,
    noise: torch.Tensor | None = None,
    notes: tuple[str, ...] = (),
) -> NonCartesianData:
    """The imaging lines of slices of one trajectory, of a stack, or of a three-dimensional one.

    The trajectory is in cycles per voxel of the encoded matrix, in cycles per encoded field of view, or in another unit
    in which it reaches the edge of k-space; see `invsr.io.raw.units`. Of a stack, partitions are the third component.

    Parameters
    ----------
    path : Path
    dataset : h5py.Dataset
    lines : Lines
    encoding : Encoding
    affine, slice_thickness
        As of `invsr.io.raw.mrd.read_mrd`.
    noise, notes
        What was read already.

    Raises
    ------
    InvsrError
        When lines differ in length or in what their trajectory has, it is of no known unit, or slices differ in it.
    """
    heads = lines.heads[lines.imaging]
    if encoding.multiband > 1:
        raise InvsrError(
            f"{path}: {encoding.multiband} slices were excited at once: separate them first, or name the image"
        )
    first, size = _extent(path, heads)
    numbers = np.unique(heads["idx"]["slice"])
    slab = encoding.matrix[2] > 1
    if slab and len(numbers) > 1:
        raise InvsrError(f"{path}: holds {len(numbers)} slabs: save the lines of one in a file")
    coils = int(heads["active_channels"][0])
    needed = 3 * 8 * coils * len(heads) * size
    require_memory(path, f"{len(heads)} lines of {size} samples by {coils} coils", needed)
    points = _points(path, dataset, lines, first, size)
    said = list(notes)
    if len(lines.calibration):
        said.append(f"left out {len(lines.calibration)} calibration lines")
    if not slab and points.shape[2] == 3:
        points = points[..., :2]
        said.append("the third component of its trajectory is left out: one partition is encoded")
    points, unit = in_cycles(path, points, encoding)
    said += [unit] if unit else []
    if slab and points.shape[2] == 2:
        step = heads["idx"]["kspace_encode_step_2"].astype(np.float32) - encoding.centres[1]
        points = np.concatenate([points, np.broadcast_to(step[:, None, None], (*points.shape[:2], 1))], 2)
    samples = np.empty((coils, len(heads), size), np.complex64)
    for line, values in samples_of(path, dataset, lines.heads, lines.imaging):
        samples[:, line] = values[:, first[line] : first[line] + size]
    order = None if slab else slices_in_order(path, heads, affine is not None)
    groups = [np.arange(len(heads))] if order is None else [np.flatnonzero(heads["idx"]["slice"] == n) for n in order]
    _require_one_trajectory(path, points, groups)
    shape = (*encoding.matrix[:2], encoding.matrix[2] if order is None else len(order))
    grid = Grid(shape, np.asarray(affine)) if affine is not None else None
    if grid is None:
        grid, doubts = grid_of(path, heads, shape, encoding.spacing, order)
        said += doubts
    if max(seen / asked for seen, asked in zip(encoding.view[:2], encoding.recon_view[:2], strict=True)) > 1 + 1e-3:
        seen, asked = ("x".join(f"{mm:g}" for mm in view[:2]) for view in (encoding.view, encoding.recon_view))
        said.append(f"the encoded field of view of {seen} mm is kept, of which the scanner shows {asked} mm")
    if slice_thickness is None and order is not None:
        slice_thickness = encoding.recon_view[2]
    stacked: Complex = np.stack([samples[:, group].transpose(0, 2, 1) for group in groups], -1)
    return NonCartesianData(
        torch.from_numpy(stacked)[None],
        torch.from_numpy(np.ascontiguousarray(points[groups[0]].transpose(1, 0, 2))),
        grid,
        ALL_AXES if slab else (0, 1),
        path.name,
        None if slab else 2,
        slice_thickness if not slab else None,
        noise,
        notes=tuple(said),
    )


def _extent(path: Path, heads: npt.NDArray[Any]) -> tuple[Indices, int]:
    """The first sample of each line that counts, and how many do, as many of each."""
    length, before, after = (
        heads[name].astype(np.int64) for name in ("number_of_samples", "discard_pre", "discard_post")
    )
    sizes = length - before - after
    if sizes.min() < 1 or sizes.min() != sizes.max():
        raise InvsrError(
            f"{path}: its lines hold {sizes.min()} to {sizes.max()} samples: along a trajectory all must have as many"
        )
    return before, int(sizes[0])


def _points(path: Path, dataset: Any, lines: Lines, first: Indices, size: int) -> Floats:
    """The trajectory as it is stored, (lines, samples, components)."""
    heads = lines.heads[lines.imaging]
    kinds = np.unique(heads["trajectory_dimensions"])
    if len(kinds) > 1 or kinds[0] not in (2, 3):
        said = " and ".join(map(str, kinds))
        raise InvsrError(f"{path}: its trajectory has {said} components: two or three in every line are read")
    dims = int(kinds[0])
    points = np.empty((len(heads), size, dims), np.float32)
    step = max(1, BLOCK // (4 * dims * int(heads["number_of_samples"].max())))
    for begin in range(0, len(dataset), step):
        here = np.flatnonzero((lines.imaging >= begin) & (lines.imaging < begin + step))
        if not len(here):
            continue
        block = dataset.fields("traj")[begin : begin + step]
        for line in here:
            values = np.asarray(block[lines.imaging[line] - begin], np.float32)
            n = int(heads["number_of_samples"][line])
            if values.size != n * dims:
                raise InvsrError(
                    f"{path}: line {lines.imaging[line]} holds a trajectory of {values.size} numbers and its header "
                    f"says {n * dims}: export it again"
                )
            points[line] = values.reshape(n, dims)[first[line] : first[line] + size]
    return points


def _require_one_trajectory(path: Path, points: Floats, groups: list[Indices]) -> None:
    for group in groups[1:]:
        if len(group) != len(groups[0]) or not np.allclose(points[group], points[groups[0]], atol=ROUNDING):
            raise InvsrError(f"{path}: its slices follow different trajectories: save each slice in a file of its own")
