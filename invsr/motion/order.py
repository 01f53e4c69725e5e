"""Order of slice acquisition: slices acquired one after the other move together, neighbours in space need not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# With fewer slices the order cannot be estimated.
LEAST_SLICES_FOR_ORDER = 8
# Another order is chosen if the mean squared motion between consecutive slices falls below this share.
SMOOTHER = 0.6


def by_times(times: Sequence[float]) -> Tensor:
    """Slice numbers in the order of their acquisition times; simultaneous slices (multiband) in file order."""
    return torch.argsort(torch.tensor(list(times), dtype=torch.float64), stable=True)


def interleaved(n_slices: int, step: int, first: int = 0) -> Tensor:
    """Slice numbers of an interleaved acquisition: 0, 2, 4, ..., 1, 3, 5, ... for a step of 2."""
    starts = [(first + n) % step for n in range(step)]
    return torch.cat([torch.arange(start, n_slices, step) for start in starts])


def n_packages(order: Tensor | None) -> int:
    """Number of interleaved packages of an order of acquisition; 1 where it is none, 2 where it is not known.

    Slices n, n + step, n + 2 step, ... follow each other in time, in whatever order; so do several bands at once.

    Examples
    --------
    >>> n_packages(interleaved(20, 3)), n_packages(torch.arange(20)), n_packages(None)
    (3, 1, 2)
    """
    if order is None:
        return 2
    for step in range(2, math.isqrt(len(order)) + 1):
        if int((torch.diff(order % step) != 0).sum()) == step - 1:
            return step
    return 1


def guessed(motion: Tensor, used: Tensor, now: Tensor) -> Tensor:
    """The order along which the estimated motion is smooth; `now`, unless another is clearly smoother.

    Candidates are the order of the file and interleaves by 2, 3, 4 and the square root of the number of slices, as
    vendors use them.

    Parameters
    ----------
    motion : Tensor, shape (n_slices, 6)
        Motion in comparable units (mm).
    used : Tensor, bool, shape (n_slices,)
        Slices whose motion was estimated.
    now : Tensor, shape (n_slices,)
        The order assumed so far.
    """
    n = len(motion)
    if n < LEAST_SLICES_FOR_ORDER:
        return now
    tried = [torch.arange(n), interleaved(n, 2), interleaved(n, 2, 1)]
    tried += [interleaved(n, step) for step in sorted({3, 4, max(2, round(math.sqrt(n)))})]

    def roughness(order: Tensor) -> float:
        path = motion[order[used[order]]]
        return float((path[1:] - path[:-1]).square().sum(1).mean()) if len(path) > 1 else 0.0

    values = [roughness(order) for order in tried]
    best = values.index(min(values))
    return tried[best] if values[best] < SMOOTHER * roughness(now) else now


def links(order: Tensor) -> Tensor:
    """For each slice the slices acquired before and after it, or itself at the ends; shape (n_slices, 2)."""
    found = torch.empty(len(order), 2, dtype=torch.long)
    found[order] = torch.stack([torch.cat([order[:1], order[:-1]]), torch.cat([order[1:], order[-1:]])], 1)
    return found
