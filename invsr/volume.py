"""A scan: its voxels as a tensor, where they lie, and the way in from and out to NIfTI files."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import secrets
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid

# nibabel is imported inside the functions, so that `import invsr` costs no more than torch does.

# Millimetres per unit by NIfTI's code for metre and micron; mm and "unknown" are taken as they are.
UNITS = {1: 1e3, 3: 1e-3}
# Slice spacings in header and sidecar further apart than this share earn a warning.
SAME_SPACING = 0.01
# The dimensions of a NIfTI-1 header are 16-bit integers.
LARGEST_NIFTI1 = 32767
# Voxels converted at once while reading: bounds the float64 copy to 32 MB.
BLOCK = 2**22
OUTPUT_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image in world space.

    Parameters
    ----------
    data : Tensor, shape (1, 1, *grid.shape)
        Real intensities; kept as float32.
    grid : Grid
    name : str
        What messages call it: the file's name.
    slice_thickness, slice_spacing : float, optional
        Thickness of the slices and distance of their centres as the scanner reports them, mm.
    form_code : int
        NIfTI's code for the space the affine leads to (1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    slice_times : tuple of float, optional
        When each slice was acquired, seconds.

    Raises
    ------
    InvsrError
        When the data do not fit the grid or are complex.

    Examples
    --------
    >>> import numpy as np, torch
    >>> volume = Volume(torch.zeros(1, 1, 4, 5, 2), Grid((4, 5, 2), np.diag([1, 1, 5, 1])))
    >>> volume.with_data(volume.data + 1).numpy().sum()
    np.float32(40.0)
    """

    data: Tensor
    grid: Grid
    name: str = "volume"
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    form_code: int = 1
    slice_times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != (1, 1, *self.grid.shape):
            shape = tuple(self.data.shape)
            raise InvsrError(f"{self.name}: data of shape {shape} do not fit {self.grid}: use (1, 1, *grid.shape)")
        if self.data.is_complex():
            raise InvsrError(f"{self.name}: complex data: take the magnitude or one part first")
        object.__setattr__(self, "data", self.data.float())

    def to(self, device: torch.device | str) -> Volume:
        """The same volume with its data on `device`."""
        return dataclasses.replace(self, data=self.data.to(device))

    def with_data(self, data: Tensor, grid: Grid | None = None) -> Volume:
        """The same volume with other data; on another grid the slices of the scan no longer exist."""
        if grid is None:
            return dataclasses.replace(self, data=data)
        return dataclasses.replace(
            self, data=data, grid=grid, slice_thickness=None, slice_spacing=None, slice_times=None
        )  # fmt: skip

    def numpy(self) -> npt.NDArray[np.float32]:
        """The data as an array of shape (i, j, k), on the CPU."""
        return np.asarray(self.data.detach().cpu().numpy()[0, 0])


