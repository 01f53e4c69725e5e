"""NIfTI files for tests, and reading that is silent, warns once or refuses in one line."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.nifti import load
from invsr.volume import Volume

SHAPE = (5, 6, 4)


def affine_of(name):
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes = {
        "upright": np.eye(3),
        "oblique": turn @ turn[:, [2, 0, 1]][[2, 0, 1]],
        "flipped": np.diag([-1, 1, -1]),
        "permuted": np.eye(3)[:, [2, 0, 1]],
        "all three": turn[:, [1, 2, 0]] * [1, -1, 1],
    }[name]
    affine = np.eye(4)
    affine[:3, :3] = axes * [0.9, 1.1, 4.5]
    affine[:3, 3] = [-80.5, 12.25, 33]
    return affine


ORIENTATIONS = ("upright", "oblique", "flipped", "permuted", "all three")


def voxels(shape=SHAPE, dtype=np.float32, seed=0):
    return (100 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def write(path, data=None, affine=None, kind=nib.Nifti1Image, **header):
    """A file straight from nibabel; `header` holds raw header fields."""
    data = voxels() if data is None else data
    image = kind(data, affine_of("oblique") if affine is None else affine, dtype=data.dtype)
    image.to_filename(path)
    if header:
        patch(path, image.header_class, **header)
    return path


def patch(path, header_class, **fields):
    """Overwrite header fields of a file as they are, without nibabel's checks."""
    reader = gzip.open if str(path).endswith(".gz") else open
    with reader(path, "rb") as file:
        content = bytearray(file.read())
    header = header_class(bytes(content[: header_class.template_dtype.itemsize]), check=False)
    for key, value in fields.items():
        header[key] = value
    content[: len(header.binaryblock)] = header.binaryblock
    with reader(path, "wb") as file:
        file.write(content)


def volume_of(shape=SHAPE, orientation="oblique", **fields):
    data = torch.from_numpy(voxels(shape))[None, None]
    return Volume(data, Grid(shape, affine_of(orientation)), **fields)


def refuses(message, function, *arguments, **keywords):
    with pytest.raises(InvsrError, match=message) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_quietly(path, **keywords):
    # Recorded, not raised: an exception inside nibabel would pass for a damaged file.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return load(path, **keywords)
        finally:
            assert [str(warning.message) for warning in caught] == []


def load_with_warning(message, path):
    with pytest.warns(InvsrWarning, match=message) as caught:
        volume = load(path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    return volume
