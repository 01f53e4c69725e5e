"""Joint estimation of motion and volume: register scans, then slices, and rebuild the volume after each round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import N_ITER, RADIUS, RegisteredScan, SliceFit, align, fit, scaled
from invsr.motion.bias import estimate_bias, field
from invsr.motion.order import guessed
from invsr.numerics.fixed_point import anderson
from invsr.numerics.iteration import ProgressCallback, Steps, each, within
from invsr.operators.base import Diagonal
from invsr.operators.scan_model import COVERING, covered, slice_profile_of
from invsr.operators.stack import Stack
from invsr.priors.base import GRADIENT

LEVELS = NONE, STACK, SLICE, PACKAGES = ("none", "stack", "slice", "packages")
# Voxels of the volumes that scans are registered to, coarse and fine, mm.
COARSE_VOXEL = 3.0
FINE_VOXEL = 1.5
# Weight of the squared gradient (per voxel) in these volumes.
VOLUME_SMOOTHNESS = 0.01
# Stiffness of the motion from slice to slice (`align`) in each round in coarse voxels; the fine rounds use the last.
STIFFNESS = (1.0, 0.3, 0.1, 0.1)
FINE_ROUNDS = 4
# Gauss-Newton steps of a fine round: the volume is rebuilt before more of them would help.
FINE_STEPS = 3
# Outlier slices: the logarithm of the misfit is this many robust standard deviations above the median of the scan ...
OUTLIER_MISFIT = 3.5
# ... and the misfit exceeds the median by at least this factor.
LEAST_OUTLIER_FACTOR = 1.4
# Tolerance of the volumes that slices are registered to and judged by; whole scans gain nothing from it.
FINE_RTOL = 5e-3
# Standard deviation of the residuals, share of the peak, by which starting positions are compared.
START_RESIDUAL_SD = 0.05
# Intensities are compared at pixels of which this share or more is shown by other scans, if there are so many of them.
# The bias field is estimated where they are this share of the scan's: a polynomial does not continue well.
WITHIN, LEAST_SHARED, MOST_OF_SCAN = 0.9, 20, 0.8
# Misfits are relative to the signal of the slice, to which this share of the median slice's signal is added.
LEAST_SIGNAL = 0.3


def estimate(
    scans: Sequence[RegisteredScan], target: Grid, level: str, report: ProgressCallback | None = None
) -> list[RegisteredScan]:
    """Estimate the motion of scans relative to the first one, their gains, and the weights of their slices.

    Whole scans are registered first, each to the volume of the others, from coarse to fine. With `level` "slice" each
    slice is then registered to the volume of all scans, and outlier slices are left out. Volumes are Tikhonov
    reconstructions.

    Parameters
    ----------
    scans : sequence of RegisteredScan
    target : Grid
        Grid whose field of view the volumes cover.
    level : {"stack", "slice"}
    report : callable, optional
        Called with the share that is done, 0 to 1, and the figures of the last round.

    References
    ----------
    Rousseau et al. (2006), Acad. Radiol. 13, 1072-1081.
    Kuklisova-Murgasova et al. (2012), Med. Image Anal. 16, 1550-1564.
    """
    found = list(scans)
    finest = float(target.spacing.min())
    voxels = [max(COARSE_VOXEL, 2 * finest), max(FINE_VOXEL, finest)]
    rounds, later = Steps(report), len(STIFFNESS) + FINE_ROUNDS if level == SLICE else 0
    if len(found) > 1:
        with rounds.step(left=3 + later):
            found = _join(found, target, voxels[0])
        rounds.tell(_figures(found))
        for n, spacing in enumerate(voxels):
            with rounds.step(left=2 - n + later):
                found = _stacks(_evened(found, target), target, spacing)
            rounds.tell(_figures(found))
        found = _evened(found, target)
    if level == SLICE:
        for n, stiffness in enumerate(STIFFNESS):
            with rounds.step(left=later - n):
                found = _slices(found, target, voxels[0], stiffness, N_ITER)
                if n > 0:
                    found = [_ordered(scan) for scan in _judged(found, target, voxels[0])]
            rounds.tell(_figures(found))
        found = _settled(found, target, voxels[1], STIFFNESS[-1], rounds)
        # Once more: slices that are left out say nothing of their scan's gain.
        found = _evened(_judged(_evened(found, target), target, voxels[1]), target)
    return found


def _slices(
    scans: Sequence[RegisteredScan], target: Grid, spacing: float, stiffness: float, n_iter: int, apart: bool = False
) -> list[RegisteredScan]:
    """Register each slice to the volume of all scans or, with `apart`, of the other scans."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    volume = None if apart else volume_of(coarse, grid, FINE_RTOL)
    aligned = []
    for n, scan in each(list(enumerate(coarse))):
        others = volume_of(coarse[:n] + coarse[n + 1 :], grid, FINE_RTOL) if volume is None else volume
        aligned.append(align(others, grid, scan, each_slice=True, stiffness=stiffness, n_iter=n_iter))
    found = [_taken(one, other) for one, other in zip(scans, aligned, strict=True)]
    # The volume is smooth, and darker than the scans: each round would darken all of them.
    first = found[0].gain
    return [replace(scan, gain=scan.gain / first, data=scan.data * first) for scan in found]


