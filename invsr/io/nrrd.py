"""NRRD volumes, .nrrd and .nhdr, as 3D Slicer writes them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import DEFLATE, require_memory
from invsr.io.formats import require_readable
from invsr.io.geometry import question_size
from invsr.io.intensities import replace_not_finite
from invsr.io.sidecars import read_slices
from invsr.io.warn import warn
from invsr.volume import Volume

Array = npt.NDArray[np.float64]

ENDINGS = (".nrrd", ".nhdr")
# Signs that turn each space of a patient into right, anterior, superior.
SPACES = {
    ("ras", "right-anterior-superior"): (1, 1, 1),
    ("las", "left-anterior-superior"): (-1, 1, 1),
    ("lps", "left-posterior-superior"): (-1, -1, 1),
}
# Millimetres per unit; without a unit they are mm.
UNITS = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "m": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3}
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
GZIP, RAW = ("gzip", "gz"), ("raw",)
# The kinds of axes along which voxels lie in space.
SPATIAL = ("domain", "space", "???", "none")
# The fields that hold a value for each axis.
PER_AXIS = ("sizes", "kinds", "space directions", "spacings", "thicknesses", "units")
# No header is longer: bytes.
LONGEST_HEADER = 2**20
# MiB after the voxels up to which the end of a gzip stream is looked for.
LARGEST_REST = 64


def read_nrrd(path: Path, index: int | None) -> Volume:
    """A volume from an NRRD file; see `invsr.load`, which turns what damaged files raise into one error.

    Raises
    ------
    InvsrError
        When the file holds no single scalar volume, does not say how large its voxels are, or is encoded otherwise than
        raw or by gzip.

    References
    ----------
    Kindlmann, Definition of the NRRD file format (teem.sourceforge.net/nrrd/format.html).
    """
    with open(path, "rb") as file:
        header = _without_single(_header(path, file))
        _require_volume(path, header)
        if index not in (None, 0):
            raise InvsrError(f"{path}: has no volume {index}: it holds 1, counted from 0")
        try:
            grid = Grid(tuple(int(n) for n in header["sizes"]), _affine(path, header))
        except InvsrError as error:
            raise InvsrError(str(error) if str(error).startswith(f"{path}: ") else f"{path}: {error}") from None
        voxels = _voxels(path, file, header, grid)
    replace_not_finite(path, voxels)
    question_size(grid, path)
    thicknesses = _thicknesses(path, header)
    stated = np.flatnonzero(np.isfinite(thicknesses))
    slices = read_slices(path, grid, int(stated[0]) if len(stated) == 1 else None, thicknesses)
    return Volume(
        torch.from_numpy(voxels)[None, None],
        grid,
        path.name,
        slice_thickness=slices.thickness,
        slice_spacing=slices.spacing,
        slice_times=slices.times,
        slice_axis=slices.axis,
    )


def _header(path: Path, file: IO[bytes]) -> dict[str, Any]:
    """The fields of the header; the file stands behind it afterwards."""
    import nrrd

    lines = []
    while line := file.readline(LONGEST_HEADER):
        # pynrrd would leave out the letters that are not ASCII, and read micrometres as metres.
        lines.append(line.decode("utf-8", errors="replace"))
        if not line.strip() or file.tell() > LONGEST_HEADER:
            break
        if line.lower().replace(b" ", b"").startswith(b"datafile:list"):
            raise InvsrError(f"{path}: its voxels lie in several files: save them in one")
    if not lines[0].startswith("NRRD"):
        raise InvsrError(f"{path}: is not an NRRD file, which begins with NRRD: export it again")
    try:
        header = dict(nrrd.read_header(lines))
    except nrrd.NRRDError as error:
        raise InvsrError(f"{path}: its header is damaged ({error}): export it again") from error
    missing = [field for field in ("dimension", "type", "encoding", "sizes") if field not in header]
    if missing:
        raise InvsrError(f"{path}: its header is damaged (no {', '.join(missing)}): export it again")
    return header


def _without_single(header: dict[str, Any]) -> dict[str, Any]:
    """Without the axes that do not lie in space, where these hold one volume: a list of one, a component, a time."""
    sizes, directions = header["sizes"], header.get("space directions")
    space = np.arange(len(sizes)) < 3
    if directions is not None and len(directions) == len(sizes):
        space = np.array([row is not None and bool(np.isfinite(np.asarray(row, float)).all()) for row in directions])
    if len(sizes) <= 3 or space.sum() != 3 or any(n != 1 for n in sizes[~space]):
        return header
    each = [name for name in PER_AXIS if len(header.get(name, ())) == len(sizes)]
    return header | {"dimension": 3} | {name: [header[name][n] for n in np.flatnonzero(space)] for name in each}


def _require_volume(path: Path, header: dict[str, Any]) -> None:
    sizes, kinds = header["sizes"], [kind.lower() for kind in header.get("kinds", [])]
    if header["dimension"] != 3 or len(sizes) != 3 or any(kind not in SPATIAL for kind in kinds):
        what = f"{_by(sizes)} ({', '.join(kinds)})" if kinds else _by(sizes)
        raise InvsrError(f"{path}: is of {what}, no single volume of scalars: save one volume of it as a 3-D file")
    if min(sizes) < 1:
        raise InvsrError(f"{path}: the header gives the size {_by(sizes)}, which holds no voxels: export it again")


def _affine(path: Path, header: dict[str, Any]) -> Array:
    """From voxel indices to right, anterior, superior, mm."""
    directions = header.get("space directions")
    if directions is None:
        spacings = np.asarray(header.get("spacings", [np.nan]), float)
        if spacings.shape != (3,) or not np.isfinite(spacings).all():
            raise InvsrError(f"{path}: the header has neither space directions nor spacings: export it with them")
        warn(f"{path}: the header does not say how the patient lies: voxels assumed to run from right to left")
        return np.diag([*(spacings * _units(path, header, "units") * [-1, 1, 1]), 1])
    space = str(header.get("space", "")).lower()
    signs = next((signs for names, signs in SPACES.items() if space in names), None)
    if signs is None:
        said = f"its space is {space!r}" if space else "it names no space"
        raise InvsrError(f"{path}: {said}, which does not say how the patient lies: save it in the space LPS or RAS")
    origin = header.get("space origin")
    if origin is None:
        warn(f"{path}: the header has no space origin: the first voxel is taken to lie at 0")
        origin = np.zeros(3)
    affine = np.eye(4)
    # One row for each axis of the array in the header, one column in an affine.
    affine[:3, :3], affine[:3, 3] = np.asarray(directions, float).reshape(3, 3).T, np.asarray(origin, float)
    affine[:3] *= (np.array(signs) * _units(path, header, "space units"))[:, None]
    return affine + 0.0  # no negative zeros


def _thicknesses(path: Path, header: dict[str, Any]) -> Array:
    """Along each axis, mm; NaN where the header says nothing."""
    thicknesses = np.asarray(header.get("thicknesses", [np.nan] * 3), float)
    if thicknesses.shape != (3,) or (thicknesses <= 0).any():
        warn(f"{path}: thicknesses are {_by(thicknesses)}, not a length above zero for each axis: ignored")
        return np.full(3, np.nan)
    field = "units" if "units" in header else "space units"
    return thicknesses * _units(path, header, field)


def _units(path: Path, header: dict[str, Any], field: str) -> Array:
    """Millimetres per unit of each axis."""
    names = [str(name).strip().lower() for name in header.get(field, ["mm"] * 3)]
    unknown = [name for name in names if name not in UNITS]
    if unknown or len(names) != 3:
        raise InvsrError(
            f"{path}: {field} are {', '.join(names)}: known for three axes are mm, cm, m and um: repair them"
        )
    return np.array([UNITS[name] for name in names])


def _voxels(path: Path, file: IO[bytes], header: dict[str, Any], grid: Grid) -> npt.NDArray[np.float32]:
    """Intensities, from the file of the header or the one it names; memory is taken only for what a file can hold."""
    encoding = str(header["encoding"]).lower()
    if encoding not in GZIP + RAW:
        raise InvsrError(f"{path}: is encoded by {encoding}: save it raw or by gzip")
    dtype = _dtype(path, header)
    lines, skip = (int(header.get(f"{unit} skip", header.get(f"{unit}skip", 0))) for unit in ("line", "byte"))
    needed = grid.size * dtype.itemsize
    name = header.get("data file", header.get("datafile"))
    source = path if name is None else path.parent / str(name)
    if name is not None:
        if "%" in str(name):
            raise InvsrError(f"{path}: its voxels lie in several files: save them in one")
        require_readable(source)
    if lines < 0 or skip < -1 or (skip == -1 and encoding in GZIP):
        raise InvsrError(f"{path}: skips {lines} lines and {skip} bytes of its voxels: export it again")
    held = os.path.getsize(source)
    if needed > held * (DEFLATE if encoding in GZIP else 1):
        raise _cut(path, needed, held)
    require_memory(path, f"{_by(grid.shape)} voxels", 4 * grid.size + needed)
    with open(source, "rb") as other:
        if name is None:
            other.seek(file.tell())
        for _ in range(lines):
            if not other.readline():
                break
        if skip == -1:
            other.seek(-needed, os.SEEK_END)
        if encoding in GZIP:
            with gzip.GzipFile(fileobj=other) as stream:
                stream.seek(skip)
                raw = stream.read(needed)
                # Only the end of the stream holds the checksum.
                if all(stream.read(2**20) for _ in range(LARGEST_REST)):
                    warn(f"{path}: holds more than the {_by(grid.shape)} voxels of its header: the first ones are used")
        else:
            other.seek(max(skip, 0), os.SEEK_CUR)
            raw = other.read(needed)
    if len(raw) < needed:
        raise _cut(path, needed, len(raw))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.frombuffer(raw, dtype).reshape(grid.shape, order="F"), dtype=np.float32)


def _dtype(path: Path, header: dict[str, Any]) -> np.dtype[Any]:
    code = next((code for code, names in TYPES.items() if str(header["type"]).lower() in names), None)
    if code is None:
        raise InvsrError(f"{path}: holds voxels of type {header['type']}: save them as numbers (short, float)")
    order = {"little": "<", "big": ">"}.get(str(header.get("endian", "little" if code[1] == "1" else "")).lower())
    if order is None:
        raise InvsrError(f"{path}: its header is damaged (no endian): export it again")
    return np.dtype(order + code)


def _cut(path: Path, needed: int, held: int) -> InvsrError:
    return InvsrError(
        f"{path}: is damaged or cut short (the header is of {needed} bytes, the file holds {held}): copy or export it "
        "again"
    )


def _by(values: npt.ArrayLike) -> str:
    return "x".join(f"{v:g}" for v in np.ravel(values))
