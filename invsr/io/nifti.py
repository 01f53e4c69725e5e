"""NIfTI files: read with care, written whole."""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import require_bytes, require_memory
from invsr.io.files import OUTPUT_ENDINGS, whole_file
from invsr.io.formats import require_nifti_like, require_readable
from invsr.io.geometry import question_size, read_affine
from invsr.io.intensities import blocks, replace_not_finite
from invsr.io.mgh import ENDINGS as MGH_ENDINGS
from invsr.io.mgh import read_mgh
from invsr.io.nrrd import ENDINGS as NRRD_ENDINGS
from invsr.io.nrrd import read_nrrd
from invsr.io.sidecars import read_slices
from invsr.io.warn import warn
from invsr.volume import Volume

# The dimensions of a NIfTI-1 header are 16-bit integers.
LARGEST_NIFTI1 = 32767
# Bytes after the voxels up to which the end of a gzip stream, which holds the checksum, is looked for.
LARGEST_REST = 2**26
# The intent codes of CIFTI-2.
CIFTI = range(3000, 3100)


def images_in(folder: Path) -> list[Path]:
    """The files in a folder, and in folders in it, whose names end as those that `load` reads, in order."""
    endings = (*OUTPUT_ENDINGS, *MGH_ENDINGS, *NRRD_ENDINGS)
    return sorted(one for one in folder.rglob("*") if one.name.lower().endswith(endings) and not one.is_dir())


