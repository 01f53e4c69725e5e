"""k-space in the HDF5 files of the fastMRI data set, and of others that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import require_memory
from invsr.io.raw.arrays import from_samples
from invsr.io.raw.guard import opened, reading
from invsr.io.raw.header import Encoding, parse_header
from invsr.io.raw.readout import crop_readout
from invsr.raw import RawData


def read_fastmri(
    path: Path,
    *,
    spacing: float | Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    slice_thickness: float | None = None,
) -> RawData:
    """k-space of slices from `kspace`, (slices, coils, readout, phase) or (slices, readout, phase) of one coil.

    Where the file has an ISMRMRD header, voxel sizes come from it, and the oversampling of full readouts is removed.
    Slices are taken to touch each other, as the file does not say how far apart they are, and their middle is placed
    at the origin. Readouts, and lines of each slice, that are 0 in all coils were not measured; `mask` tells more.

    Parameters
    ----------
    path : Path
    spacing, affine
        Those of the image without oversampling, instead of what the header says; needed where there is none.
    slice_thickness : float, mm, optional
        Instead of what the header says.

    Raises
    ------
    InvsrError
        When the file is damaged, k-space is of other axes, or nothing says how large voxels are.

    References
    ----------
    Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI (2018).
    """
    with reading(path), opened(path) as file:
        values = _kspace(path, file["kspace"])
        encoding = _encoding(path, file, values.shape[2])
        readouts, lines = (np.asarray(values.any(axis=others)) for others in ((0, 1, 3), (1, 2)))
        if "mask" in file:
            lines = lines & _mask(path, file["mask"], values.shape[3])
        notes = []
        n = values.shape[2]
        size = n if encoding is None else encoding.cropped
        if size < n and readouts.all():
            notes.append(f"readout oversampling was removed: {size} of {n} samples are left")
            values = np.stack([crop_readout(one, size, axis=1) for one in values])
            readouts = readouts[:size]
        elif size < n:
            notes.append(f"readouts are partial ({int(readouts.sum())} of {n} samples): their oversampling is left in")
        if encoding is not None:
            if spacing is None and affine is None:
                x, y, z = (view / of for view, of in zip(encoding.view, (n, values.shape[3], 1), strict=True))
                spacing = (x, y, z if slice_thickness is None else slice_thickness)
                notes.append("slices are taken to touch each other, and to be centred at 0: the file says neither")
            slice_thickness = encoding.recon_view[2] if slice_thickness is None else slice_thickness
        return from_samples(
            path,
            values.transpose(1, 2, 3, 0),
            spacing,
            affine,
            (0, 1),
            slice_thickness,
            counts=(readouts[:, None, None] & lines.T[None]).astype(np.float32),
            notes=tuple(notes),
        )


def _kspace(path: Path, dataset: Any) -> npt.NDArray[np.complex64]:
    """All of k-space, (slices, coils, readout, phase)."""
    shape = "x".join(map(str, dataset.shape))
    if dataset.dtype.kind != "c" or len(dataset.shape) not in (3, 4) or min(dataset.shape) < 1:
        raise InvsrError(
            f"{path}: its kspace is {dataset.dtype} of shape {shape or 'a single number'}: save complex (slices, "
            "coils, readout, phase) or (slices, readout, phase)"
        )
    require_memory(path, f"k-space of shape {shape}", 4 * 8 * dataset.size)
    values = np.asarray(dataset[:], np.complex64)
    return values if values.ndim == 4 else values[:, None]


def _encoding(path: Path, file: Any, readout: int) -> Encoding | None:
    """What the header says, if there is one."""
    if "ismrmrd_header" not in file:
        return None
    encoding = parse_header(path, file["ismrmrd_header"][()]).encodings[0]
    if encoding.matrix[0] != readout:
        raise InvsrError(
            f"{path}: its readouts are of {readout} samples, the header encodes {encoding.matrix[0]}: export it again"
        )
    return encoding


def _mask(path: Path, dataset: Any, lines: int) -> npt.NDArray[np.bool_]:
    """Which phase-encoding lines were measured."""
    if int(dataset.size) != lines:
        raise InvsrError(f"{path}: its mask is of {dataset.size} lines and kspace of {lines}: export it again")
    return np.asarray(dataset[:]).reshape(-1) > 0
