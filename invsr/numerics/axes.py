"""Small matrices along the axes of a volume."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from invsr.errors import InvsrError


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


def diagonal_in(bases: Sequence[Tensor], diagonal: Tensor, x: Tensor) -> Tensor:
    """``V D V* x`` with V the Kronecker product of three orthonormal `bases`, D of shape (i, j, k)."""
    for n in (0, 1, 2):
        x = multiply(bases[n].mH, x, n)
    x = x * diagonal
    for n in (0, 1, 2):
        x = multiply(bases[n], x, n)
    return x


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
    weights = torch.exp(-0.5 * ((at[:, None] - at) * (GAUSSIAN_FWHM / fwhm)) ** 2)
    return weights / weights.sum(1, keepdim=True)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for small matrices: several wait for each other, 500 times as long where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