def load(path: str | os.PathLike[str], index: int | None = None, *, geometry: str | None = None) -> Volume:
    """Read NIfTI-1 and NIfTI-2 (.nii, .nii.gz, .hdr with .img), FreeSurfer (.mgz, .mgh) or NRRD (.nrrd, .nhdr).

    The affine is the sform, else the qform, in millimetres; a warning says where they contradict each other.
    Intensities are scaled by the header's slope and intercept. NaN and infinite voxels become 0, with a warning. The
    slice axis comes from the header, and `SliceThickness`, `SpacingBetweenSlices`, `SliceEncodingDirection` and
    `SliceTiming` from BIDS sidecars (``x.json`` beside ``x.nii.gz``, and those that it inherits in a dataset).

    Parameters
    ----------
    path : str or path
    index : int, optional
        Which volume of a file that holds several, counted from 0.
    geometry : {"sform", "qform", "pixdim"}, optional
        What of the header says where voxels lie.

    Raises
    ------
    InvsrError
        When the file cannot be used; the message names the file, the reason and the remedy.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, torch
    >>> scan = Volume(torch.ones(1, 1, 4, 5, 2), Grid((4, 5, 2), np.diag([1, 1, 5, 1])))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(scan, folder + "/scan.nii.gz")
    ...     load(folder + "/scan.nii.gz").grid
    Grid(4x5x2, 1x1x5 mm, origin 0x0x0 mm)
    """
    path = Path(path)
    if path.name.lower().endswith((*MGH_ENDINGS, *NRRD_ENDINGS)):
        require_readable(path)
        if geometry is not None:
            raise InvsrError(f"{path}: a {path.suffix[1:]} file has one geometry: leave --geometry out")
        with _reading(path):
            return (read_mgh if path.name.lower().endswith(MGH_ENDINGS) else read_nrrd)(path, index)
    header = read_header(path, geometry)
    count, grid = header.count, header.grid
    if index is None and count > 1:
        raise InvsrError(
            f"{path}: holds {count} volumes: choose one from 0 with index= (`reconstruct`, `inspect`: --volume N) "
            "or save one as a file of its own"
        )
    if index is not None and not 0 <= index < count:
        raise InvsrError(f"{path}: has no volume {index}: it holds {count}, counted from 0")
    first = header.offset + (index or 0) * grid.size * header.dtype.itemsize
    raw = _voxels(path, header.image, grid, header.dtype, first, alone=count == 1)
    data = _float32(path, raw, header.slope, header.inter)
    question_size(grid, path)
    slices = read_slices(path, grid, header.slice_axis)
    return Volume(
        torch.from_numpy(data)[None, None],
        grid,
        path.name,
        slice_thickness=slices.thickness,
        slice_spacing=slices.spacing,
        form_code=header.form_code,
        slice_times=slices.times,
        slice_axis=slices.axis,
    )


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says, once it is known to be usable.

    Attributes
    ----------
    image : str
        The file that holds the voxels.
    grid : Grid
    count : int
        Number of volumes.
    dtype : dtype
    slope, inter : float
        Intensities are stored values times slope plus inter.
    offset : int
        Bytes before the first voxel.
    slice_axis : int or None
    form_code : int
        The space that the affine refers to.
    """

    image: str
    grid: Grid
    count: int
    dtype: np.dtype[Any]
    slope: float
    inter: float
    offset: int
    slice_axis: int | None
    form_code: int


def read_header(path: Path, geometry: str | None = None) -> NiftiHeader:
    """Read the header of a NIfTI file; `geometry` as of `load`.

    Raises
    ------
    InvsrError
        As `load`.
    """
    from nibabel.openers import ImageOpener

    kind = _nifti_class(path)
    files = kind.filespec_to_file_map(path)
    image, head = files["image"].filename, files.get("header", files["image"]).filename
    with _reading(path), ImageOpener(head) as file:
        # Without the extensions that may follow, of up to 2 GB each.
        header = kind.header_class(file.read(kind.header_class.sizeof_hdr), check=False)
        shape, pixdim = header.get_data_shape(), header["pixdim"][1:4].copy()
    if int(header["intent_code"]) in CIFTI:
        raise InvsrError(
            f"{path}: is a CIFTI file (values on a surface and in structures), no volume: name a NIfTI scan"
        )
    if len(shape) < 3:
        raise InvsrError(f"{path}: is a {len(shape)}-D image of size {_by(shape)}: a volume needs three dimensions")
    if min(shape) < 1:
        raise InvsrError(f"{path}: the header gives the size {_by(shape)}, which holds no voxels: export it again")
    # Checked before nibabel's repairs, which turn a spacing of zero into 1 mm.
    if not (np.isfinite(pixdim).all() and pixdim.min() > 0):
        raise InvsrError(f"{path}: the header gives the spacing {_by(pixdim)}, not all above zero: repair its pixdim")
    with _reading(path):
        # What it repairs is not used here, or is warned of below; its default logger prints.
        header.check_fix(logging.Logger("silent", logging.CRITICAL + 1))
        affine, form_code = read_affine(header, path, geometry)
        dtype, (slope, inter) = header.get_data_dtype(), header.get_slope_inter()
        offset, slice_axis = header.get_data_offset(), header.get_dim_info()[2]
    if dtype.kind not in "iuf":
        what = "complex numbers: save their magnitude" if dtype.kind == "c" else "RGB colours: save one channel"
        raise InvsrError(f"{path}: holds {what} as a file of its own")
    try:
        grid = Grid(shape[:3], affine)
    except InvsrError as error:
        raise InvsrError(f"{path}: {error}") from None
    scaling = 1.0 if slope is None else slope, 0.0 if inter is None else inter
    return NiftiHeader(image, grid, math.prod(shape[3:]), dtype, *scaling, offset, slice_axis, form_code)


def save(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a float32 NIfTI-1 file (NIfTI-2 where a dimension exceeds 32767), whole or not at all.

    The path ends in .nii or .nii.gz; an existing file is replaced.

    Raises
    ------
    InvsrError
        As `whole_file`.
    """
    _write(volume.numpy(), volume.grid, path, volume.form_code, volume.slice_axis)


def save_complex(x: Tensor, grid: Grid, path: str | os.PathLike[str]) -> None:
    """Write a complex image, shape (1, 1, *grid.shape), as a complex64 NIfTI file; else as `save`."""
    _write(x[0, 0].to("cpu", torch.complex64).numpy(), grid, path)


