"""Sparse matrices of linear interpolation, kept by operators that are used often."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invsr.numerics.cache import StateCache, learnable

# From this use on a matrix is kept, which takes as long to make; and how many entries it may have at most, before
# those of one voxel are added up.
OFTEN = 6
LARGEST = 2e8


class CachedSparseMatrix:
    """An operator's sparse matrix (scipy's CSR), made at its `OFTEN`-th use in one state.

    Its transpose is that matrix read by columns. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._cache = StateCache(limit=2)
        self.made = False

    def of(
        self,
        module: nn.Module,
        shape: Sequence[int],
        like: Tensor,
        entries: float,
        make: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    ) -> Any:
        """The matrix; None before the `OFTEN`-th use, where derivatives are asked for, and where it would be too large.

        Parameters
        ----------
        module : nn.Module
            The operator whose parameters and buffers the matrix depends on.
        shape : three of int
            Shape of the volume.
        like : Tensor
            Data or volume that it is needed for: its real dtype is the matrix's.
        entries : float
            Upper bound of the matrix's number of entries.
        make : callable
            The samples, as `linear_matrix` takes them.
        """
        asked = like.requires_grad or learnable(module)
        if (torch.is_grad_enabled() and asked) or entries > LARGEST or like.device.type != "cpu":
            return None
        dtype = like.real.dtype
        uses: list[int] = self._cache.get(module, ("uses", dtype), lambda: [0])
        uses[0] += 1
        if uses[0] < OFTEN:
            return None
        self.made = True
        return self._cache.get(module, ("matrix", dtype), lambda: linear_matrix(shape, make()))


def linear_matrix(shape: Sequence[int], parts: Iterable[tuple[Tensor, Tensor]]) -> Any:
    """Matrix that takes a flat volume to weighted sums of its values between voxels.

    Parameters
    ----------
    shape : three of int
        Shape of the volume.
    parts : iterable of (Tensor, Tensor)
        A few rows at a time: positions as `normalised` gives them, shape (rows, points, 3), and their weights, shape
        (rows, points).

    Returns
    -------
    scipy.sparse.csr_array
    """
    from scipy import sparse

    size = torch.tensor(list(shape))
    blocks = []
    for at, share in parts:
        n_rows, n_points = share.shape
        # grid_sample's coordinates back to voxels; beyond the outermost centres the edge is replicated.
        p = ((at.flip(-1) + 1) * ((size - 1).clamp(min=1) / 2).to(at)).flatten(0, 1)
        p = torch.minimum(p.clamp(min=0), (size - 1).to(p))
        first = torch.minimum(p.floor(), (size - 2).clamp(min=0).to(p))
        rest, first = p - first, first.int()
        columns, weights = [], []
        for corner in itertools.product((0, 1), repeat=3):
            voxel = first + torch.minimum(torch.tensor(corner), size - 1).int()
            columns.append((voxel[:, 0] * int(size[1]) + voxel[:, 1]) * int(size[2]) + voxel[:, 2])
            factor = torch.where(torch.tensor(corner, dtype=torch.bool), rest, 1 - rest).prod(-1)
            weights.append(factor * share.flatten())
        rows = torch.arange(n_rows, dtype=torch.int32)[:, None].expand(-1, n_points).flatten().repeat(8)
        entries = torch.cat(weights)
        kept = entries != 0
        found = (entries[kept].numpy(), (rows[kept].numpy(), torch.cat(columns)[kept].numpy()))
        blocks.append(sparse.coo_array(found, shape=(n_rows, int(size.prod()))).tocsr())
    return sparse.vstack(blocks, format="csr")


def applied(matrix: Any, x: Tensor) -> Tensor:
    """The matrix's products with volumes or data of shape (1, channels, ...), shape (1, channels, rows)."""
    return torch.stack([torch.from_numpy(matrix @ one.flatten().numpy()) for one in x[0]])[None]
