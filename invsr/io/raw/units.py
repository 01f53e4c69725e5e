"""The unit of a trajectory in ISMRMRD, which its header does not tell: by how far the samples reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.raw.header import Encoding
from invsr.noncartesian import LEAST_MATRIX, ROUNDING

Floats = npt.NDArray[np.float32]
PER_VOXEL, PER_VIEW = "cycles per voxel", "cycles per field of view"
# In these units a trajectory may end before k-space of the encoded matrix does; any other must reach its edge, up to
# this share.
USUAL, FULL = (PER_VOXEL, PER_VIEW), 0.9
# Shares of two units that differ by no more are the same reading, as 1/mm and cycles per voxel of 1 mm are.
ALIKE = 0.01


def in_cycles(path: Path, points: Floats, encoding: Encoding) -> tuple[Floats, str | None]:
    """A trajectory in cycles per encoded field of view, and what is to be said of the unit it was in.

    In the right unit a trajectory ends at the edge of the encoded k-space: the reading that reaches it to within
    rounding is taken, else one that nearly does (`FULL`), else one of the usual two; of several the first.

    Parameters
    ----------
    path : Path
    points : array, shape (lines, samples, 2 or 3)
        As stored.
    encoding : Encoding

    Raises
    ------
    InvsrError
        When it is not finite, 0 along an axis, or in no unit that is known.
    """
    reach = np.abs(points).max((0, 1)).astype(float)
    if not np.isfinite(reach).all():
        raise InvsrError(f"{path}: its trajectory holds NaN or infinite values: export it again")
    said = "x".join(f"{value:.4g}" for value in reach)
    if not reach[:2].all():
        raise InvsrError(f"{path}: its trajectory is 0 along an axis (it reaches {said}): export it again")
    half = np.array(encoding.matrix[: len(reach)]) / 2
    scales = _scales(encoding, len(reach))
    shares = _shares(reach, scales, half)
    unit = min(shares, key=lambda name: _grade(shares[name]), default=None)
    # So few cycles per field of view lie between the two usual units.
    if unit is None or (unit == PER_VIEW and reach[:2].max() < LEAST_MATRIX / 2):
        matrix = "x".join(map(str, encoding.matrix[: len(reach)]))
        raise InvsrError(
            f"{path}: its trajectory reaches {said}, neither cycles per voxel (up to 0.5) nor cycles per field of view "
            f"(up to half of the matrix of {matrix}): scale it to one of them"
        )
    found = points if unit == PER_VIEW else (points * scales[unit]).astype(np.float32)
    return found, _remark(unit, shares, said)


def _scales(encoding: Encoding, axes: int) -> dict[str, npt.NDArray[np.float64]]:
    """Factors to cycles per field of view along each axis, by unit."""
    sizes, view = (np.array(of[:axes], float) for of in (encoding.matrix, encoding.view))
    return {
        PER_VOXEL: sizes,
        PER_VIEW: np.ones(axes),
        "cycles per mm": view,
        "cycles per cm": view / 10,
        "cycles per m": view / 1000,
        "radian per voxel": sizes / (2 * np.pi),
    }


def _shares(
    reach: npt.NDArray[np.float64], scales: dict[str, npt.NDArray[np.float64]], half: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Which share of the encoded k-space the trajectory reaches in plane, in each unit that it may be in."""
    found = {}
    for unit, scale in scales.items():
        share = reach * scale / half
        end = float(share[:2].max())
        if (share <= 1 + 2 * ROUNDING).all() and (unit in USUAL or end >= FULL):
            found[unit] = end
    return found


def _grade(share: float) -> int:
    """0 where a trajectory ends at the edge of k-space, 1 where nearly, 2 where it ends before."""
    return 0 if abs(share - 1) <= 2 * ROUNDING else 1 if share >= FULL else 2


def _remark(unit: str, shares: dict[str, float], said: str) -> str | None:
    """The reading, where it is not beyond doubt."""
    share = shares[unit]
    others = [f"as {name} {end:.0%}" for name, end in shares.items() if end > 0.1 and abs(end - share) > ALIKE]
    if unit in USUAL and share >= FULL and not others:
        return None
    beside = f" ({', '.join(others)})" if others else ""
    return (
        f"its trajectory, which reaches {said}, is taken as {unit}: it covers {share:.0%} of the encoded k-space"
        f"{beside}; if that is wrong, scale it to cycles per field of view"
    )