def load(path: str | os.PathLike[str], index: int | None = None) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file: .nii, .nii.gz, or a .hdr/.img pair.

    The affine is the sform, else the qform, in millimetres. Intensities are scaled by the header's slope and
    intercept. NaN and infinite voxels become 0, with a warning. `SliceThickness`, `SpacingBetweenSlices` and
    `SliceTiming` come from a BIDS sidecar (``x.json`` beside ``x.nii.gz``) where there is one.

    Parameters
    ----------
    path : str or path
    index : int, optional
        Which volume of a file that holds several, counted from 0.

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
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import array_from_file

    path = Path(path)
    kind = _nifti_class(path)
    files = kind.filespec_to_file_map(path)
    image, head = files["image"].filename, files.get("header", files["image"]).filename
    with _reading(path), ImageOpener(head) as file:
        header = kind.header_class.from_fileobj(file, check=False)
        shape, pixdim = header.get_data_shape(), header["pixdim"][1:4].copy()
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
        affine, dtype = np.array(header.get_best_affine(), dtype=np.float64), header.get_data_dtype()
        slope, inter = header.get_slope_inter()
        offset, slice_axis = header.get_data_offset(), header.get_dim_info()[2]
        form_code = int(header["sform_code"]) or int(header["qform_code"])
        affine[:3] *= UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    if dtype.kind not in "iuf":
        what = "complex numbers: save their magnitude" if dtype.kind == "c" else "RGB colours: save one channel"
        raise InvsrError(f"{path}: holds {what} as a file of its own")
    try:
        grid = Grid(shape[:3], affine)
    except InvsrError as error:
        raise InvsrError(f"{path}: {error}") from None
    if not form_code:
        _warn(f"{path}: the header has neither sform nor qform: voxels assumed to run from right to left")
    count = math.prod(shape[3:])
    if index is None and count > 1:
        raise InvsrError(f"{path}: holds {count} volumes: choose one from 0 with index= (command line: --volume N)")
    if index is not None and not 0 <= index < count:
        raise InvsrError(f"{path}: has no volume {index}: it holds {count}, counted from 0")
    with _reading(path), ImageOpener(image) as file:
        # Voxels lie in Fortran order, so that each volume of a series is one contiguous piece.
        raw = array_from_file(grid.shape, dtype, file.fobj, offset + (index or 0) * grid.size * dtype.itemsize)
        while count == 1 and str(image).lower().endswith(".gz") and file.read(2**20):
            pass  # only the end of the stream holds the checksum
    data = _float32(path, raw, 1.0 if slope is None else slope, 0.0 if inter is None else inter)
    thickness, spacing, times = _sidecar(path, grid, slice_axis)
    return Volume(torch.from_numpy(data)[None, None], grid, path.name, thickness, spacing, form_code or 1, times)


def require_signal(volume: Volume) -> None:
    """Raise unless the intensities are finite and differ somewhere; masks and phantoms need not pass, scans must."""
    low, high = volume.data.aminmax()  # NaN where any voxel is
    if not bool(low.isfinite() & high.isfinite()):
        count = int((~volume.data.isfinite()).sum())
        raise InvsrError(f"{volume.name}: {count} of its voxels are NaN or infinite: replace them")
    if bool(low == high):
        raise InvsrError(f"{volume.name}: every voxel is {float(low):g}: there is nothing to reconstruct from it")


