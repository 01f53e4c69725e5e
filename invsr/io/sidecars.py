"""BIDS sidecars: what the scanner says of its slices."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid

# Slice spacings in header and sidecar further apart than this share earn a warning.
SAME_SPACING = 0.01


def read_sidecar(
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
        warn(f"{sidecar}: is not a JSON object: ignored")
        return None, None, None
    values = []
    for key in ("SliceThickness", "SpacingBetweenSlices"):
        value = entries.get(key)
        if value is not None and not (_is_number(value) and value > 0):
            warn(f"{sidecar}: {key} is {value!r}, not a length in mm above zero: ignored")
            value = None
        values.append(None if value is None else float(value))
    axis = grid.through_plane if slice_axis is None else slice_axis
    spacing = float(grid.spacing[axis])
    if values[1] is not None and abs(values[1] - spacing) > SAME_SPACING * spacing:
        warn(f"{sidecar}: SpacingBetweenSlices is {values[1]:g} mm but the affine's is {spacing:.4g} mm: affine used")
    times = entries.get("SliceTiming")
    if times is not None and not (
        isinstance(times, list) and len(times) == grid.shape[axis] and all(map(_is_number, times))
    ):
        warn(f"{sidecar}: SliceTiming is not one number for each of {grid.shape[axis]} slices: ignored")
        times = None
    if times is not None and str(entries.get("SliceEncodingDirection", "")).endswith("-"):
        times = times[::-1]
    return values[0], values[1], None if times is None else tuple(map(float, times))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def warn(message: str) -> None:
    """Warn about the file that the caller reads."""
    warnings.warn(message, InvsrWarning, stacklevel=3)
