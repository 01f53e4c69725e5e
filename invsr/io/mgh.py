"""FreeSurfer's volumes, .mgz and .mgh."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import require_bytes, require_memory
from invsr.io.geometry import question_size
from invsr.io.intensities import replace_not_finite
from invsr.io.sidecars import read_slices
from invsr.volume import Volume

ENDINGS = (".mgz", ".mgh")
# Where voxels begin, and bytes of one by the header's code of its type.
DATA_OFFSET, BYTES = 284, {0: 1, 1: 4, 3: 4, 4: 2}


def read_mgh(path: Path, index: int | None) -> Volume:
    """A volume from a FreeSurfer file; see `invsr.load`, which turns what damaged files raise into one error."""
    import nibabel

    _require_room(path)
    image = nibabel.freesurfer.MGHImage.from_filename(path)
    shape = image.shape
    count = int(np.prod(shape[3:]))
    if index is None and count > 1:
        raise InvsrError(
            f"{path}: holds {count} volumes: choose one from 0 with index= (`reconstruct`, `inspect`: --volume N) "
            "or save one as a file of its own"
        )
    if index is not None and not 0 <= index < count:
        raise InvsrError(f"{path}: has no volume {index}: it holds {count}, counted from 0")
    try:
        grid = Grid(shape[:3], image.affine)
    except InvsrError as error:
        raise InvsrError(f"{path}: {error}") from None
    volumes = np.asarray(image.dataobj, dtype=np.float32).reshape(*shape[:3], -1)
    voxels = np.array(volumes[..., index or 0], order="C")
    replace_not_finite(path, voxels)
    question_size(grid, path)
    slices = read_slices(path, grid, None)
    return Volume(
        torch.from_numpy(voxels)[None, None],
        grid,
        path.name,
        slice_thickness=slices.thickness,
        slice_spacing=slices.spacing,
        slice_times=slices.times,
        slice_axis=slices.axis,
    )


def _require_room(path: Path) -> None:
    """Raise where the file cannot hold the voxels of its header, or memory cannot."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        _, *shape, kind = struct.unpack(">6i", file.read(24))
    if min(shape) < 1 or kind not in BYTES:
        raise InvsrError(f"{path}: the header gives the size {shape} and type {kind}: export it again")
    count = math.prod(shape)
    require_bytes(path, str(path), DATA_OFFSET + BYTES[kind] * count)
    require_memory(path, f"{'x'.join(map(str, shape))} voxels", (4 + BYTES[kind]) * count)
