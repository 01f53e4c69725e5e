"""BIDS sidecars: what the scanner says of its slices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import parse_json, read_text
from invsr.io.warn import warn

# Slice spacings in header and sidecar further apart than this share earn a warning.
SAME_SPACING = 0.01
# Slices thinner or thicker than these shares of their spacing are not believed: see `Scan`, too. Micrometres and metres
# are recognised where they give a thickness within the second range.
BELIEVED, USUAL = (0.02, 5.0), (0.2, 2.0)
AXES = {"i": 0, "j": 1, "k": 2}
ENCODINGS = ("i", "i-", "j", "j-", "k", "k-")
# The slice axis of header or sidecar is not believed where another axis has voxels so many times as long.
MOST_ANISOTROPIC = 3.0
# The file at the root of a BIDS dataset, which is at most so many folders above an image.
DESCRIPTION = "dataset_description.json"
DEEPEST = 6


@dataclass(frozen=True)
class SliceInfo:
    """What header and sidecar say of slices.

    Attributes
    ----------
    axis : int or None
        The array axis across them.
    thickness, spacing : float or None
        mm.
    times : tuple of float or None
        When each was acquired, s.
    """

    axis: int | None = None
    thickness: float | None = None
    spacing: float | None = None
    times: tuple[float, ...] | None = None


def read_slices(
    path: Path, grid: Grid, header_axis: int | None, header_thicknesses: npt.NDArray[np.float64] | None = None
) -> SliceInfo:
    """What the header's slice axis and the BIDS sidecar beside an image say of its slices.

    Parameters
    ----------
    path : Path
    grid : Grid
    header_axis : int or None
        The axis across slices by the header.
    header_thicknesses : array of shape (3,), optional
        The thickness along each axis by the header, mm; NaN where it has none. The sidecar's comes first.

    Raises
    ------
    InvsrError
        When the sidecar is not JSON.
    """
    entries = _entries(path)
    encoding = _direction(*entries.get("SliceEncodingDirection", (path, None)))
    axis = _slice_axis(path, grid, header_axis, AXES.get(encoding.rstrip("-")))
    across = grid.through_plane if axis is None else axis
    spacing = float(grid.spacing[across])
    sidecar, stated = _length(entries, "SpacingBetweenSlices")
    if stated is not None and abs(stated - spacing) > SAME_SPACING * spacing:
        warn(f"{sidecar}: SpacingBetweenSlices is {stated:g} mm but the affine's is {spacing:.4g} mm: affine used")
    thickness = _thickness(*_length(entries, "SliceThickness"), spacing)
    if thickness is None and header_thicknesses is not None and np.isfinite(header_thicknesses[across]):
        thickness = _thickness(path, float(header_thicknesses[across]), spacing)
    sidecar, times = entries.get("SliceTiming", (path, None))
    if times is not None and not (
        isinstance(times, list) and len(times) == grid.shape[across] and all(map(_is_number, times))
    ):
        warn(f"{sidecar}: SliceTiming is not one number for each of {grid.shape[across]} slices: ignored")
        times = None
    if times is not None and len(times) > 1 and min(times) == max(times):
        warn(f"{sidecar}: SliceTiming is {times[0]:g} for all slices, which tells no order: ignored")
        times = None
    if times is not None and encoding.endswith("-"):
        times = times[::-1]
    return SliceInfo(axis, thickness, stated, None if times is None else tuple(map(float, times)))


def inherited(path: Path, key: str) -> Any:
    """What the sidecars of an image say under a key; None where nothing.

    Raises
    ------
    InvsrError
        When a sidecar is not JSON.
    """
    return _entries(path).get(key, (path, None))[1]


def sidecar_of(path: Path) -> Path:
    """Where the BIDS sidecar of an image lies, if there is one: ``x.json`` beside ``x.nii.gz``."""
    stem = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    return path.with_name(stem).with_suffix(".json")


def sidecars_of(path: Path) -> list[Path]:
    """The BIDS sidecars that there are for an image, the one that comes first last.

    In a dataset (below a ``dataset_description.json``), sidecars in the folders above count as well if their name ends
    in the same suffix and has no entity that the image has not: BIDS's inheritance principle.
    """
    own = sidecar_of(path)
    *entities, suffix = own.stem.split("_")
    found = []
    for folder in _folders_of_dataset(path):
        for name in _sidecars_in(str(folder), folder.stat().st_mtime_ns):
            *others, ending = name.removesuffix(".json").split("_")
            if ending == suffix and set(others) <= set(entities) and folder / name != own.absolute():
                found.append(folder / name)
    return [*found, own] if os.path.isfile(own) else found  # `Path.is_file` raises where a name is too long


def _folders_of_dataset(path: Path) -> list[Path]:
    """From the root of the BIDS dataset down to the image's folder; none where there is no dataset."""
    folders = list(path.absolute().parents[:DEEPEST])
    for n, folder in enumerate(folders):
        if os.path.isfile(folder / DESCRIPTION):
            return folders[n::-1]
    return []


