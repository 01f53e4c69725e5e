"""Scans with intensities well below 0 are taken from their floor up: networks know images whose air is dark, near 0."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from invsr.numerics.levels import MOST, peak
from invsr.pipeline.scan import Scan

# Ringing around 0 puts fewer voxels than this share further below it than this share of the peak, and noise fewer than
# that further than so many of its standard deviations.
LEAST_SHARE, LEAST_DEPTH, LEAST_SIGMAS = 0.02, 0.05, 4.0
# The share of voxels that may lie below the floor.
BELOW = 0.001


def above_floor(scan: Scan) -> Scan:
    """The scan less its floor, which becomes its `offset`, where many of its intensities are negative.

    So are those of images that were standardised (mean 0, deviation 1), of inversion recovery with its sign, of
    differences and of Hounsfield units. Nothing is lost: slices of a volume with an offset have that offset.
    """
    data = scan.data if scan.inside is None else scan.data[scan.inside]
    if data.is_complex() or scan.noise_model == "rician":
        return scan
    values = data.flatten()[:: max(1, data.numel() // MOST)]
    depth = LEAST_DEPTH * peak(values)
    if _share_below(values, depth) < LEAST_SHARE or _share_below(values, LEAST_SIGMAS * scan.sigma()) < LEAST_SHARE:
        return scan
    floor = float(values.kthvalue(max(1, round(BELOW * values.numel()))).values)
    if not float(values.max()) > floor * (1 - LEAST_DEPTH):  # next to constant
        return scan
    note = (
        f"{scan.name}: intensities below 0: they are counted from {floor:.4g}, which is added to the result again "
        "(--faults keep takes them as they are)"
    )
    volume = replace(scan.volume, data=scan.data - floor)
    return replace(scan, volume=volume, offset=scan.offset + floor, notes=(*scan.notes, note))


def _share_below(values: Tensor, depth: float) -> float:
    return float((values < -depth).float().mean())
