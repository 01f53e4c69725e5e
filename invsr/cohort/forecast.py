"""How much memory and time a job will take, from the headers of its scans."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from invsr.cohort.jobs import Job, Options, Target, read_entries
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.nifti import read_header
from invsr.io.sidecars import read_slices
from invsr.pipeline.joint import TOGETHER
from invsr.pipeline.methods import METHODS

# Seconds per million voxels of the target with one thread, by method, and beside; rough, after docs/tables/scaling.md:
# they are corrected by the seconds of the jobs that have ended.
SECONDS = {"cubic": 0.2, "tikhonov": 0.4, "tv": 2.5, "unrolled": 15.0, "pnp": 30.0, "deq": 30.0, "posterior": 300.0}
AUTO_SECONDS, BESIDE = 15.0, 5.0
# Scans that may move, and so lie obliquely, take so many times as long.
MOVING = 5.0
# Jobs that have ended, from which the rate is taken.
LATEST = 20
# Largest ratio of slice spacing, or thickness, and target spacing at which there is nothing to gain.
ALIKE = 1.5


@dataclass(frozen=True)
class Extent:
    """What of a job its memory depends on: as of `invsr.pipeline.memory.Extent`."""

    domain: Grid
    grids: tuple[Grid, ...]
    is_moving: bool
    device: torch.device
    operator_memory: int = 0  # of slices: they are counted with their grids


@dataclass(frozen=True)
class Forecast:
    """What a job will take.

    Attributes
    ----------
    memory : int
        Bytes with which it is fastest, beside what the process holds; 0 where no header could be read.
    least : int
        Bytes that it takes at the least.
    voxels : int
        Number of voxels of the results.
    nothing_to_gain : str
        Why it is left out, in words; empty where it is not.
    moving : bool
        Whether scans may move against each other.
    """

    memory: int = 0
    least: int = 0
    voxels: int = 0
    nothing_to_gain: str = ""
    moving: bool = False


def forecast(job: Job, options: Options) -> Forecast:
    """What a job will take; nothing is known of scans that cannot be read: running it says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvsrWarning)
        try:
            moving = job.motion(options.motion) != "none"
            extents = [_extent(target, options, moving) for target in job.targets]
            coarsest = _coarsest(job.sources[0].path, options)
        except InvsrError:
            return Forecast()
    voxels = sum(one.domain.size for one in extents)
    memory, least = _memory(extents, options)
    why = ""
    if len(job.sources) == 1 and coarsest < ALIKE * extents[0].domain.spacing.min():
        spacing = "x".join(f"{value:.3g}" for value in extents[0].grids[0].spacing)
        why = f"its voxels of {spacing} mm are as fine as the result's would be"
    return Forecast(memory, least, voxels, why, moving)


def _coarsest(path: Path, options: Options) -> float:
    """The longest edge of a scan's voxels, or the thickness of its slices where they overlap, mm."""
    header = read_header(path)
    stated = read_slices(path, header.grid, header.slice_axis).thickness
    thickness = stated if options.slice_thickness in (None, "auto") else options.slice_thickness
    return max(float(header.grid.spacing.max()), float(thickness or 0.0))


def _extent(target: Target, options: Options, moving: bool) -> Extent:
    grids = tuple(read_header(source.path).grid for source in target.sources)
    first = grids[0]
    domain = first.isotropic() if options.spacing is None else first.refine(list(options.spacing))
    corners = np.concatenate([grid.corners() for grid in grids])
    return Extent(domain.covering(corners, 0.0), grids, moving, torch.device("cpu"))


def _memory(extents: Sequence[Extent], options: Options) -> tuple[int, int]:
    """Bytes with which the method is fastest, and at the least; of the one that takes most, where the scan decides."""
    if len(extents) > 1:
        found = TOGETHER["unrolled" if options.method == "auto" else options.method]().memory_together(extents)
        return found, found
    kinds = [METHODS["unrolled"], METHODS["tv"]] if options.method == "auto" else [METHODS[options.method]]
    return max(kind().fast_memory(extents[0]) for kind in kinds), max(kind().memory(extents[0]) for kind in kinds)


def seconds_of(found: Forecast, options: Options, correction: float) -> float:
    """Seconds that a job will take with one thread."""
    rate = SECONDS.get(options.method, AUTO_SECONDS) * (MOVING if found.moving else 1.0)
    return correction * (BESIDE + rate * found.voxels / 1e6)


def correction_of(out: Path, options: Options) -> float:
    """How many times as long as foreseen the latest jobs took that ended here; 1 before there are any."""
    records = sorted((out / "logs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[-LATEST:]
    return _ratio((read_entries(path) for path in records), options)


def _ratio(records: Iterable[dict[str, object]], options: Options) -> float:
    ratios = []
    for record in records:
        seconds, voxels = record.get("Seconds"), record.get("Voxels")
        sources = record.get("Sources")
        if isinstance(seconds, int | float) and isinstance(voxels, int) and voxels and isinstance(sources, list):
            moving = len(sources) > 1 and options.motion != "none"
            ratios.append(seconds / seconds_of(Forecast(voxels=voxels, moving=moving), options, 1.0))
    return median(ratios) if ratios and math.isfinite(sum(ratios)) else 1.0