def _settled(
    scans: list[RegisteredScan],
    target: Grid,
    spacing: float,
    stiffness: float,
    rounds: Steps,
) -> list[RegisteredScan]:
    """Rounds of `_slices` with Anderson acceleration: its own share in the volume holds a slice near its position.

    For the same reason the volume is made of the other scans, if there are at least two of them.
    """
    units = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)
    found, sizes, left = list(scans), [len(scan.motion) for scan in scans], FINE_ROUNDS

    def place(flat: Tensor) -> list[RegisteredScan]:
        parts = torch.split(flat.reshape(-1, 6) / units, sizes)
        return [replace(scan, motion=part) for scan, part in zip(found, parts, strict=True)]

    def once(flat: Tensor) -> Tensor:
        nonlocal found, left
        with rounds.step(left):
            found = _slices(place(flat), target, spacing, stiffness, FINE_STEPS, apart=len(scans) > 2)
        left -= 1
        rounds.tell(_figures(found))
        return torch.cat([scan.motion * units for scan in found]).flatten()

    start = torch.cat([scan.motion * units for scan in scans]).flatten()
    anderson(once, start, rtol=1e-6, max_iter=FINE_ROUNDS)
    return found


def matched(scans: Sequence[RegisteredScan], target: Grid) -> list[RegisteredScan]:
    """The scans without motion, their gains and bias fields relative to the first one."""
    return _evened(list(scans), target)


def _evened(scans: list[RegisteredScan], target: Grid) -> list[RegisteredScan]:
    """Estimate gain and bias field of each scan relative to the volume of the preceding ones, where both show anatomy.

    A scan that shares next to nothing with them keeps its gain; its correlation is NaN.
    """
    spacing = max(COARSE_VOXEL, 2 * float(target.spacing.min()))
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in range(1, len(scans)):
        volume, whole = volume_of(coarse[:n], grid), coarse[n]
        shared = _shared(whole, coarse[:n], grid)
        if int(shared.sum()) < LEAST_SHARED:
            coarse[n] = replace(whole, correlation=math.nan)
            continue
        one = replace(whole, mask=shared)
        own = float(whole.data[0].numel() if whole.mask is None else whole.mask.sum())
        bias = estimate_bias(volume, grid, one) if float(shared.sum()) > MOST_OF_SCAN * own else whole.bias
        change = field(bias - one.bias, one.grid, one.centre).to(one.data)
        one = replace(one, data=one.data / change, bias=bias)
        coarse[n] = replace(scaled(one, fit(volume, grid, one)), mask=whole.mask)
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def _shared(scan: RegisteredScan, others: Sequence[RegisteredScan], grid: Grid) -> Tensor:
    """The pixels of a scan, inside its mask, that other scans show inside theirs; bool, shape of its data."""
    seen = torch.zeros((1, 1, *grid.shape), dtype=torch.bool, device=scan.data.device)
    for other in others:
        wide = slice_profile_of("gaussian", COVERING * float(other.grid.spacing[other.axis]))
        seen |= covered(replace(other, profile=wide).slices(grid), other.mask)
    found: Tensor = scan.slices(grid)(seen.to(scan.data)) > WITHIN
    return found if scan.mask is None else found & scan.mask


