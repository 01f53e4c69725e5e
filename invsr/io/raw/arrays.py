"""k-space in numpy's files, .npy and .npz, which hold nothing but the samples."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import DEFLATE, require_memory
from invsr.io.formats import require_readable
from invsr.io.raw.guard import reading
from invsr.raw import ALL_AXES, RawData

# More coils no scanner has.
MOST_COILS = 128


def read_array(
    path: Path,
    *,
    spacing: float | Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    axes: Sequence[int] | None = None,
    slice_thickness: float | None = None,
    n_coil_axes: int | None = None,
) -> RawData:
    """k-space of the complex array in a .npy or .npz file; see `invsr.io.raw.load_raw`.

    Four axes are (coils, i, j, k), two are (i, j) of one coil. Three are (coils, i, j) of one slice if the first is
    the shortest and of 128 at most, else (i, j, k) of one coil; `n_coil_axes` decides otherwise.

    Raises
    ------
    InvsrError
        When the file holds no single complex array of two to four axes, or neither spacing nor affine is given.
    """
    start = require_readable(path)
    compressed = path.suffix.lower() == ".npz"
    if not start.startswith(b"PK" if compressed else b"\x93NUMPY"):
        raise InvsrError(
            f"{path}: is not one of numpy's {path.suffix} files: save it with numpy.save{'z' * compressed}"
        )
    with reading(path):
        values = _npz(path) if compressed else _npy(path)
        values, said = _coils_first(path, values, n_coil_axes)
        return from_samples(path, values, spacing, affine, axes, slice_thickness, notes=(said,) if said else ())


def from_samples(
    path: Path,
    samples: npt.NDArray[Any],
    spacing: float | Sequence[float] | None,
    affine: npt.ArrayLike | None,
    axes: Sequence[int] | None,
    slice_thickness: float | None,
    *,
    counts: npt.ArrayLike | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """`RawData.from_array` of samples (coils, i, j, k); along axes of one sample nothing was encoded by default.

    Raises
    ------
    InvsrError
        When it is not exactly one of spacing and affine that is given, or samples are not usable.
    """
    if (spacing is None) == (affine is None):
        raise InvsrError(
            f"{path}: does not say where its voxels lie: give their spacing in mm (command line: --raw-spacing), or "
            "their affine"
        )
    if axes is None:
        axes = tuple(n for n in ALL_AXES if samples.shape[n + 1] > 1)
    raw = RawData.from_array(
        samples,
        spacing,
        affine=affine,
        axes=axes,
        counts=counts,
        name=path.name,
        slice_thickness=slice_thickness,
    )
    return dataclasses.replace(raw, notes=notes)


def _npy(path: Path) -> npt.NDArray[Any]:
    """Mapped, so that no memory is taken for what the file only claims to hold."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _npz(path: Path) -> npt.NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) != 1:
        names = ", ".join(one.filename.removesuffix(".npy") for one in members[:10])
        raise InvsrError(f"{path}: holds {len(members)} arrays ({names}): save the k-space in a file of its own")
    needed = members[0].file_size
    if needed > os.path.getsize(path) * DEFLATE:
        raise InvsrError(f"{path}: is damaged (it claims {needed} bytes): copy or export it again")
    require_memory(path, f"an array of {needed} bytes", 4 * needed)
    with np.load(path, allow_pickle=False) as archive_of_arrays:
        return np.asarray(archive_of_arrays[archive_of_arrays.files[0]])


def _coils_first(path: Path, values: npt.NDArray[Any], n_coil_axes: int | None) -> tuple[npt.NDArray[Any], str | None]:
    """The array as (coils, i, j, k), and what was assumed."""
    shape = "x".join(map(str, values.shape))
    if values.dtype.kind != "c" or values.ndim not in (2, 3, 4) or min(values.shape, default=0) < 1:
        raise InvsrError(
            f"{path}: holds {values.dtype} of shape {shape or 'a single number'}: save complex k-space as "
            "(coils, i, j, k), (coils, i, j) or (i, j)"
        )
    if n_coil_axes is not None and (n_coil_axes not in (0, 1) or values.ndim - n_coil_axes not in (2, 3)):
        raise InvsrError(f"{path}: of shape {shape} cannot have {n_coil_axes} coil axes: give 0 or 1, or leave it out")
    require_memory(path, f"k-space of shape {shape}", 3 * 8 * values.size)
    said = None
    if n_coil_axes is None:
        first, *rest = values.shape
        n_coil_axes = int(values.ndim == 4 or (values.ndim == 3 and first <= min(*rest, MOST_COILS)))
        if values.ndim == 3:
            what = f"{first} coils of one slice" if n_coil_axes else "one coil of a volume"
            said = f"an array of {shape} was taken for {what}"
    values = values if n_coil_axes else values[None]
    return (values if values.ndim == 4 else values[..., None]), said
