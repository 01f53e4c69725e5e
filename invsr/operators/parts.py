"""Parts of separable operators: some of the voxels, and the samples that see little else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.operators.separable import Separable

# Samples belong to a part that have this share of their weights in it, summed in squares.
LEAST_SHARE = 0.9

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Part:
    """A part of an operator.

    Attributes
    ----------
    operator : Separable
        From the voxels in `voxels` to the samples in `samples`, as if all other voxels were 0.
    voxels, samples : three of slice
        Where they lie in the whole operator's domain and range.
    """

    operator: Separable
    voxels: Box
    samples: Box


def part_of(operator: Separable, low: Sequence[int], high: Sequence[int]) -> Part | None:
    """The operator between two corners in voxels, `high` not included; None where no sample belongs there."""
    i, j, k = (slice(a, b) for a, b in zip(low, high, strict=True))
    voxels = (i, j, k)
    along = [voxels[d] for d in operator.order]
    whole = operator.matrices()
    p, q, r = samples = [one if m is None else _belonging(m, one) for m, one in zip(whole, along, strict=True)]
    if any(one.stop <= one.start for one in samples):
        return None
    matrices = [None if m is None else m.detach()[a, b] for m, a, b in zip(whole, samples, along, strict=True)]
    part = Separable(_cut(operator.domain, voxels), _cut(operator.range, samples), matrices, operator.order)
    return Part(part, voxels, (p, q, r))


def _belonging(matrix: Tensor, voxels: slice) -> slice:
    """From the first to the last row that belongs to the voxels."""
    squares = matrix.detach().abs().square()
    rows = torch.nonzero(squares[:, voxels].sum(1) > LEAST_SHARE * squares.sum(1)).flatten().tolist()
    return slice(rows[0], rows[-1] + 1) if rows else slice(0, 0)


def _cut(grid: Grid, box: Sequence[slice]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world([one.start for one in box])
    return Grid([one.stop - one.start for one in box], affine)