def save(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a float32 NIfTI-1 file (NIfTI-2 where a dimension exceeds 32767), whole or not at all.

    The path ends in .nii or .nii.gz; an existing file is replaced.

    Raises
    ------
    InvsrError
        As `check_writable`, and when the disk is full. Nothing is left behind then, and an older file stays.
    """
    import nibabel

    temporary = _create_beside(path)
    try:
        kind: Any = nibabel.Nifti2Image if max(volume.grid.shape) > LARGEST_NIFTI1 else nibabel.Nifti1Image
        image = kind(volume.numpy(), volume.grid.affine)
        image.set_qform(volume.grid.affine, volume.form_code)
        image.set_sform(volume.grid.affine, volume.form_code)
        image.header.set_xyzt_units("mm")
        image.to_filename(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file)  # network disks report that they are full only here
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InvsrError(f"{path}: could not be written ({reason}): free some space or change the folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> None:
    """Raise unless a file could be written here: worth knowing before a long computation. Leaves nothing behind.

    Raises
    ------
    InvsrError
        When the name has none of the endings, the folder is missing or not writable, or the path is taken by
        something other than a writable file.
    """
    _create_beside(path, endings).unlink()


def _create_beside(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> Path:
    """An empty new file in the folder of `path`, with its ending."""
    path = Path(path)
    ending = next((e for e in endings if path.name.lower().endswith(e)), None)
    if ending is None:
        raise InvsrError(f"{path}: an output file must end in {' or '.join(reversed(endings))}: rename it")
    temporary = path.parent / f".invsr-{secrets.token_hex(8)}{ending}"
    try:
        if not path.parent.is_dir():
            raise InvsrError(f"{path}: the folder {path.parent} does not exist: create it first")
        if path.exists() and not path.is_file():
            raise InvsrError(f"{path}: is not a regular file: choose another name for the output")
        if path.exists() and not os.access(path, os.W_OK):
            raise InvsrError(f"{path}: exists and is write-protected: choose another name for the output")
        # Not by `tempfile`, whose files are private to their owner: this one is to become the output.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        reason = error.strerror or error
        raise InvsrError(f"{path}: the folder is not writable ({reason}): choose another folder") from error
    return temporary


def _nifti_class(path: Path) -> Any:
    """nibabel's class for this file, once it is known to be a NIfTI."""
    import nibabel
    from nibabel.openers import ImageOpener

    if path.is_dir():
        raise InvsrError(f"{path}: is a folder: name one NIfTI file (dcm2niix converts DICOM folders)")
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InvsrError(f"{path}: cannot be opened ({error.strerror}): check the path and permissions") from error
    if not start:
        raise InvsrError(f"{path}: is empty (0 bytes): copy or export it again")
    compressed = start == b"\x1f\x8b"
    if compressed != (path.suffix.lower() == ".gz"):
        what = "is gzip-compressed but its name does not end" if compressed else "is not gzip-compressed but named"
        raise InvsrError(f"{path}: {what} in .gz: rename it if it is a NIfTI file, else export it again")
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
    except MemoryError as error:
        raise InvsrError(f"{path}: its voxels do not fit into memory: check the size in its header") from error
    except (*library, *general) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvsrError(f"{path}: is damaged or cut short ({reason}): copy or export it again") from error


def _float32(path: Path, raw: npt.NDArray[Any], slope: float, inter: float) -> npt.NDArray[np.float32]:
    """Scaled intensities, in blocks of slices so that float64 never holds the whole volume."""
    data = np.empty(raw.shape, np.float32)
    nan = infinite = 0
    step = max(1, BLOCK // (raw.shape[0] * raw.shape[1]))
    for k in range(0, raw.shape[2], step):
        with np.errstate(over="ignore", invalid="ignore"):
            block = (raw[..., k : k + step].astype(np.float64) * slope + inter).astype(np.float32)
        nan += int(np.isnan(block).sum())
        infinite += int(np.isinf(block).sum())
        data[..., k : k + step] = np.nan_to_num(block, copy=False, nan=0, posinf=0, neginf=0)
    if nan + infinite == data.size:
        raise InvsrError(f"{path}: none of its {data.size} voxels is a finite number: export it again")
    if nan + infinite:
        _warn(f"{path}: {nan} NaN and {infinite} infinite of {data.size} voxels replaced by 0")
    return data


def _sidecar(
    path: Path, grid: Grid, slice_axis: int | None
) -> tuple[float | None, float | None, tuple[float, ...] | None]:
    """Slice thickness and spacing, mm, and times, s, from the BIDS sidecar, each None where it does not tell."""
    stem = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    sidecar = path.with_name(stem).with_suffix(".json")
    if not sidecar.is_file():
        return None, None, None
    try:
        entries = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvsrError(f"{sidecar}: cannot be read as JSON ({error}): repair it, or move it away") from error
    if not isinstance(entries, dict):
        _warn(f"{sidecar}: is not a JSON object: ignored")
        return None, None, None
    values = []
    for key in ("SliceThickness", "SpacingBetweenSlices"):
        value = entries.get(key)
        if value is not None and not (_is_number(value) and value > 0):
            _warn(f"{sidecar}: {key} is {value!r}, not a length in mm above zero: ignored")
            value = None
        values.append(None if value is None else float(value))
    axis = grid.through_plane if slice_axis is None else slice_axis
    spacing = float(grid.spacing[axis])
    if values[1] is not None and abs(values[1] - spacing) > SAME_SPACING * spacing:
        _warn(f"{sidecar}: SpacingBetweenSlices is {values[1]:g} mm but the affine's is {spacing:.4g} mm: affine used")
    times = entries.get("SliceTiming")
    if times is not None and not (
        isinstance(times, list) and len(times) == grid.shape[axis] and all(map(_is_number, times))
    ):
        _warn(f"{sidecar}: SliceTiming is not one number for each of {grid.shape[axis]} slices: ignored")
        times = None
    if times is not None and str(entries.get("SliceEncodingDirection", "")).endswith("-"):
        times = times[::-1]
    return values[0], values[1], None if times is None else tuple(map(float, times))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _by(values: npt.ArrayLike) -> str:
    return "x".join(f"{v:g}" for v in np.ravel(values))


def _warn(message: str) -> None:
    warnings.warn(message, InvsrWarning, stacklevel=3)
