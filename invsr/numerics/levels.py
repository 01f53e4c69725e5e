"""The level of what is bright in an image."""

from __future__ import annotations

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