def _write(
    data: npt.NDArray[Any], grid: Grid, path: str | os.PathLike[str], form_code: int = 1, slice_axis: int | None = None
) -> None:
    import nibabel

    kind: Any = nibabel.Nifti2Image if max(grid.shape) > LARGEST_NIFTI1 else nibabel.Nifti1Image
    with whole_file(path, OUTPUT_ENDINGS) as part:
        image = kind(data, grid.affine)
        image.set_qform(grid.affine, form_code)
        image.set_sform(grid.affine, form_code)
        image.header.set_xyzt_units("mm")
        if slice_axis is not None:
            image.header.set_dim_info(slice=slice_axis)
        image.to_filename(part)


def _voxels(path: Path, image: str, grid: Grid, dtype: np.dtype[Any], first: int, alone: bool) -> npt.NDArray[Any]:
    """The voxels of one volume as they are stored, from byte `first` on; `alone` where none follows it."""
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import array_from_file

    size = grid.size * dtype.itemsize
    mapped = Path(image).suffix.lower() in (".nii", ".img")
    with _reading(path):
        require_bytes(path, image, first + size)
        # Voxels of files that are not compressed stay on the disk.
        require_memory(path, f"{_by(grid.shape)} voxels", 4 * grid.size + (0 if mapped else size))
        with ImageOpener(image) as file:
            # Voxels lie in Fortran order, so that each volume of a series is one contiguous piece.
            raw = array_from_file(grid.shape, dtype, file.fobj, first)
            left = LARGEST_REST if alone and not mapped else 0
            while left > 0 and (rest := len(file.read(min(left, 2**20)))):
                left -= rest
            if alone and not mapped and left <= 0:
                warn(f"{path}: holds more than the {_by(grid.shape)} voxels of its header: the first ones are used")
    return np.asarray(raw)


def _nifti_class(path: Path) -> Any:
    """nibabel's class for this file, once it is known to be a NIfTI."""
    import nibabel
    from nibabel.openers import ImageOpener

    require_nifti_like(path, require_readable(path))
    with _reading(path), ImageOpener(str(path)) as file:
        file.read(1024)  # finds damage that nibabel's look at the header passes over
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair, nibabel.Nifti2Pair):
        if kind.path_maybe_image(path)[0]:
            return kind
    raise InvsrError(f"{path}: is not a NIfTI file (.nii, .nii.gz): convert it first (DICOM: dcm2niix)")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """One error for the dozen classes of them that damaged files raise from nibabel, gzip and numpy."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    library = (ImageFileError, HeaderDataError, WrapStructError, zlib.error, struct.error)
    general = (OSError, EOFError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError)
    try:
        with np.errstate(all="ignore"):
            yield
    except InvsrError:  # one of them already
        raise
    except FileNotFoundError as error:
        other = "" if error.filename in (None, str(path)) else f"{error.filename}: "
        reason = f"{other}{error.strerror}"
        raise InvsrError(f"{path}: cannot be opened ({reason}): check the path and permissions") from error
    except MemoryError as error:
        raise InvsrError(f"{path}: its voxels do not fit into memory: check the size in its header") from error
    except (*library, *general) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvsrError(f"{path}: is damaged or cut short ({reason}): copy or export it again") from error


def _float32(path: Path, raw: npt.NDArray[Any], slope: float, inter: float) -> npt.NDArray[np.float32]:
    """Scaled intensities, in blocks of slices so that float64 never holds the whole volume."""
    data = np.empty(raw.shape, np.float32)
    for stored, scaled in zip(blocks(raw), blocks(data), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled[...] = stored.astype(np.float64) * slope + inter
    replace_not_finite(path, data)
    return data


def _by(values: npt.ArrayLike) -> str:
    return "x".join(f"{v:g}" for v in np.ravel(values))