def volume_of(scans: Sequence[RegisteredScan], grid: Grid, rtol: float = 1e-2, max_iter: int = 20) -> Tensor:
    """The Tikhonov reconstruction from the scans with their present motion, by conjugate gradients."""
    members, data = [], []
    for scan in scans:
        shape = [1, 1, 1]
        shape[scan.axis] = -1
        weights = scan.weights.to(scan.data).reshape(shape).expand(scan.grid.shape)
        weights = weights if scan.mask is None else weights * scan.mask[0, 0]
        members.append(Diagonal(scan.grid, weights) @ scan.slices(grid))
        data.append(weights * scan.data)
    A = Stack(members)
    smoothness = VOLUME_SMOOTHNESS * float(grid.spacing.min()) ** 2
    with within(0.0, 0.0):  # it is the registration to it that tells of a round
        return A.solve(A.adjoint(tuple(data)), smoothness, GRADIENT, rtol=rtol, max_iter=max_iter).x


def _figures(scans: Sequence[RegisteredScan]) -> dict[str, float]:
    rejected = sum(int((scan.weights == 0).sum()) for scan in scans)
    largest = max(float(scan.motion[:, 3:].norm(dim=1).max()) for scan in scans)
    return {"motion_mm": largest, "rejected": float(rejected)}


def _taken(scan: RegisteredScan, aligned: RegisteredScan) -> RegisteredScan:
    """The scan with the motion, gain and bias field of its coarser copy."""
    gain, bias = aligned.gain, aligned.bias
    data, change = scan.data * (scan.gain / gain), bias - scan.bias
    if bool(change.any()):
        data = data / field(change, scan.grid, scan.centre).to(data)
    return replace(scan, motion=aligned.motion, gain=gain, bias=bias, data=data, correlation=aligned.correlation)


def _ordered(scan: RegisteredScan) -> RegisteredScan:
    """The scan with the order of acquisition estimated from its motion, unless it is known."""
    if scan.ordered:
        return scan
    units = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)
    return replace(scan, order=guessed(scan.motion * units, scan.weights > 0, scan.order))


def _join(scans: list[RegisteredScan], target: Grid, spacing: float) -> list[RegisteredScan]:
    """Register one scan after the other to the volume of the preceding ones."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in each(range(1, len(scans))):
        volume = volume_of(coarse[:n], grid)
        tried = [align(volume, grid, start, each_slice=False) for start in each(_starts(coarse[0], coarse[n]))]
        costs = [_cost(volume, grid, one) for one in tried]
        coarse[n] = tried[costs.index(min(costs))]
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def _cost(volume: Tensor, grid: Grid, scan: RegisteredScan) -> float:
    return float((fit(volume, grid, scan, residual_sd=START_RESIDUAL_SD).cost * scan.weights).sum())


def _starts(first: RegisteredScan, scan: RegisteredScan) -> list[RegisteredScan]:
    """Starting positions: world coordinates as in the headers and, with masks, their centroids on each other."""
    starts = [scan]
    if first.mask is not None and scan.mask is not None:
        there, here = (_centroid(one) for one in (first, scan))
        motion = scan.motion.clone()
        motion[:, 3:] += there - here
        starts.append(replace(scan, motion=motion))
    return starts


def _centroid(scan: RegisteredScan) -> Tensor:
    assert scan.mask is not None
    at = torch.nonzero(scan.mask[0, 0]).double().mean(0).cpu()
    return torch.from_numpy(scan.grid.to_world(at.numpy()))


def _stacks(scans: list[RegisteredScan], target: Grid, spacing: float) -> list[RegisteredScan]:
    """Register each scan but the first to the volume of all others."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in each(range(1, len(scans))):
        volume = volume_of([one for m, one in enumerate(coarse) if m != n], grid)
        coarse[n] = align(volume, grid, coarse[n], each_slice=False)
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def _judged(scans: list[RegisteredScan], target: Grid, spacing: float) -> list[RegisteredScan]:
    """The scans with weight 0 for outlier slices, which fit worse than the rest of their scan."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    volume = volume_of(coarse, grid, FINE_RTOL)
    out = []
    for scan, one in zip(scans, coarse, strict=True):
        out.append(replace(scan, weights=_weights(fit(volume, grid, one))))
    return out


def _weights(found: SliceFit) -> Tensor:
    seen = found.counts >= max(10, 0.02 * float(found.counts.max()))
    # Relative to the signal: end slices show little anatomy, and their misfit is small.
    level = (found.misfit / (found.signal + LEAST_SIGNAL * found.signal[seen].median())).clamp(min=1e-6).log()
    median = level[seen].median()
    width = 1.4826 * float((level[seen] - median).abs().median())
    limit = max(OUTLIER_MISFIT * width, math.log(LEAST_OUTLIER_FACTOR))
    return (~(seen & (level - median > limit))).double()
