"""BIDS sidecars: what the scanner says of its slices."""

from __future__ import annotations

import os
from dataclasses import dataclass
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
# The slice axis of header or sidecar is not believed where another axis has voxels so many times as long.
MOST_ANISOTROPIC = 3.0


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
    sidecar, entries = _entries(path)
    encoding = str(entries.get("SliceEncodingDirection", ""))
    axis = _slice_axis(path, grid, header_axis, AXES.get(encoding.rstrip("-")))
    across = grid.through_plane if axis is None else axis
    spacing = float(grid.spacing[across])
    stated = _length(sidecar, entries, "SpacingBetweenSlices")
    if stated is not None and abs(stated - spacing) > SAME_SPACING * spacing:
        warn(f"{sidecar}: SpacingBetweenSlices is {stated:g} mm but the affine's is {spacing:.4g} mm: affine used")
    thickness = _thickness(sidecar, _length(sidecar, entries, "SliceThickness"), spacing)
    if thickness is None and header_thicknesses is not None and np.isfinite(header_thicknesses[across]):
        thickness = _thickness(path, float(header_thicknesses[across]), spacing)
    times = entries.get("SliceTiming")
    if times is not None and not (
        isinstance(times, list) and len(times) == grid.shape[across] and all(map(_is_number, times))
    ):
        warn(f"{sidecar}: SliceTiming is not one number for each of {grid.shape[across]} slices: ignored")
        times = None
    if times is not None and encoding.endswith("-"):
        times = times[::-1]
    return SliceInfo(axis, thickness, stated, None if times is None else tuple(map(float, times)))


def sidecar_of(path: Path) -> Path:
    """Where the BIDS sidecar of an image lies, if there is one: ``x.json`` beside ``x.nii.gz``."""
    stem = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    return path.with_name(stem).with_suffix(".json")


def _entries(path: Path) -> tuple[Path, dict[str, Any]]:
    """Path and entries of the sidecar; none where there is no file."""
    sidecar = sidecar_of(path)
    if not os.path.isfile(sidecar):  # `Path.is_file` raises where a name is too long
        return sidecar, {}
    try:
        entries = parse_json(read_text(sidecar))
    except (OSError, ValueError) as error:
        raise InvsrError(f"{sidecar}: cannot be read as JSON ({error}): repair it, or move it away") from error
    if not isinstance(entries, dict):
        warn(f"{sidecar}: is not a JSON object: ignored")
        return sidecar, {}
    return sidecar, entries


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


def _length(sidecar: Path, entries: dict[str, Any], key: str) -> float | None:
    value = entries.get(key)
    if value is None:
        return None
    if not (_is_number(value) and value > 0):
        warn(f"{sidecar}: {key} is {value!r}, not a length in mm above zero: ignored")
        return None
    return float(value)


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
