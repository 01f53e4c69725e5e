"""A real head that comes with the package: for the demo, the tutorials and the benchmarks."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from invsr.grid import Grid
from invsr.io.nifti import load
from invsr.volume import Volume

FILE = "stroke_T2w.nii.gz"
# A voxel in the infarct of the left temporal and parietal lobe.
INFARCT = (30, 48, 68)


def example(side: int | None = None) -> Volume:
    """T2w volume of a head with a chronic stroke: 124 x 160 x 140 voxels of 1 mm, 8 bit, without skull.

    It is validation data: no network that comes with the package was trained on this person.

    Parameters
    ----------
    side : int, optional
        Return a cube of this side about the infarct instead of the whole head, in voxels.

    References
    ----------
    `stroke` of github.com/neurolabusc/VolumeRenderingData, Center for the Study of Aphasia Recovery; MIT licence.

    Examples
    --------
    >>> example(side=32).grid.shape
    (32, 32, 32)
    """
    with as_file(files(__package__) / FILE) as path:
        whole = load(path)
    return whole if side is None else crop(whole, side, INFARCT)


def crop(volume: Volume, side: int, about: tuple[int, int, int] | None = None) -> Volume:
    """A cube of a volume, of `side` voxels or as many as there are, about a voxel or in the middle."""
    shape = np.array(volume.grid.shape)
    size = np.minimum(shape, side)
    first = (shape - size) // 2 if about is None else np.clip(np.array(about) - size // 2, 0, shape - size)
    i, j, k = (slice(int(start), int(start + n)) for start, n in zip(first, size, strict=True))
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world(first)
    data = volume.data[..., i, j, k].contiguous()
    return volume.with_data(data, Grid(data.shape[2:], affine))
