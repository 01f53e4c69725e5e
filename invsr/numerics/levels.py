"""The level of what is bright in an image."""

from __future__ import annotations

import torch
from torch import Tensor

PERCENTILE = 99.9
# Voxels that the percentile is taken of.
MOST = 4_000_000


def peak(data: Tensor) -> float:
    """The level of bright tissue, which counts as 1 inside the solvers: a high percentile of what is not 0, else 0."""
    values = data.abs().flatten()
    values = values[values > 0]
    if not values.numel():
        return 0.0
    values = values[:: max(1, values.numel() // MOST)]
    rank = max(1, round(values.numel() * PERCENTILE / 100))
    return float(values.kthvalue(rank).values)


def bright_middle(x: Tensor) -> list[float]:
    """Centre of the brightness of a volume (1, 1, i, j, k), in voxels."""
    weights = x[0, 0].clamp(min=0).double()
    total = weights.sum().clamp(min=1e-30)
    along = (weights.sum([n for n in range(3) if n != axis]) for axis in range(3))
    return [float((one * torch.arange(len(one)).to(one)).sum() / total) for one in along]
