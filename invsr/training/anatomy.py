"""Files to draw training patches from: label maps, images and masks of lesions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.io.nifti import load

LABELS = 64
# Whole numbers of which more than this share equal the next one are labels; of 8-bit images one in ten does.
LIKE_LABELS = 0.8
# Voxels of an image that are longer than wide by more than this factor are those of thick slices.
MOST_ANISOTROPY = 2.0


@dataclass(frozen=True)
class Anatomy:
    """A volume to draw from.

    Attributes
    ----------
    data : Tensor, shape (1, 1, i, j, k)
    kind : {"labels", "image", "lesion"}
        Label map (integers), real image (peak 1), or lesion mask (0 and 1, cropped to the lesion).
    spacing : Tensor, shape (3,)
        Voxel size, mm.
    """

    data: Tensor
    kind: str
    spacing: Tensor


def read(path: Path) -> Anatomy:
    """Read a volume, and find out what it is; a warning says where an image is likely to teach what is wrong.

    Raises
    ------
    InvsrError
        When the file cannot be read, holds several volumes, or has no positive voxel.
    """
    volume = load(path)
    data, spacing = volume.data, torch.as_tensor(volume.grid.spacing, dtype=torch.float32)
    whole = bool((data == data.round()).all())
    # Every voxel: the labels of small structures are easily missed.
    numbered = whole and float(data.min()) >= 0 and float(data.max()) < LABELS
    if numbered and len(torch.unique(data.flatten()[::7])) >= 4:
        return Anatomy(data.to(torch.uint8), "labels", spacing)
    if bool(((data == 0) | (data == 1)).all()) and bool(data.any()):
        places = data[0, 0].nonzero()
        low, high = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
        i, j, k = (slice(max(0, start - 1), end + 1) for start, end in zip(low, high, strict=True))
        return Anatomy(data[..., i, j, k].contiguous(), "lesion", spacing)
    peak = float(data.flatten()[:: max(1, data.numel() // 4_000_000)].quantile(0.999))
    if peak <= 0:
        raise InvsrError(f"{path}: has no positive voxel: it cannot be trained on")
    if whole and _repeated(data) > LIKE_LABELS:
        warnings.warn(
            f"{path}: holds whole numbers from {float(data.min()):g} to {float(data.max()):g} in areas of one value, "
            f"and is taken for an image: recode a label map to four labels or more from 0 to {LABELS - 1}",
            InvsrWarning,
            stacklevel=2,
        )
    if float(spacing.max() / spacing.min()) > MOST_ANISOTROPY:
        size = "x".join(f"{float(n):.3g}" for n in spacing)
        warnings.warn(
            f"{path}: has voxels of {size} mm: networks learn the blur of thick slices as if it were anatomy; train on "
            "nearly isotropic volumes, or a solver on the slices alone (--self-supervised)",
            InvsrWarning,
            stacklevel=2,
        )
    return Anatomy(data.clamp(min=0) / peak, "image", spacing)


def _repeated(data: Tensor) -> float:
    """The share of voxels that are not 0 whose next one has the same value, along the axis where that is least."""
    shares = []
    for axis in (2, 3, 4):
        here, following = data.narrow(axis, 0, data.shape[axis] - 1), data.narrow(axis, 1, data.shape[axis] - 1)
        inside = here != 0
        shares.append(float((here == following)[inside].float().mean()) if bool(inside.any()) else 0.0)
    return min(shares) if float(data.min()) < float(data.max()) else 0.0
