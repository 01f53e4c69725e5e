"""Trajectories beside k-space in arrays and in BART's files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import DEFLATE, require_memory
from invsr.io.formats import require_readable
from invsr.io.raw.cfl import map_cfl
from invsr.io.raw.guard import reading
from invsr.noncartesian import NonCartesianData

# Arrays of a .npz file with a trajectory; spacing, affine and matrix may be missing.
SAMPLES, TRAJECTORY = "samples", "trajectory"
BESIDE = ("spacing", "affine", "matrix")


@dataclass(frozen=True)
class Placement:
    """Where the image lies, as the caller of `invsr.io.raw.load_raw` says."""

    spacing: float | Sequence[float] | None
    affine: npt.ArrayLike | None
    matrix: Sequence[int] | None
    slice_thickness: float | None


def read_along(path: Path, trajectory: Path, placed: Placement) -> NonCartesianData:
    """k-space of a .cfl or .npy file along the trajectory of another; see `invsr.io.raw.load_raw`.

    BART's samples are (1, readout, shots, coils), its trajectory (3, readout, shots); arrays are (coils, readout,
    shots) or (coils, readout, shots, slices), and (readout, shots, 2 or 3).

    Raises
    ------
    InvsrError
        When the files do not fit each other, or neither spacing nor affine is given.
    """
    samples = _samples(path)
    points = _points(trajectory)
    with reading(path):
        return _made(path, samples, points, placed)


def holds_trajectory(path: Path) -> bool:
    """Whether a .npz file holds samples and their trajectory."""
    if path.suffix.lower() != ".npz" or not require_readable(path).startswith(b"PK"):
        return False
    with reading(path), zipfile.ZipFile(path) as archive:
        return {f"{SAMPLES}.npy", f"{TRAJECTORY}.npy"} <= set(archive.namelist())


def read_archive(path: Path, placed: Placement) -> NonCartesianData:
    """k-space and trajectory of one .npz file, with its spacing, affine and matrix where they are not given.

    Raises
    ------
    InvsrError
        When arrays do not fit each other, or nothing says how large voxels are.
    """
    with reading(path):
        with zipfile.ZipFile(path) as archive:
            needed = sum(member.file_size for member in archive.infolist())
        if needed > os.path.getsize(path) * DEFLATE:
            raise InvsrError(f"{path}: is damaged (it claims {needed} bytes): copy or export it again")
        require_memory(path, f"arrays of {needed} bytes", 4 * needed)
        with np.load(path, allow_pickle=False) as held:
            own = {name: held[name] for name in (SAMPLES, TRAJECTORY, *BESIDE) if name in held.files}
        if placed.spacing is None and placed.affine is None:
            spacing = _numbers(own["spacing"]) if "spacing" in own and "affine" not in own else None
            placed = replace(placed, affine=own.get("affine"), spacing=spacing)
        if placed.matrix is None and "matrix" in own:
            placed = replace(placed, matrix=[int(n) for n in _numbers(own["matrix"])])
        return _made(path, own[SAMPLES], own[TRAJECTORY], placed)


def _made(path: Path, samples: npt.NDArray[Any], points: npt.NDArray[Any], placed: Placement) -> NonCartesianData:
    if (placed.spacing is None) == (placed.affine is None):
        raise InvsrError(
            f"{path}: does not say where its voxels lie: give their spacing in mm (command line: --raw-spacing), or "
            "their affine"
        )
    if points.dtype.kind not in "fiu" or points.ndim != 3:
        shape = "x".join(map(str, points.shape))
        raise InvsrError(
            f"{path}: a trajectory of {points.dtype}, {shape}: real numbers are needed, (readout, shots, 2 or 3)"
        )
    return NonCartesianData.from_array(
        samples,
        points.astype(np.float32),
        placed.spacing,
        matrix=placed.matrix,
        affine=placed.affine,
        name=path.name,
        slice_thickness=placed.slice_thickness,
    )


def _samples(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() in (".cfl", ".hdr"):
        with reading(path):
            values = map_cfl(path)
            if values.shape[0] != 1:
                shape = "x".join(map(str, values.shape))
                raise InvsrError(f"{path}: is of {shape}: along a trajectory it is 1 x readout x shots x coils")
            return np.moveaxis(values[0], -1, 0)
    return _array(path)


def _points(path: Path) -> npt.NDArray[Any]:
    """(readout, shots, components)."""
    if path.suffix.lower() not in (".cfl", ".hdr"):
        return _array(path)
    with reading(path):
        values = map_cfl(path)
        if values.shape[0] != 3 or values.shape[3] != 1:
            shape = "x".join(map(str, values.shape))
            raise InvsrError(f"{path}: is of {shape}: a trajectory is 3 x readout x shots")
        points = np.moveaxis(values[..., 0].real, 0, -1)
        return points if points[..., 2].any() else points[..., :2]


def _array(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() != ".npy" or not require_readable(path).startswith(b"\x93NUMPY"):
        raise InvsrError(f"{path}: is neither one of numpy's .npy files nor BART's .cfl: save it as one of them")
    with reading(path):
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        require_memory(path, f"an array of {values.nbytes} bytes", 3 * values.nbytes)
        return np.asarray(values)


def _numbers(values: npt.NDArray[Any]) -> list[float]:
    return [float(value) for value in np.ravel(values)]
