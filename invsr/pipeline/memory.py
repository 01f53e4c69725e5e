"""How much memory a reconstruction takes, and whether there is so much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics import memory

# Where scans lie obliquely or move, in addition to what a method takes: for the volume at half its spacing, per voxel,
# and for the matrices that interpolate it, per sample; measured with three stacks of 160x160x40, two of them oblique.
HALF_SPACING, INTERPOLATED = 32, 30


def needed_memory(volumes: float, target: Grid, scans: Sequence[Grid], moving: bool = False) -> int:
    """Bytes that a reconstruction takes.

    Parameters
    ----------
    volumes : float
        Working memory of the method, in float32 volumes of the target's size.
    target : Grid
    scans : sequence of Grid
    moving : bool
        Whether scans or slices move.
    """
    voxels = volumes * target.size + 4 * sum(scan.size for scan in scans)
    oblique = [scan for scan in scans if moving or scan.axes_in(target) is None]
    if oblique:
        samples = sum(float(np.prod(scan.extent / target.spacing.min())) for scan in oblique)
        voxels += HALF_SPACING * target.size + INTERPOLATED * samples
    return round(4 * voxels)


def require_memory(what: str, needed: int, target: Grid, device: torch.device) -> None:
    """Raise when a reconstruction on this grid cannot fit into the memory that is free.

    Raises
    ------
    InvsrError
        Saying what is needed, what is there, and the spacing that would fit.
    """
    free = memory.free_memory(device)
    if needed > free:
        fitting = float(target.spacing.min()) * (needed / free) ** (1 / 3)
        raise InvsrError(
            f"{what} on {target} needs about {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            f"free: use a spacing of {np.ceil(fitting * 10) / 10:.1f} mm or a smaller reference grid"
        )
