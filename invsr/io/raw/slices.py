"""Where the lines of an ISMRMRD file say that their slices or slab lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.grid import Grid

Array = npt.NDArray[np.float64]

# ISMRMRD counts to the patient's left and posterior, affines to the right and anterior.
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Largest difference between direction cosines of two lines, of single precision and rounded by converters.
SAME_DIRECTION = 1e-3
# Distances between slices may differ by this share of their mean.
SAME_SPACING = 0.01
# A stack may lean by this share of a voxel, and the patient's position be corrected by this much during the scan, mm.
SAME_PLACE, MOVED = 0.05, 0.1


def slices_in_order(path: Path, lines: npt.NDArray[Any], placed: bool = False) -> npt.NDArray[np.int64]:
    """The numbers of the slices from the first to the last along their normal.

    Parameters
    ----------
    path : Path
    lines : structured ndarray
        Headers of the imaging lines.
    placed : bool
        Where slices lie is known otherwise: those whose lines have no directions are taken in the order of numbers.

    Raises
    ------
    InvsrError
        When lines have no directions, or slices are not parallel.
    """
    numbers = np.unique(lines["idx"]["slice"]).astype(np.int64)
    if len(numbers) == 1 or (placed and not lines["slice_dir"].any()):
        return numbers
    normal = _directions(path, lines)[:, 2]
    along = [_position(lines[lines["idx"]["slice"] == number])[0] @ normal for number in numbers]
    return np.asarray(numbers[np.argsort(along, kind="stable")])


def grid_of(
    path: Path,
    lines: npt.NDArray[Any],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    order: npt.NDArray[np.int64] | None,
) -> tuple[Grid, tuple[str, ...]]:
    """The grid of the image, and what was found doubtful.

    `position` is the middle of the field of view: of the slab, or of each slice. There lies voxel ``n // 2`` along
    each axis that was encoded.

    Parameters
    ----------
    path : Path
    lines : structured ndarray
        Headers of the imaging lines.
    shape : tuple of 3 int
    spacing : tuple of 3 float, mm
        Along slices, that of a single one: their thickness.
    order : ndarray of int or None
        Numbers of slices, in order; None for a slab.

    Raises
    ------
    InvsrError
        When lines have no directions, directions differ, or slices lie at the same place or unevenly.
    """
    directions = _directions(path, lines)
    groups = [lines] if order is None else [lines[lines["idx"]["slice"] == number] for number in order]
    found = [_position(group) for group in groups]
    positions, moved = np.array([one[0] for one in found]), max(one[1] for one in found)
    steps = np.array(spacing)
    if len(positions) > 1:
        steps[2] = _slice_spacing(path, positions, directions, steps)
    middle = np.array([shape[0] // 2, shape[1] // 2, shape[2] // 2 if order is None else 0])
    affine = np.eye(4)
    affine[:3, :3] = directions * steps
    affine[:3, 3] = positions[0] - affine[:3, :3] @ middle
    affine[:3] *= LPS_TO_RAS[:, None]
    note = f"the scanner moved the field of view by {moved:.1f} mm during the scan: its median position is used"
    return Grid(shape, affine + 0.0), (note,) if moved > MOVED else ()


def _directions(path: Path, lines: npt.NDArray[Any]) -> Array:
    """Unit vectors of readout, phase encoding and slice normal, one per column, in the patient's LPS."""
    all_of = np.stack([lines[name].astype(np.float64) for name in ("read_dir", "phase_dir", "slice_dir")], -1)
    directions = np.asarray(all_of[0])
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(all_of).all() or (np.abs(lengths - 1) > SAME_DIRECTION).any():
        raise InvsrError(
            f"{path}: its lines do not say which way they run (read_dir, phase_dir and slice_dir are no unit vectors): "
            "give the affine"
        )
    if np.abs(all_of - directions).max() > SAME_DIRECTION:
        raise InvsrError(f"{path}: its slices are not parallel: save those of each direction in a file of their own")
    return np.asarray(directions / lengths)


def _position(lines: npt.NDArray[Any]) -> tuple[Array, float]:
    """The median position of lines, and how far the furthest is from it, mm."""
    positions = lines["position"].astype(np.float64)
    middle = np.median(positions, axis=0)
    return middle, float(np.linalg.norm(positions - middle, axis=1).max())


def _slice_spacing(path: Path, positions: Array, directions: Array, spacing: Array) -> float:
    """Distance between the centres of neighbouring slices, mm."""
    offsets = (positions - positions[0]) @ directions
    distances = np.diff(offsets[:, 2])
    mean = float(distances.mean())
    if not np.isfinite(distances).all() or distances.min() <= SAME_SPACING * spacing[2]:
        raise InvsrError(f"{path}: two of its {len(positions)} slices lie at the same place: give the affine")
    if np.abs(distances - mean).max() > SAME_SPACING * mean:
        raise InvsrError(
            f"{path}: its slices are {distances.min():.4g} to {distances.max():.4g} mm apart, not evenly spaced: save "
            "those of each group in a file of their own, and export missing ones again"
        )
    if (np.abs(offsets[:, :2]).max(0) > SAME_PLACE * spacing[:2]).any():
        raise InvsrError(f"{path}: its slices are shifted against each other in their plane: give the affine of each")
    return mean
