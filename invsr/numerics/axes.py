"""Small matrices along the axes of a volume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from invsr.errors import InvsrError

# Voxels that are worked on at once where a volume is overwritten.
SLAB = 1 << 21
# Share of the largest entry below which one is no part of a matrix.
NEGLIGIBLE = 1e-12


def multiply(matrix: Tensor | None, x: Tensor, axis: int) -> Tensor:
    """Apply a (m, n) matrix along volume axis 0, 1 or 2 of x, shape (batch, channel, i, j, k)."""
    if matrix is None:
        return x
    if axis == 2:
        return x @ matrix.mT
    if axis == 1:
        return torch.matmul(matrix, x)
    shape = x.shape
    return torch.matmul(matrix, x.reshape(*shape[:3], -1)).reshape(*shape[:2], matrix.shape[0], *shape[3:])


def rotate(bases: Sequence[Tensor], x: Tensor, axes: Sequence[int] = (0, 1, 2), owned: bool = False) -> Tensor:
    """Apply square matrices, one per axis named, to x, shape (batch, channel, i, j, k).

    Without gradients the result is made in one volume, a slab at a time: large volumes do not fit into memory
    often. That one is x itself where the caller owns it, and then must not use it again.
    """
    for basis, n in zip(bases, axes, strict=True):
        if owned and not torch.is_grad_enabled():
            x = _in_place(basis, x.contiguous(), n)
        else:
            x, owned = multiply(basis, x, n), True
    return x


def _in_place(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """Overwrite x, contiguous, with `multiply` of it by a square matrix."""
    *_, i, j, k = x.shape
    if axis == 2:
        for part in _slabs(x.view(-1, k), 0):
            part.copy_(part @ matrix.mT)
        return x
    # The axis is the second of three; the cut leaves long runs in memory.
    rows, along = (x.view(-1, i, j * k), 2) if axis == 0 else (x.view(-1, j, k), 0)
    for part in _slabs(rows, along):
        part.copy_(torch.matmul(matrix, part))
    return x


def _slabs(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Views of x, cut along an axis."""
    return torch.split(x, max(1, SLAB * x.shape[axis] // max(1, x.numel())), axis)


def diagonal_in(bases: Sequence[Tensor], diagonal: Tensor, x: Tensor) -> Tensor:
    """``V D V* x`` with V the Kronecker product of three orthonormal `bases`, D of shape (i, j, k)."""
    x = rotate([basis.mH for basis in bases], x)
    x = x * diagonal if torch.is_grad_enabled() else x.mul_(diagonal)
    return rotate(bases, x, owned=True)


def range_basis(matrix: Tensor) -> Tensor | None:
    """Orthonormal columns that span what a (m, n) matrix can produce; None when that is everything.

    Rows of zeros (samples outside the domain) are left out, and of an axis with more samples than unknowns
    only the part that the unknowns can explain is kept.
    """
    covered = matrix.abs().sum(1) > 0
    m, n = int(covered.sum()), matrix.shape[1]
    if m == len(matrix) and m <= n:
        return None
    basis = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)[:, covered]
    return basis if m <= n else basis @ torch.linalg.qr(matrix[covered]).Q


GAUSSIAN_FWHM = 2 * math.sqrt(2 * math.log(2))


def gaussian_means(size: int, fwhm: float) -> Tensor:
    """Matrix (size, size) of Gaussian-weighted means along a line, normalised at its ends; fwhm in voxels. float64."""
    at = torch.arange(size, dtype=torch.float64)
    weights = without_negligible(torch.exp(-0.5 * ((at[:, None] - at) * (GAUSSIAN_FWHM / fwhm)) ** 2))
    return weights / weights.sum(1, keepdim=True)


def without_negligible(matrix: Tensor) -> Tensor:
    """A matrix whose entries decay, those that have all but done so set to 0.

    In single precision they would be denormal numbers, with which a product takes up to thirty times as long.
    """
    size = matrix.abs()
    return torch.where(size > NEGLIGIBLE * size.max(), matrix, 0.0)


def eigenbasis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a self-adjoint (n, n) matrix.

    Raises
    ------
    InvsrError
        When the decomposition fails: for entries that are not finite or of very different sizes, as wrong units give.
    """
    try:
        with one_thread():
            values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # documented, not in the stubs
        sizes = matrix.detach().abs()
        raise InvsrError(
            f"the matrix of an axis of {len(matrix)} voxels has no eigenvectors (entries from {float(sizes.min()):.3g} "
            f"to {float(sizes.max()):.3g}): check voxel spacing, slice thickness and their units in the header"
        ) from None
    return values, vectors


def one_thread() -> AbstractContextManager[None]:
    """One thread for small matrices: several wait for each other, 500 times as long where other programs run."""
    return so_many_threads(1)


@contextmanager
def so_many_threads(count: int) -> Iterator[None]:
    """Within it, PyTorch has so many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
