"""Cropping and zero-filling of k-space: images of another matrix size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.differences import NEUMANN, PERIODIC
from invsr.operators.base import LinearOperator
from invsr.operators.separable import Separable


class FourierResize(Separable):
    """The same Fourier series on a grid of another matrix size; each axis is cropped or zero-filled.

    ``y[m] = 1/N sum_f X[f] exp(2 pi i f m / n)`` over the frequencies f that both sizes hold, with X the
    discrete Fourier transform along the axis. Voxel 0 stays in place, the spacing becomes N/n times as large,
    constants are preserved. An even size holds its Nyquist frequency with negative sign only; real data
    takes the real part, which shares it equally between the signs.

    Parameters
    ----------
    domain : Grid
    shape : three of int
    """

    def __init__(self, domain: Grid, shape: Sequence[int]) -> None:
        affine = domain.affine.copy()
        affine[:3, :3] *= np.array(domain.shape) / np.array(shape)
        LinearOperator.__init__(self, domain, Grid(shape, affine))
        self.order = (0, 1, 2)
        resized = [a != b for a, b in zip(domain.shape, self.range.shape, strict=True)]
        a, b, c = (PERIODIC if r else NEUMANN for r in resized)
        self.boundary = (a, b, c)
        for n in (0, 1, 2):
            held = min(domain.shape[n], self.range.shape[n])
            # Whole numbers, so that a change of dtype leaves the matrices exact.
            self.register_buffer(f"frequencies_{n}", torch.arange(held) - held // 2 if resized[n] else None)

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b, c = (self._matrix(n) for n in (0, 1, 2))
        return a, b, c

    def _matrix(self, n: int) -> Tensor | None:
        frequencies: Tensor | None = getattr(self, f"frequencies_{n}")
        if frequencies is None:
            return None
        size, new = self.domain.shape[n], self.range.shape[n]
        at = torch.arange(new, dtype=torch.float64, device=frequencies.device)[:, None] / new
        voxels = torch.arange(size, dtype=torch.float64, device=frequencies.device) / size
        turns = 2j * math.pi * frequencies.double()  # a plain complex number times integers would be complex64
        matrix = torch.exp(turns * at) @ torch.exp(-turns[:, None] * voxels) / size
        return matrix.real if len(frequencies) % 2 else matrix  # an odd number of frequencies is symmetric


class KSpaceCrop(FourierResize):
    """The image of a smaller k-space matrix: in-plane truncation, with its Gibbs ringing.

    ``y[m] = 1/N sum_f X[f] exp(2 pi i f m / n)``, f the n frequencies nearest to zero; see `FourierResize`.

    Parameters
    ----------
    domain : Grid
    shape : three of int
        Matrix size to keep, at most the domain's.

    Raises
    ------
    InvsrError
        When a size is above the domain's.

    Examples
    --------
    >>> A = KSpaceCrop(Grid((8, 8, 4), np.eye(4)), (4, 6, 4))
    >>> A.range.spacing.round(3).tolist()
    [2.0, 1.333, 1.0]
    """

    def __init__(self, domain: Grid, shape: Sequence[int]) -> None:
        if any(n > size for n, size in zip(shape, domain.shape, strict=True)):
            raise InvsrError(f"a k-space of {domain.shape} cannot be cropped to {tuple(shape)}: use zero_fill")
        super().__init__(domain, shape)


def zero_fill(domain: Grid, shape: Sequence[int]) -> FourierResize:
    """The operator that zero-fills k-space to a finer grid, the reverse of `KSpaceCrop`.

    ``KSpaceCrop(fine, n) @ zero_fill(coarse, N)`` is the identity on complex images; on real ones it halves
    the Nyquist frequency of an even n.

    Raises
    ------
    InvsrError
        When a size is below the domain's.
    """
    if any(n < size for n, size in zip(shape, domain.shape, strict=True)):
        raise InvsrError(f"a k-space of {domain.shape} cannot be zero-filled to {tuple(shape)}: use KSpaceCrop")
    return FourierResize(domain, shape)
