"""Intensities of a file: in blocks, and without those that are no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.warn import warn

# Voxels that are worked on together: bounds a float64 copy of them to 32 MB.
BLOCK = 2**22


def replace_not_finite(path: Path, voxels: npt.NDArray[np.float32]) -> None:
    """Set NaN and infinite voxels to 0, with a warning.

    Parameters
    ----------
    path : Path
        The file that they are from.
    voxels : array, shape (i, j, k)
        Changed in place.

    Raises
    ------
    InvsrError
        When no voxel is a finite number.
    """
    nan = infinite = 0
    for block in blocks(voxels):
        finite = np.isfinite(block)
        if finite.all():
            continue
        missing = int(np.isnan(block).sum())
        nan, infinite = nan + missing, infinite + int((~finite).sum()) - missing
        block[~finite] = 0
    if nan + infinite == voxels.size:
        raise InvsrError(f"{path}: none of its {voxels.size} voxels is a finite number: export it again")
    if nan + infinite:
        warn(f"{path}: {nan} NaN and {infinite} infinite of {voxels.size} voxels replaced by 0")


def blocks(voxels: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Views of some slices each: what is computed from them does not take the memory of the whole volume."""
    step = max(1, BLOCK // (voxels.shape[0] * voxels.shape[1]))
    return [voxels[..., k : k + step] for k in range(0, voxels.shape[2], step)]
