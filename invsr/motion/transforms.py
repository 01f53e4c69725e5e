"""Estimated motion, and its files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.bounds import parse_json, read_text
from invsr.io.files import write_whole

Array = npt.NDArray[np.float64]
FORMAT = "invsr motion"
# World axes x and y of ITK (LPS+) are opposite to those of NIfTI (RAS+).
LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class ScanMotion:
    """The motion of one scan.

    Attributes
    ----------
    name : str
    grid : Grid
    motion : array, shape (n_slices, 6)
        For each slice, rotation vector in radians about the common centre and translation in mm, from scan to volume
        coordinates.
    weights : array, shape (n_slices,)
        1 for used slices, 0 for outlier slices.
    gain : float
        Intensity of the scan relative to the first one.
    bias : array, shape (9,)
        Coefficients of its bias field relative to the first scan (`invsr.motion.bias`).
    """

    name: str
    grid: Grid
    motion: Array
    weights: Array
    gain: float = 1.0
    bias: Array = field(default_factory=lambda: np.zeros(9))

    @property
    def rejected(self) -> list[int]:
        """Numbers of the outlier slices, which are left out, counted from 0."""
        return [int(n) for n in np.flatnonzero(self.weights == 0)]

    @property
    def still(self) -> bool:
        """Whether there is no motion."""
        return not self.motion.any()

    @property
    def of_scan(self) -> Array | None:
        """The motion that all slices share, shape (6,), or None if they differ."""
        return np.array(self.motion[0]) if (self.motion == self.motion[0]).all() else None


@dataclass(frozen=True)
class Motion:
    """The motion of several scans about one centre (world, mm)."""

    centre: Array
    scans: tuple[ScanMotion, ...]

    def fitting(self, names: Sequence[str], grids: Sequence[Grid]) -> Motion:
        """The motion itself, if it belongs to scans on these grids.

        Raises
        ------
        InvsrError
            When it does not; the message names the scan.
        """
        if len(grids) != len(self.scans):
            raise InvsrError(f"motion of {len(self.scans)} scans for {len(grids)}: give those it was estimated from")
        for name, grid, one in zip(names, grids, self.scans, strict=True):
            if grid != one.grid:
                raise InvsrError(f"{name}: lies on {grid}, the motion belongs to {one.name} on {one.grid}: same order?")
        return self


def save_motion(motion: Motion, path: str | Path) -> list[Path]:
    """Write motion as JSON, and beside it an ITK transform file (.tfm) for each scan; return all paths.

    A .tfm holds one VersorRigid3DTransform for each slice, or a single one if all slices share it, in ITK's LPS+
    coordinates, from points of the scan to points of the volume.

    Raises
    ------
    InvsrError
        When a file cannot be written.
    """
    path = Path(path)
    record = {
        "format": FORMAT,
        "version": 1,
        "centre": motion.centre.tolist(),
        "scans": [
            {
                "name": one.name,
                "shape": one.grid.shape,
                "affine": one.grid.affine.tolist(),
                "gain": one.gain,
                "bias": one.bias.tolist(),
                "weights": one.weights.tolist(),
                "motion": one.motion.tolist(),
            }
            for one in motion.scans
        ],
    }
    texts = [json.dumps(record, indent=1) + "\n", *(_itk(one, motion.centre) for one in motion.scans)]
    written = motion_files(path, len(motion.scans))
    for target, text in zip(written, texts, strict=True):
        write_whole(target, text)
    return written


def motion_files(path: Path, count: int) -> list[Path]:
    """What `save_motion` writes for so many scans: the JSON file, and an ITK transform file for each."""
    stem = path.name.removesuffix(".json")
    return [path, *(path.with_name(f"{stem}-{n + 1}.tfm") for n in range(count))]


def load_motion(path: str | Path) -> Motion:
    """Read motion from a file that `save_motion` wrote.

    Raises
    ------
    InvsrError
        When the file is missing or holds something else.
    """
    path = Path(path)
    if not os.path.isfile(path):  # `Path.is_file` raises where a name is too long
        raise InvsrError(f"{path}: no such file: give the .json that `invsr register` wrote")
    try:
        record: dict[str, Any] = parse_json(read_text(path))
        if record.get("format") != FORMAT:
            raise ValueError("another format")
        scans = tuple(_scan(entry) for entry in record["scans"])
        centre = np.array(record["centre"], float).reshape(3)
        if not np.isfinite(centre).all():
            raise ValueError(f"a centre at {centre}")
    except OSError as error:
        raise InvsrError(f"{path}: cannot be opened ({error.strerror}): check the permissions") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvsrError(f"{path}: holds no motion ({error}): give the .json that `invsr register` wrote") from None
    return Motion(centre, scans)


def _scan(entry: dict[str, Any]) -> ScanMotion:
    grid = Grid(entry["shape"], entry["affine"])
    motion, weights = np.array(entry["motion"], float), np.array(entry["weights"], float)
    if motion.shape != (len(weights), 6) or len(weights) not in grid.shape or not np.isfinite(motion).all():
        raise ValueError(f"motion of shape {motion.shape} for a grid of {grid.shape}")
    bias = np.array(entry.get("bias", np.zeros(9)), float).reshape(9)
    gain = float(entry["gain"])
    if not (0 < gain < np.inf and np.isfinite(bias).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("gain, bias and weights must be finite, the gain above zero, weights not below")
    return ScanMotion(str(entry["name"]), grid, motion, weights, gain, bias)


def _itk(scan: ScanMotion, centre: Array) -> str:
    from scipy.spatial.transform import Rotation

    rows = scan.motion if scan.of_scan is None else scan.motion[:1]
    lines = ["#Insight Transform File V1.0"]
    for n, row in enumerate(rows):
        # LPS+ is RAS+ rotated by half a turn about z: rotation vectors turn with the axes.
        versor = Rotation.from_rotvec(row[:3] * LPS).as_quat(canonical=True)[:3]
        lines += [
            f"#Transform {n}",
            "Transform: VersorRigid3DTransform_double_3_3",
            "Parameters: " + " ".join(f"{v:.12g}" for v in (*versor, *(row[3:] * LPS))),
            "FixedParameters: " + " ".join(f"{v:.12g}" for v in centre * LPS),
        ]
    return "\n".join(lines) + "\n"
