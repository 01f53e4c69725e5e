"""Single slices that do not fit between their neighbours: darker ones, and corrupt ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsr.inspection.slices import FEWEST_PIXELS, TISSUE, smoothed
from invsr.numerics.levels import peak

# A slice is darker if it is so by this logarithm against both neighbours. Scans without fault reach 0.13.
LEAST_DARKER = 0.16
# A slice is corrupt if its neighbours correlate with each other by so much more than either does with it, by anything
# if it is darker as well; if both correlate with it by so much less than neighbours usually do, which slices near the
# midline, between two that mirror each other, do not; and if it shows this share of the tissue that the fullest slice
# does.
LEAST_CORRUPT, LEAST_UNLIKE, LEAST_FULL = 0.06, 0.1, 0.3
# Where neighbouring slices correlate by less, in the median, they are too far apart to be judged by each other: single
# ones, and packages of them, which are many.
LEAST_ALIKE, LEAST_ALIKE_PACKAGES = 0.55, 0.4
# More than this share of slices is a property of the scan, not of single slices.
MOST_SLICES = 0.2
# Pixels along each side that are looked at, means of those that there are.
MOST_PIXELS = 128


def darker_slices(slices: Tensor, left_out: Sequence[int] = ()) -> dict[int, float]:
    """Slices that are darker than both neighbours, by number, and the factor of their intensities.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    left_out : sequence of int
        Numbers of slices that were interpolated from their neighbours: they are no finding.
    """
    step = _log_ratios(_coarse(slices.abs()))
    which = [k for k in (_darker(step).nonzero()[:, 0] + 1).tolist() if k not in left_out]
    if len(which) > MOST_SLICES * slices.shape[2]:
        return {}
    return {k: float((0.5 * (step[k - 1] - step[k])).exp()) for k in which}


def corrupt_slices(slices: Tensor) -> list[int]:
    """Numbers of slices that do not belong between their neighbours, which are more like each other than like them.

    Anatomy changes steadily: slices at twice the distance are less alike. A slice that moved, was swapped, or is full
    of artefacts breaks that rule.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    """
    coarse = _coarse(slices.abs())
    smooth = smoothed(coarse)
    next_one, next_but_one = _correlations(smooth, 1), _correlations(smooth, 2)
    alike = torch.maximum(next_one[:-1], next_one[1:])
    excess = next_but_one - alike
    area = (smooth > TISSUE * peak(smooth)).sum((0, 1)).cpu()
    full = area[1:-1] > LEAST_FULL * area.max()
    unlike = alike < next_one.nanmedian() - LEAST_UNLIKE
    found = full & unlike & ((excess > LEAST_CORRUPT) | ((excess > 0) & _darker(_log_ratios(coarse))))
    which = (found.nonzero()[:, 0] + 1).tolist()
    return which if len(which) <= MOST_SLICES * slices.shape[2] else []


def are_alike(slices: Tensor, least: float = LEAST_ALIKE) -> bool:
    """Whether neighbouring slices, or those of the same of two packages, are alike enough to be judged by each other.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    least : float
        Correlation that they have at least, in the median.
    """
    smooth = smoothed(_coarse(slices.abs()))
    return any(bool(_correlations(smooth, distance).nanmedian() > least) for distance in (1, 2))


def _darker(step: Tensor) -> Tensor:
    """Which slices but the first and the last are darker than both neighbours."""
    return torch.maximum(step[:-1], -step[1:]) < -LEAST_DARKER


def _coarse(slices: Tensor) -> Tensor:
    factor = max(1, min(slices.shape[:2]) // MOST_PIXELS)
    pooled = torch.nn.functional.avg_pool2d(slices.permute(2, 0, 1)[:, None], factor)
    return pooled[:, 0].permute(1, 2, 0)


def _log_ratios(size: Tensor) -> Tensor:
    """Of each slice over the one before, the median over tissue of both; NaN where there is too little."""
    bright = peak(size)
    values = torch.full((size.shape[2] - 1,), torch.nan)
    for k in range(size.shape[2] - 1):
        one, other = size[..., k], size[..., k + 1]
        tissue = (one + other > 2 * TISSUE * bright) & (torch.minimum(one, other) > 0.25 * TISSUE * bright)
        if int(tissue.sum()) >= FEWEST_PIXELS:
            values[k] = (other[tissue].log() - one[tissue].log()).median().cpu()
    return values


def _correlations(slices: Tensor, distance: int) -> Tensor:
    """Between slices at a distance, over the tissue of either; NaN where there is too little."""
    below, above = slices[..., :-distance], slices[..., distance:]
    tissue = (torch.maximum(below, above) > TISSUE / 3 * peak(slices)).to(slices)
    count = tissue.sum((0, 1)).clamp(min=1)
    one, other = ((part - (part * tissue).sum((0, 1)) / count) * tissue for part in (below, above))
    power = (one * one).sum((0, 1)) * (other * other).sum((0, 1))
    product = (one * other).sum((0, 1)) / power.clamp(min=1e-30).sqrt()
    return torch.where(count >= FEWEST_PIXELS, product, torch.nan).cpu()
