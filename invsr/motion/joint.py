"""Motion and volume together: align scans to the volume, then slices, the volume anew after each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.motion.align import N_ITER, RADIUS, Fit, Scan, align, fit, scaled
from invsr.motion.bias import estimate_bias, field
from invsr.motion.order import guessed
from invsr.numerics.fixed_point import anderson
from invsr.numerics.iteration import ProgressCallback
from invsr.operators.base import Diagonal
from invsr.operators.stack import Stack
from invsr.priors.base import GRADIENT

LEVELS = NONE, STACK, SLICE = ("none", "stack", "slice")
# Voxels of the volumes that scans are aligned to, mm, and what they are at least of the target's.
COARSE, FINE = 3.0, 1.5
# Weight of the squared slope (per voxel) in these volumes.
SMOOTHNESS = 0.01
# Rounds of slices in coarse voxels: how stiff motion is from slice to slice (`align`). Then as many in fine voxels.
STIFFNESS = (1.0, 0.3, 0.1, 0.1)
FINE_ROUNDS = 4
# Gauss-Newton steps of a fine round: the volume changes before more of them would pay.
FINE_STEPS = 3
# A slice whose residual is this many robust standard deviations (of the logarithm) above its stack's median, and
# never less than this factor, is left out.
OUTLYING, LEAST_FACTOR = 3.5, 1.4
# Of the median slice's signal: what is added to each one's.
LEAST_SIGNAL = 0.3


def estimate(scans: Sequence[Scan], target: Grid, level: str, report: ProgressCallback | None = None) -> list[Scan]:
    """The scans with their motion relative to the first one, gains and slice weights.

    Whole scans first, each to the volume of the others, coarse to fine; then, for `level` "slice", each slice to the
    volume of all, with slices that fit nothing left out. Volumes are Tikhonov reconstructions.

    Parameters
    ----------
    scans : sequence of Scan
    target : Grid
        Whose field of view the volumes have.
    level : {"stack", "slice"}
    report : callable, optional
        Called with (round, rounds, figures).

    References
    ----------
    Rousseau et al. (2006), Acad. Radiol. 13, 1072-1081.
    Kuklisova-Murgasova et al. (2012), Med. Image Anal. 16, 1550-1564.
    """
    found = list(scans)
    finest = float(target.spacing.min())
    voxels = [max(COARSE, 2 * finest), max(FINE, finest)]
    total = 3 + (len(STIFFNESS) + FINE_ROUNDS if level == SLICE else 0)
    if len(found) > 1:
        found = _join(found, target, voxels[0])
        _tell(report, 1, total, found)
        for n, spacing in enumerate(voxels):
            found = _stacks(_evened(found, target), target, spacing)
            _tell(report, 2 + n, total, found)
        found = _evened(found, target)
    if level == SLICE:
        for n, stiffness in enumerate(STIFFNESS):
            found = _slices(found, target, voxels[0], stiffness, N_ITER)
            if n > 0:
                found = [_ordered(scan) for scan in _judged(found, target, voxels[0])]
            _tell(report, 4 + n, total, found)
        found = _settled(found, target, voxels[1], STIFFNESS[-1], lambda n, now: _tell(report, 7 + n, total, now))
        found = _judged(_evened(found, target), target, voxels[1])
    return found


def _slices(
    scans: Sequence[Scan], target: Grid, spacing: float, stiffness: float, n_iter: int, apart: bool = False
) -> list[Scan]:
    """Each slice aligned to the volume of all scans; or, with `apart`, to that of the other scans."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    volume = None if apart else volume_of(coarse, grid)
    aligned = []
    for n, scan in enumerate(coarse):
        others = volume_of(coarse[:n] + coarse[n + 1 :], grid) if volume is None else volume
        aligned.append(align(others, grid, scan, each_slice=True, stiffness=stiffness, n_iter=n_iter))
    return [_taken(one, other) for one, other in zip(scans, aligned, strict=True)]


def _settled(
    scans: list[Scan], target: Grid, spacing: float, stiffness: float, tell: Callable[[int, list[Scan]], None]
) -> list[Scan]:
    """Rounds of `_slices`, accelerated: a slice's own share in the volume keeps it near where it was.

    For the same reason volumes are made of the other scans, where these are at least two.
    """
    units = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)
    found, sizes, n = list(scans), [len(scan.motion) for scan in scans], 0

    def place(flat: Tensor) -> list[Scan]:
        parts = torch.split(flat.reshape(-1, 6) / units, sizes)
        return [replace(scan, motion=part) for scan, part in zip(found, parts, strict=True)]

    def once(flat: Tensor) -> Tensor:
        nonlocal found, n
        found = _slices(place(flat), target, spacing, stiffness, FINE_STEPS, apart=len(scans) > 2)
        n += 1
        tell(n, found)
        return torch.cat([scan.motion * units for scan in found]).flatten()

    start = torch.cat([scan.motion * units for scan in scans]).flatten()
    anderson(once, start, rtol=1e-6, max_iter=FINE_ROUNDS)
    return found


def matched(scans: Sequence[Scan], target: Grid) -> list[Scan]:
    """The scans where they are, intensities brought to the first one's."""
    return _evened(list(scans), target)


