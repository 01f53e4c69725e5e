"""The centred orthonormal Fourier transform: index ``N // 2`` is position zero and frequency zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fourier(x: Tensor, axes: Sequence[int]) -> Tensor:
    """``X[f] = N^-1/2 sum_n x[n] exp(-2 pi i f n / N)`` along volume axes 0, 1, 2, of x, shape (..., i, j, k)."""
    along = [n - 3 for n in axes]
    shifted = torch.fft.fftn(torch.fft.ifftshift(x, along), dim=along, norm="ortho")
    found: Tensor = torch.fft.fftshift(shifted, along)
    return found


def inverse_fourier(y: Tensor, axes: Sequence[int]) -> Tensor:
    """The inverse of `fourier`, which is its adjoint."""
    along = [n - 3 for n in axes]
    shifted = torch.fft.ifftn(torch.fft.ifftshift(y, along), dim=along, norm="ortho")
    found: Tensor = torch.fft.fftshift(shifted, along)
    return found


def convolved(x: Tensor, weights: Tensor, axes: Sequence[int]) -> Tensor:
    """``F* diag(weights) F x``, F being `fourier`: shifts cancel, so that it takes two plain transforms.

    Parameters
    ----------
    x : Tensor, shape (..., i, j, k), complex
    weights : Tensor, broadcastable to x
        In the order of `torch.fft.ifftshift`: frequency zero first.
    axes : sequence of {0, 1, 2}
    """
    along = [n - 3 for n in axes]
    y = torch.fft.fftn(x, dim=along)
    y = y * weights if torch.is_grad_enabled() else y.mul_(weights)
    found: Tensor = torch.fft.ifftn(y, dim=along)
    return found
