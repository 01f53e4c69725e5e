"""How much memory a reconstruction takes, and whether there is so much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics import memory

# Where scans lie obliquely or move, in addition to what a method takes: for the volume at half its spacing, per voxel,
# and for the matrices that interpolate it, per sample; measured with three stacks of 160x160x40, two of them oblique.
HALF_SPACING, INTERPOLATED = 32, 30
# Share of the free memory that networks are given where no budget is: other programs want some, too.
SHARE = 0.7


class Extent(Protocol):
    """What of a problem its memory depends on; an `InverseProblem` is one."""

    @property
    def domain(self) -> Grid:
        """Where the unknown lies."""

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Where each scan's data lie."""

    @property
    def is_moving(self) -> bool:
        """Whether a scan, or a slice, lies elsewhere than its header says."""

    @property
    def device(self) -> torch.device:
        """Where it is solved."""

    @property
    def operator_memory(self) -> int:
        """Bytes that its operator takes beside the volumes of a method."""


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


@dataclass(frozen=True)
class Budget:
    """Memory that a reconstruction may take.

    Attributes
    ----------
    available : int
        Bytes, in addition to what the process holds.
    limit : float or None
        The limit for the whole process that was asked for, GB (1e9 bytes).
    """

    available: int
    limit: float | None = None

    @classmethod
    def on(cls, device: torch.device, limit: float | None = None) -> Budget:
        """What is free on a device, and within the limit.

        Raises
        ------
        InvsrError
            When the limit is not above zero, or the process holds as much already.
        """
        free = memory.free_memory(device)
        if limit is None:
            return cls(free)
        if not 0 < limit < math.inf:
            raise InvsrError(f"memory is {limit:g} GB: give a number above zero")
        held = memory.held_memory(device)
        if held >= limit * 1e9:
            raise InvsrError(
                f"memory is {limit:g} GB: the program and the scans alone hold {held / 1e9:.1f} GB: give more"
            )
        return cls(min(free, round(limit * 1e9) - held), limit)

    @property
    def comfortable(self) -> int:
        """Bytes that may be taken where less would do."""
        return self.available if self.limit is not None else round(SHARE * self.available)

    def __str__(self) -> str:
        gib = f"{self.available / 2**30:.1f} GiB"
        return f"{gib} are free" if self.limit is None else f"{gib} are left of the {self.limit:g} GB allowed"


def require_memory(what: str, needed: int, target: Grid, budget: Budget) -> None:
    """Raise when a reconstruction on this grid cannot fit into the memory that there is for it.

    Raises
    ------
    InvsrError
        Saying what is needed, what is there, and the spacing that would fit.
    """
    if needed > budget.available:
        fitting = float(target.spacing.min()) * (needed / max(budget.available, 1)) ** (1 / 3)
        raise InvsrError(
            f"{what} on {target} needs about {needed / 2**30:.1f} GiB of memory and {budget}: "
            f"use a spacing of {np.ceil(fitting * 10) / 10:.1f} mm or a smaller reference grid"
        )