def _evened(scans: list[Scan], target: Grid) -> list[Scan]:
    """Gain and field of each scan against the volume of those before it."""
    spacing = max(COARSE, 2 * float(target.spacing.min()))
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in range(1, len(scans)):
        one, volume = coarse[n], volume_of(coarse[:n], grid)
        bias = estimate_bias(volume, grid, one)
        change = field(bias - one.bias, one.grid, one.centre).to(one.data)
        one = replace(one, data=one.data / change, bias=bias)
        coarse[n] = scaled(one, fit(volume, grid, one))
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def volume_of(scans: Sequence[Scan], grid: Grid) -> Tensor:
    """The volume that explains the scans where they are now, smooth where they leave a choice."""
    members, data = [], []
    for scan in scans:
        shape = [1, 1, 1]
        shape[scan.axis] = -1
        weights = scan.weights.to(scan.data).reshape(shape).expand(scan.grid.shape)
        weights = weights if scan.mask is None else weights * scan.mask[0, 0]
        members.append(Diagonal(scan.grid, weights) @ scan.slices(grid))
        data.append(weights * scan.data)
    A = Stack(members)
    smoothness = SMOOTHNESS * float(grid.spacing.min()) ** 2
    return A.solve(A.adjoint(tuple(data)), smoothness, GRADIENT, rtol=1e-2, max_iter=20).x


def _tell(report: ProgressCallback | None, n: int, total: int, scans: Sequence[Scan]) -> None:
    if report is not None:
        rejected = sum(int((scan.weights == 0).sum()) for scan in scans)
        largest = max(float(scan.motion[:, 3:].norm(dim=1).max()) for scan in scans)
        report(n, total, {"motion_mm": largest, "rejected": float(rejected)})


def _taken(scan: Scan, aligned: Scan) -> Scan:
    """A scan with the motion, the gain and the field that its coarser copy was given."""
    data, bias = scan.data * (scan.gain / aligned.gain), aligned.bias - scan.bias
    if bool(bias.any()):
        data = data / field(bias, scan.grid, scan.centre).to(data)
    return replace(
        scan, motion=aligned.motion, gain=aligned.gain, bias=aligned.bias, data=data, correlation=aligned.correlation
    )  # fmt: skip


def _ordered(scan: Scan) -> Scan:
    """The scan with the order of slices along which its motion is smooth, unless it is known."""
    if scan.ordered:
        return scan
    units = torch.tensor([RADIUS] * 3 + [1.0] * 3, dtype=torch.float64)
    return replace(scan, order=guessed(scan.motion * units, scan.weights > 0, scan.order))


def _join(scans: list[Scan], target: Grid, spacing: float) -> list[Scan]:
    """One scan after the other aligned to the volume of those before it."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in range(1, len(scans)):
        volume = volume_of(coarse[:n], grid)
        tried = [align(volume, grid, start, each_slice=False) for start in _starts(coarse[0], coarse[n])]
        costs = [float((fit(volume, grid, one, spread=0.05).cost * one.weights).sum()) for one in tried]
        coarse[n] = tried[costs.index(min(costs))]
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def _starts(first: Scan, scan: Scan) -> list[Scan]:
    """Where to begin: in world coordinates as they are, and, with masks, with their middles in one place."""
    starts = [scan]
    if first.mask is not None and scan.mask is not None:
        there, here = (_middle(one) for one in (first, scan))
        motion = scan.motion.clone()
        motion[:, 3:] += there - here
        starts.append(replace(scan, motion=motion))
    return starts


def _middle(scan: Scan) -> Tensor:
    assert scan.mask is not None
    at = torch.nonzero(scan.mask[0, 0]).double().mean(0)
    return torch.from_numpy(scan.grid.to_world(at.numpy()))


def _stacks(scans: list[Scan], target: Grid, spacing: float) -> list[Scan]:
    """Each scan but the first aligned to the volume of all others."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    for n in range(1, len(scans)):
        volume = volume_of([one for m, one in enumerate(coarse) if m != n], grid)
        coarse[n] = align(volume, grid, coarse[n], each_slice=False)
    return [_taken(one, other) for one, other in zip(scans, coarse, strict=True)]


def _judged(scans: list[Scan], target: Grid, spacing: float) -> list[Scan]:
    """The scans with weight 0 for slices that fit worse than the rest of their stack."""
    grid = target.refine(spacing)
    coarse = [scan.coarser(spacing) for scan in scans]
    volume = volume_of(coarse, grid)
    out = []
    for scan, one in zip(scans, coarse, strict=True):
        out.append(replace(scan, weights=_weights(fit(volume, grid, one))))
    return out


def _weights(found: Fit) -> Tensor:
    seen = found.counts >= max(10, 0.02 * float(found.counts.max()))
    # Against what there is in the slice: those at the ends hardly show anything, and hardly err.
    level = (found.misfit / (found.signal + LEAST_SIGNAL * found.signal[seen].median())).clamp(min=1e-6).log()
    median = level[seen].median()
    width = 1.4826 * float((level[seen] - median).abs().median())
    limit = max(OUTLYING * width, float(torch.tensor(LEAST_FACTOR).log()))
    return (~(seen & (level - median > limit))).double()