@lru_cache(maxsize=256)
def _sidecars_in(folder: str, _: int) -> tuple[str, ...]:
    """Names of the JSON files in a folder, those with fewer entities first; its time of change makes them new."""
    names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".json") and entry.name != DESCRIPTION]
    return tuple(sorted(names, key=lambda name: (name.count("_"), name)))


def _entries(path: Path) -> dict[str, tuple[Path, Any]]:
    """What the sidecars say, by key, and which of them says it."""
    found: dict[str, tuple[Path, Any]] = {}
    for sidecar in sidecars_of(path):
        try:
            entries = parse_json(read_text(sidecar))
        except (OSError, ValueError) as error:
            raise InvsrError(f"{sidecar}: cannot be read as JSON ({error}): repair it, or move it away") from error
        if isinstance(entries, dict):
            found |= {key: (sidecar, value) for key, value in entries.items()}
        else:
            warn(f"{sidecar}: is not a JSON object: ignored")
    return found


def _slice_axis(path: Path, grid: Grid, header: int | None, sidecar: int | None) -> int | None:
    """The axis across the slices as stated; None where nothing is, or what is cannot be."""
    if header is not None and sidecar is not None and header != sidecar:
        warn(f"{path}: header and sidecar name slice axes {'ijk'[header]} and {'ijk'[sidecar]}: the header's is used")
    stated = sidecar if header is None else header
    longest = grid.through_plane
    if stated is None or grid.spacing[stated] > 0.99 * grid.spacing[longest]:
        return stated
    said = f"{path}: slices are stacked along {'ijk'[stated]} by the header, but voxels are longest along "
    said += f"{'ijk'[longest]} ({grid.spacing[longest]:.4g} against {grid.spacing[stated]:.4g} mm)"
    if grid.spacing[longest] > MOST_ANISOTROPIC * grid.spacing[stated]:
        warn(f"{said}: {'ijk'[longest]} is taken; --slice-axis decides")
        return None
    warn(f"{said}: {'ijk'[stated]} is taken; --slice-axis decides")
    return stated


def _direction(sidecar: Path, value: Any) -> str:
    """The axis across the slices, with "-" where they are counted from its end; empty where nothing is stated."""
    if value is None or value in ENCODINGS:
        return str(value or "")
    warn(f"{sidecar}: SliceEncodingDirection is {value!r}, none of {', '.join(ENCODINGS)}: ignored")
    return ""


def _length(entries: dict[str, tuple[Path, Any]], key: str) -> tuple[Path, float | None]:
    """The sidecar that gives a length, and the length, or None."""
    sidecar, value = entries.get(key, (Path(), None))
    if value is None:
        return sidecar, None
    if not (_is_number(value) and value > 0):
        warn(f"{sidecar}: {key} is {value!r}, not a length in mm above zero: ignored")
        return sidecar, None
    return sidecar, float(value)


def _thickness(sidecar: Path, value: float | None, spacing: float) -> float | None:
    """The slice thickness, its unit mended, or None, with a word said, where it cannot be one."""
    if value is None or BELIEVED[0] <= value / spacing <= BELIEVED[1]:
        return value
    for unit, name in ((1e-3, "micrometres"), (1e3, "metres")):
        if USUAL[0] <= value * unit / spacing <= USUAL[1]:
            warn(f"{sidecar}: SliceThickness is {value:g}, for slices {spacing:.4g} mm apart: taken as {name}")
            return value * unit
    warn(
        f"{sidecar}: SliceThickness is {value:g} mm, but slices are {spacing:.4g} mm apart: ignored, the spacing is "
        "taken for the thickness; --slice-thickness decides"
    )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
