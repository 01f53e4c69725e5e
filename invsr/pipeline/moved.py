"""How scans moved against each other, and how their intensities compare."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.inspection.slices import MOST_CHANCE, chance
from invsr.motion import LEVELS, NONE, PACKAGES, SLICE, Motion, ScanMotion, estimate_packages
from invsr.motion.align import RegisteredScan
from invsr.motion.bias import N_TERMS
from invsr.motion.joint import estimate, matched
from invsr.motion.order import n_packages
from invsr.motion.packages import shares
from invsr.numerics.iteration import ProgressCallback
from invsr.numerics.levels import peak
from invsr.pipeline.scan import Scan

# Below this correlation with the other scans a scan's contrast is taken to be another one.
LEAST_CORRELATION = 0.5
# Intensities of scans that differ by more than this factor are an error.
MOST_GAIN = 1e4
# Motion of packages below this share of the slice spacing is none: scans whose slices did not move show less. From
# the second share on it is certain.
LEAST_MOTION, CERTAIN_MOTION = 0.1, 0.2
# A package of fewer slices cannot be placed.
FEWEST_SLICES = 3
# With fewer slices nothing is concluded unasked.
FEWEST_NOTED = 10
# Slices that must say something of the motion for them to agree on it.
FEWEST_AGREEING = 7


def require_level(motion: str | Motion) -> None:
    """Raise unless it is motion that is known, or one of the levels at which it is estimated."""
    if isinstance(motion, str) and motion not in LEVELS:
        raise InvsrError(f"unknown motion {motion!r}: use one of {', '.join(LEVELS)}")


def estimate_motion(
    scans: Sequence[Scan], target: Grid, motion: str | Motion = NONE, progress: ProgressCallback | None = None
) -> Motion | None:
    """The motion of scans: as given, or estimated by level; for "none" their gains alone.

    Several scans move as a whole ("stack") or slice by slice ("slice"); of one scan its "packages" do.

    None for a single scan that does not move.

    Raises
    ------
    InvsrError
        When the level is unknown, or not one of so many scans, or the motion belongs to other scans.
    """
    require_level(motion)
    if isinstance(motion, Motion):
        return motion.fitting([scan.name for scan in scans], [scan.grid for scan in scans])
    if motion == NONE and len(scans) == 1:
        return None
    if motion == PACKAGES:
        if len(scans) > 1:
            raise InvsrError(
                f"motion {PACKAGES} is that of one scan's slices, not of {len(scans)} scans: stack or slice?"
            )
        return packages_moved(scans[0], target, LEAST_MOTION, progress)
    if motion == SLICE and len(scans) < 2:
        raise InvsrError(
            "motion of slices is found against scans in other directions: give at least two scans, or, of one whose "
            f"slices were acquired by turns, --motion {PACKAGES}"
        )
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


def packages_moved(scan: Scan, target: Grid, least: float, progress: ProgressCallback | None = None) -> Motion:
    """The motion of the interleaved packages of a scan's slices, 0 below `least` times the slice spacing.

    Their number is that of the order of slices in the sidecar, else two.

    Raises
    ------
    InvsrError
        When the slices were not acquired by turns, or are too few.
    """
    one = _with_packages(scan, target, least, progress)
    return Motion(target.centre, (ScanMotion(scan.name, scan.grid, one.motion.numpy(), one.weights.numpy()),))


def _with_packages(scan: Scan, target: Grid, least: float, progress: ProgressCallback | None = None) -> RegisteredScan:
    """The scan with the motion of its packages."""
    count, n_slices = n_packages(scan.slice_order), scan.grid.shape[scan.through_plane]
    if count < 2:
        raise InvsrError(
            f"{scan.name}: by the times in its sidecar, slices were not acquired by turns, as every second one and "
            f"then the others: there are no {PACKAGES}"
        )
    if n_slices < count * FEWEST_SLICES:
        raise InvsrError(f"{scan.name}: {n_slices} slices make no {count} packages of at least {FEWEST_SLICES}")
    one = _registered(scan.cropped(), target, intensity_scale(scan))
    return estimate_packages(one, target, count, least=least * scan.slice_spacing, report=progress)


def with_packages_noted(scan: Scan, target: Grid) -> Scan:
    """The scan with a note if it is certain that its packages moved against each other, out of their planes or turning.

    What moved within the planes alone is moved back before (`invsr.pipeline.faults`). Motion is certain where it is far
    above what still scans show, and slices, each on its own, agree on it: smooth anatomy, masks, and corners that were
    set to 0 pretend large motion, on which they do not.
    """
    n_slices = scan.grid.shape[scan.through_plane]
    if scan.thickness is None or scan.data.is_complex() or n_slices < FEWEST_NOTED or n_packages(scan.slice_order) < 2:
        return scan
    if not bool((scan.data if scan.inside is None else scan.data[scan.inside]).any()):
        return scan
    moved = _with_packages(scan, target, CERTAIN_MOTION)
    if not bool(moved.motion.any()) or not _slices_agree(moved, target):
        return scan
    turned, shifted = (float(moved.motion[:, part].norm(dim=1).max()) for part in (slice(3), slice(3, 6)))
    note = (
        f"{scan.name}: packages of slices that were acquired by turns moved against each other by {shifted:.2g} mm and "
        f"{math.degrees(turned):.2g} degrees: --motion {PACKAGES} takes it into account"
    )
    return replace(scan, notes=(*scan.notes, note))


def _slices_agree(moved: RegisteredScan, target: Grid) -> bool:
    """Whether enough slices find the motion, each on its own, and as much of it."""
    found = shares(moved, target)
    known = found[found.isfinite()]
    return len(known) >= FEWEST_AGREEING and float(known.median()) > 0 and chance(known) <= MOST_CHANCE


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
    weights = torch.ones(n_slices, dtype=torch.float64)
    weights[list(scan.empty_slices)] = 0
    return RegisteredScan(
        data=scan.data / scale,
        grid=scan.grid,
        profile=scan.profile,
        axis=scan.through_plane,
        mask=scan.inside,
        centre=torch.from_numpy(target.centre),
        motion=torch.zeros(n_slices, 6, dtype=torch.float64),
        weights=weights,
        bias=torch.zeros(N_TERMS, dtype=torch.float64),
        ordered=order is not None,
        order=torch.arange(n_slices) if order is None else order,
    )
