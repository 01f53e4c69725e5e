"""Volumes and masks as arrays, checked before anything is measured on them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Volume3D = npt.NDArray[Any] | Tensor


def real_volume(volume: Volume3D, name: str) -> Array:
    """A volume (i, j, k) as float64; complex or not finite ones are refused."""
    array = volume.detach().cpu().numpy() if isinstance(volume, Tensor) else np.asarray(volume)
    if array.ndim != 3 or array.size == 0:
        raise InvsrError(f"the {name} has shape {array.shape}: a volume has 3 axes; index batch and channel away")
    if np.iscomplexobj(array):
        raise InvsrError(f"the {name} is complex ({array.dtype}): take its magnitude first")
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise InvsrError(f"the {name} has {bad} of {array.size} voxels that are not finite: repair or mask them out")
    return np.asarray(array, dtype=np.float64)


def pair_of(image: Volume3D, truth: Volume3D) -> tuple[Array, Array]:
    """Image and truth as arrays of one shape."""
    a, b = real_volume(image, "image"), real_volume(truth, "truth")
    if a.shape != b.shape:
        raise InvsrError(f"the image has shape {a.shape}, the truth {b.shape}: resample one onto the other's grid")
    return a, b


def inside_of(mask: Volume3D, volume: Volume3D, name: str) -> Mask:
    """A mask as an array of bool that fits the volume and is not empty."""
    inside = real_volume(mask, name) != 0
    if inside.shape != tuple(volume.shape):
        raise InvsrError(f"the {name} has shape {inside.shape}, the volume {tuple(volume.shape)}: resample it")
    if not inside.any():
        raise InvsrError(f"the {name} is empty (0 of {inside.size} voxels): give one that is non-zero inside")
    return np.asarray(inside)


def positive(data_range: float) -> float:
    """A data range that is finite and above zero."""
    if not 0 < data_range < float("inf"):
        raise InvsrError(f"data_range is {data_range}: it must be finite and above zero")
    return float(data_range)


def large_enough(name: str, shape: tuple[int, ...], least: tuple[int, ...]) -> bool:
    """Whether the window fits; if not, warn that the figure will be NaN."""
    if min(np.subtract(shape, least)) >= 0:
        return True
    sizes = "x".join(map(str, shape)), "x".join(map(str, least))
    warnings.warn(f"{name} is NaN: {sizes[0]} voxels are below its window of {sizes[1]}", InvsrWarning, stacklevel=3)
    return False
