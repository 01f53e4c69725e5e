"""How much memory a reconstruction takes, and how much there is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.pipeline.methods import AUTO

# Working memory in float32 volumes of the target's size, measured as peak memory less the start-up's.
VOLUMES_IN_MEMORY = {
    AUTO: 120,
    "cubic": 12,
    "tikhonov": 24,
    "tv": 34,
    "pnp": 120,
    "unrolled": 120,
    "deq": 120,
    "posterior": 140,
}
# Where scans lie obliquely or move, in addition: for the volume at half its spacing, per voxel, and for the matrices
# that interpolate it, per sample; measured with three stacks of 160x160x40, two of them oblique (2.8 GB).
HALF_SPACING, INTERPOLATED = 32, 30


def require_memory(
    target: Grid, scans: Sequence[Grid], method: str, device: torch.device, moving: bool = False
) -> None:
    """Raise when a reconstruction on this grid cannot fit into the memory that is free.

    Raises
    ------
    InvsrError
        Saying what is needed, what is there, and the spacing that would fit.
    """
    voxels = VOLUMES_IN_MEMORY[method] * target.size + 4 * sum(scan.size for scan in scans)
    turned = [scan for scan in scans if moving or scan.axes_in(target) is None]
    if turned:
        samples = sum(float(np.prod(scan.extent / target.spacing.min())) for scan in turned)
        voxels += HALF_SPACING * target.size + round(INTERPOLATED * samples)
    needed, free = 4 * voxels, free_memory(device)
    if needed > free:
        fitting = float(target.spacing.min()) * (needed / free) ** (1 / 3)
        raise InvsrError(
            f"{method} on {target} needs about {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            f"free: use a spacing of {np.ceil(fitting * 10) / 10:.1f} mm or a smaller reference grid"
        )


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still use on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        import resource
    except ImportError:  # Windows sets no such limit
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, limit - int(psutil.Process().memory_info().vms))
