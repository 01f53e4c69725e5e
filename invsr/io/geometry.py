"""Where a NIfTI header says that voxels lie: sform, qform and pixdim, compared where they repeat each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.warn import warn

Array = npt.NDArray[np.float64]

GEOMETRIES = ("sform", "qform", "pixdim")
# Millimetres per unit by NIfTI's code for metre and micron; mm and "unknown" are taken as they are.
UNITS = {1: 1e3, 3: 1e-3}
# Spacings further apart than this share, and directions by more than this angle (degrees), contradict each other.
SAME_SPACING, SAME_DIRECTION = 0.01, 1.0
# So do first voxels further apart than this share of a voxel's shortest edge: half a voxel, as conventions differ by,
# is beyond it, and offsets rounded to 0.1 mm are not. Rounded directions leave the first voxel where it is.
SAME_POSITION = 0.25
# Voxels below, and fields of view above, are questioned: mm.
SMALLEST_VOXEL, LARGEST_VIEW = 0.05, 1000.0
# Beyond a nanometre and a kilometre they are refused: mm.
IMPOSSIBLE_VOXEL, IMPOSSIBLE_VIEW = 1e-6, 1e6


def read_affine(header: Any, path: Path, geometry: str | None = None) -> tuple[Array, int]:
    """The affine in mm and the NIfTI code of the space that it leads to.

    By default the sform, else the qform, else voxel sizes alone. Whatever contradicts it earns a warning.

    Parameters
    ----------
    header : nibabel header
    path : Path
        For messages.
    geometry : {"sform", "qform", "pixdim"}, optional
        Which one to use.

    Raises
    ------
    InvsrError
        When the geometry is unknown, or the header does not have it.
    """
    if geometry is not None and geometry not in GEOMETRIES:
        raise InvsrError(f"unknown geometry {geometry!r}: use one of {', '.join(GEOMETRIES)}")
    unit = UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    codes = {"sform": int(header["sform_code"]), "qform": int(header["qform_code"])}
    get = {"sform": header.get_sform, "qform": header.get_qform}
    found = {name: _scaled(get[name](), unit) for name, code in codes.items() if code > 0}
    base = _scaled(header.get_base_affine(), unit)
    if geometry in codes:
        if geometry not in found:
            raise InvsrError(f"{path}: the header has no {geometry} (code 0): leave --geometry out, or use another one")
        return found[geometry], codes[geometry]
    if geometry == "pixdim":
        return base, 1
    if not found:
        warn(f"{path}: the header has neither sform nor qform: voxels assumed to run from right to left")
        return base, 1
    used = "sform" if "sform" in found else "qform"
    affine = found[used]
    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0:  # `Grid` refuses the others
        _compare(path, used, found, codes, base)
    return affine, codes[used]


def question_size(grid: Grid, path: Path) -> None:
    """Warn of voxels of microns and fields of view of metres: units in the header may be wrong.

    Raises
    ------
    InvsrError
        Where no scan can be so small, so large or so far away.
    """
    spacing, extent = grid.spacing, grid.extent
    furthest = float(np.abs(grid.affine[:3, 3]).max())
    if spacing.min() < IMPOSSIBLE_VOXEL or max(extent.max(), furthest) > IMPOSSIBLE_VIEW:
        raise InvsrError(
            f"{path}: the header gives voxels of {_by(spacing)} mm and the origin {_by(grid.affine[:3, 3])} mm, which "
            "no scan has: repair its affine, or use another one by --geometry"
        )
    if spacing.min() < SMALLEST_VOXEL:
        warn(f"{path}: voxels of {_by(spacing)} mm: are the header's units right?")
    if extent.max() > LARGEST_VIEW:
        warn(f"{path}: a field of view of {_by(extent)} mm: are the header's spacing and units right?")


def _compare(path: Path, used: str, found: dict[str, Array], codes: dict[str, int], base: Array) -> None:
    affine = found[used]
    spacing = {name: np.linalg.norm(one[:3, :3], axis=0) for name, one in (found | {"pixdim": base}).items()}
    others = [name for name in spacing if name != used and not _close(spacing[name], spacing[used])]
    if others:
        said = ", ".join(f"{name} {_by(spacing[name])}" for name in others)
        warn(
            f"{path}: the {used} gives voxels of {_by(spacing[used])} mm, but {said}: the {used} is used; "
            "--geometry decides"
        )
    other = found.get("qform") if used == "sform" else None
    if other is None:
        return
    if np.linalg.det(affine[:3, :3]) * np.linalg.det(other[:3, :3]) < 0:
        warn(f"{path}: sform and qform differ in handedness: the sform is used; --geometry decides")
    elif codes["sform"] == codes["qform"]:
        _compare_placement(path, affine, other)


def _compare_placement(path: Path, sform: Array, qform: Array) -> None:
    """Warn where two affines of one space are turned or moved against each other."""
    apart = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
    if _angle(sform, qform) > SAME_DIRECTION:
        warn(
            f"{path}: sform and qform, of one space, are {_angle(sform, qform):.1f} degrees apart: the sform is used; "
            "--geometry decides"
        )
    elif apart > SAME_POSITION * np.linalg.norm(sform[:3, :3], axis=0).min():
        warn(
            f"{path}: sform and qform, of one space, are {apart:.4g} mm apart, with the first voxel at "
            f"{_by(sform[:3, 3])} and {_by(qform[:3, 3])} mm: the sform is used; --geometry decides"
        )


def _scaled(affine: Any, unit: float) -> Array:
    matrix = np.array(affine, dtype=np.float64)
    matrix[:3] *= unit
    return matrix


def _close(a: Array, b: Array) -> bool:
    return bool((np.abs(a - b) <= SAME_SPACING * np.maximum(a, b)).all())


def _angle(a: Array, b: Array) -> float:
    """Largest angle between the voxel axes of two affines, degrees."""
    first, second = (one[:3, :3] / np.linalg.norm(one[:3, :3], axis=0) for one in (a, b))
    return float(np.degrees(np.arccos(np.clip((first * second).sum(0), -1, 1))).max())


def _by(values: npt.ArrayLike) -> str:
    return "x".join(f"{v:.4g}" for v in np.ravel(values))
