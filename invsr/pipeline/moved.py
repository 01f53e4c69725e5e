"""How scans moved against each other, and how their intensities compare."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.motion import LEVELS, NONE, SLICE, Motion, ScanMotion
from invsr.motion.align import RegisteredScan
from invsr.motion.bias import N_TERMS
from invsr.motion.joint import estimate, matched
from invsr.numerics.iteration import ProgressCallback
from invsr.numerics.levels import peak
from invsr.pipeline.scan import Scan

# Below this correlation with the other scans a scan's contrast is taken to be another one.
LEAST_CORRELATION = 0.5
# Intensities of scans that differ by more than this factor are an error.
MOST_GAIN = 1e4


def require_level(motion: str | Motion) -> None:
    """Raise unless it is motion that is known, or one of the levels at which it is estimated."""
    if isinstance(motion, str) and motion not in LEVELS:
        raise InvsrError(f"unknown motion {motion!r}: use one of {', '.join(LEVELS)}")


def estimate_motion(
    scans: Sequence[Scan], target: Grid, motion: str | Motion = NONE, progress: ProgressCallback | None = None
) -> Motion | None:
    """The motion of scans: as given, or estimated by level "stack" or "slice"; for "none" their gains alone.

    None for a single scan that does not move.

    Raises
    ------
    InvsrError
        When the level is unknown, slices of a single scan are to be registered, or the motion belongs to other scans.
    """
    require_level(motion)
    if isinstance(motion, Motion):
        return motion.fitting([scan.name for scan in scans], [scan.grid for scan in scans])
    if motion == NONE and len(scans) == 1:
        return None
    if motion == SLICE and len(scans) < 2:
        raise InvsrError("motion of slices is found against scans in other directions: give at least two, or none")
    scale = intensity_scale(scans[0])
    for scan in scans[1:]:
        if not 1 / MOST_GAIN < intensity_scale(scan) / scale < MOST_GAIN:
            raise InvsrError(
                f"{scan.name}: bright tissue has {intensity_scale(scan):.3g}, in {scans[0].name} {scale:.3g}: scans of "
                "one contrast differ less; scale one of them"
            )
    registered = [_registered(scan.cropped(), target, scale) for scan in scans]
    found = matched(registered, target) if motion == NONE else estimate(registered, target, motion, progress)
    for scan, one in zip(scans, found, strict=True):
        if math.isnan(one.correlation):
            warnings.warn(
                f"{scan.name}: shows next to nothing that the scans before it show inside their masks: its intensities "
                "are taken as they are",
                InvsrWarning,
                stacklevel=2,
            )
        if one.correlation < LEAST_CORRELATION:
            warnings.warn(
                f"{scan.name}: correlates with the other scans by {one.correlation:.2f} only: another contrast, or "
                "not where its header says? Leave it out, or try --motion stack",
                InvsrWarning,
                stacklevel=2,
            )
    return Motion(
        target.centre,
        tuple(
            ScanMotion(scan.name, scan.grid, one.motion.numpy(), one.weights.numpy(), one.gain, one.bias.numpy())
            for scan, one in zip(scans, found, strict=True)
        ),
    )


def intensity_scale(scan: Scan) -> float:
    """Intensity of bright tissue inside the mask, which counts as 1 inside the solvers.

    Raises
    ------
    InvsrError
        When every voxel there is 0.
    """
    found = peak(scan.data if scan.inside is None else scan.data[scan.inside])
    if not found > 0:
        raise InvsrError(f"{scan.name}: every voxel inside the mask is 0: check the mask, and the voxels that are 0")
    return found


def _registered(scan: Scan, target: Grid, scale: float) -> RegisteredScan:
    n_slices = scan.grid.shape[scan.through_plane]
    order = scan.slice_order
    return RegisteredScan(
        data=scan.data / scale,
        grid=scan.grid,
        profile=scan.profile,
        axis=scan.through_plane,
        mask=scan.inside,
        centre=torch.from_numpy(target.centre),
        motion=torch.zeros(n_slices, 6, dtype=torch.float64),
        weights=torch.ones(n_slices, dtype=torch.float64),
        bias=torch.zeros(N_TERMS, dtype=torch.float64),
        ordered=order is not None,
        order=torch.arange(n_slices) if order is None else order,
    )
