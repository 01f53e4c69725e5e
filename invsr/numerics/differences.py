"""Finite differences on a voxel grid, in intensity per millimetre.

`gradient` takes forward differences, divided by the spacing: along axis n, ``(x[m+1] - x[m]) / h_n``.
At the last voxel a "neumann" axis has difference zero (nothing flows through the face of the field of
view) and a "periodic" axis wraps round, as an image does whose k-space is sampled. The boundary belongs
to the operator (`LinearOperator.boundary`), because it decides in which basis the normal equations are
diagonal: cosines for "neumann", Fourier for "periodic".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.numerics.axes import diagonal_in

NEUMANN, PERIODIC = "neumann", "periodic"


def gradient(x: Tensor, spacing: Sequence[float], boundary: Sequence[str]) -> Tensor:
    """Forward differences of x, shape (..., i, j, k), along its last three axes: shape (3, ..., i, j, k)."""
    parts = (difference(x, n, h, kind) for n, (h, kind) in enumerate(zip(spacing, boundary, strict=True)))
    if torch.is_grad_enabled():
        return torch.stack(list(parts))
    out = x.new_empty(3, *x.shape)  # one after the other: those of a large volume do not fit into memory twice
    for n, part in enumerate(parts):
        out[n] = part
    return out


def difference(x: Tensor, axis: int, spacing: float, boundary: str) -> Tensor:
    """Entry `axis` of `gradient`, shape of x."""
    at, last = axis - 3, x.shape[axis - 3] - 1
    ahead = x.narrow(at, 0, 1) if boundary == PERIODIC else x.narrow(at, last, 1)
    out = torch.cat([x.narrow(at, 1, last), ahead], at)
    return out.sub_(x).div_(spacing) if not out.requires_grad else (out - x) / spacing


def gradient_adjoint(g: Tensor, spacing: Sequence[float], boundary: Sequence[str]) -> Tensor:
    """Transpose of `gradient` (minus the divergence): shape (3, ..., i, j, k) to (..., i, j, k)."""
    x = torch.zeros(g.shape[1:], dtype=g.dtype, device=g.device)
    for n, (h, kind) in enumerate(zip(spacing, boundary, strict=True)):
        axis = n - 3
        size = x.shape[axis]
        body = g[n].narrow(axis, 0, size - 1)
        x.narrow(axis, 1, size - 1).add_(body, alpha=1 / h)
        x.narrow(axis, 0, size - 1).sub_(body, alpha=1 / h)
        if kind == PERIODIC:
            last = g[n].narrow(axis, size - 1, 1)
            x.narrow(axis, 0, 1).add_(last, alpha=1 / h)
            x.narrow(axis, size - 1, 1).sub_(last, alpha=1 / h)
    return x


def laplacian(x: Tensor, spacing: Sequence[float], boundary: Sequence[str]) -> Tensor:
    """Gram operator of `gradient`, positive semi-definite: ``gradient_adjoint(gradient(x))``."""
    out = torch.zeros_like(x)
    for n, (h, kind) in enumerate(zip(spacing, boundary, strict=True)):
        axis = n - 3
        last, weight = x.shape[axis] - 1, 1 / h**2
        step = x.narrow(axis, 1, last) - x.narrow(axis, 0, last)
        out.narrow(axis, 1, last).add_(step, alpha=weight)
        out.narrow(axis, 0, last).sub_(step, alpha=weight)
        if kind == PERIODIC:
            step = x.narrow(axis, 0, 1) - x.narrow(axis, last, 1)
            out.narrow(axis, 0, 1).add_(step, alpha=weight)
            out.narrow(axis, last, 1).sub_(step, alpha=weight)
    return out


def laplacian_matrix(size: int, spacing: float, boundary: str) -> npt.NDArray[np.float64]:
    """`laplacian` along one axis as a dense (size, size) matrix, float64."""
    d = np.eye(size, k=1) - np.eye(size)
    d[-1] = 0.0
    if boundary == PERIODIC and size > 1:
        d[-1, -1], d[-1, 0] = -1.0, 1.0
    return np.asarray(d.T @ d / spacing**2)


def laplacian_spectrum(size: int, spacing: float, boundary: str) -> npt.NDArray[np.float64]:
    """Eigenvalues of `laplacian_matrix`: of DCT-II vectors ("neumann") or in FFT order ("periodic").

    ``4 sin^2(pi m / 2N) / h^2`` for cosine m, ``4 sin^2(pi m / N) / h^2`` for frequency m.
    """
    angle = np.pi * np.arange(size) / (size if boundary == PERIODIC else 2 * size)
    return np.asarray(4 * np.sin(angle) ** 2 / spacing**2)


def laplacian_basis(size: int, boundary: str) -> npt.NDArray[np.float64]:
    """Orthonormal eigenvectors of `laplacian_matrix`, one per column, in the order of `laplacian_spectrum`.

    DCT-II vectors ("neumann"), or ``cas(2 pi m n / N)`` with ``cas = cos + sin`` ("periodic": real, and as good as
    Fourier's because the eigenvalues of frequencies m and -m are equal).
    """
    at, m = np.arange(size)[:, None], np.arange(size)
    if boundary == PERIODIC:
        angle = 2 * np.pi * at * m / size
        return np.asarray((np.cos(angle) + np.sin(angle)) / np.sqrt(size))
    basis = np.cos(np.pi * (at + 0.5) * m / size) * np.sqrt(2 / size)
    basis[:, 0] = 1 / np.sqrt(size)
    return np.asarray(basis)


def smoothed(r: Tensor, weight: float, rho: float, spacing: Sequence[float], boundary: Sequence[str]) -> Tensor:
    """``(weight + rho grad* grad)^-1 r``: a cosine (or Fourier) transform, a division, and back."""
    shape = r.shape[-3:]
    total = torch.full((1, 1, 1), float(weight), dtype=torch.float64)
    bases = []
    for n, (size, h, kind) in enumerate(zip(shape, spacing, boundary, strict=True)):
        spectrum = torch.from_numpy(laplacian_spectrum(size, h, kind))
        total = total + rho * spectrum.reshape([-1 if d == n else 1 for d in (0, 1, 2)])
        bases.append(torch.from_numpy(laplacian_basis(size, kind)).to(r))
    return diagonal_in(bases, (1 / total).to(r.device, r.real.dtype), r)
