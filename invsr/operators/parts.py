"""Parts of separable operators: some of the voxels, and the samples that see nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.operators.separable import Separable

# What a sample takes from a voxel counts as nothing below this share of the most that it takes from any.
NOTHING = 1e-3

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Part:
    """A part of an operator.

    Attributes
    ----------
    operator : Separable
        From the voxels in `voxels` to the samples in `samples`.
    voxels, samples : three of slice
        Where they lie in the whole operator's domain and range.
    """

    operator: Separable
    voxels: Box
    samples: Box


def part_of(operator: Separable, low: Sequence[int], high: Sequence[int]) -> Part:
    """The operator between two corners in voxels, `high` not included, to the samples that see nothing else.

    An axis along which samples see voxels far and wide (k-space) is left whole.
    """
    voxels = [slice(a, b) for a, b in zip(low, high, strict=True)]
    samples: list[slice] = []
    matrices: list[Tensor | None] = []
    for n, matrix in enumerate(operator.matrices()):
        d = operator.order[n]
        if matrix is None:
            samples.append(voxels[d])
            matrices.append(None)
            continue
        share = (voxels[d].stop - voxels[d].start) / operator.domain.shape[d]
        within = _within(matrix.detach(), voxels[d])
        if within.stop - within.start < 0.5 * share * len(matrix):
            voxels[d], within = slice(0, operator.domain.shape[d]), slice(0, len(matrix))
        samples.append(within)
        matrices.append(matrix.detach()[within, voxels[d]])
    domain, range = _cut(operator.domain, voxels), _cut(operator.range, samples)
    part = Separable(domain, range, matrices, operator.order, operator.boundary)
    i, j, k = voxels
    p, q, r = samples
    return Part(part, (i, j, k), (p, q, r))


def _within(matrix: Tensor, voxels: slice) -> slice:
    """The longest run of rows whose weights lie within the voxels."""
    weights = matrix.abs()
    counted = weights > NOTHING * weights.amax(1, keepdim=True)
    inside = counted.any(1)
    counted[:, voxels] = False
    inside &= ~counted.any(1)
    ends = [-1, *torch.nonzero(~inside).flatten().tolist(), len(matrix)]
    return max((slice(a + 1, b) for a, b in pairwise(ends)), key=lambda run: run.stop - run.start)


def _cut(grid: Grid, box: Sequence[slice]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world([one.start for one in box])
    return Grid([one.stop - one.start for one in box], affine)
