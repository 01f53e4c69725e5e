"""Smooth random fields and filters of training patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv3d, interpolate, pad


def blend(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A smooth random field between 0 and 1."""
    knots = torch.randn((1, 1, *(max(2, round(n / 12)) for n in shape)), generator=generator)
    return interpolate(2 * knots, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0].sigmoid()


def bias(shape: Sequence[int], level: float, generator: torch.Generator) -> Tensor:
    """A smooth random field around 1, the standard deviation of its logarithm `level`."""
    knots = torch.randn((1, 1, 3, 3, 3), generator=generator) * level
    field = interpolate(knots, size=tuple(shape), mode="trilinear", align_corners=True)
    return field[0, 0].exp()


def smooth(x: Tensor, width: float, axes: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Gaussian smoothing, standard deviation `width` voxels, of (1, 1, i, j, k)."""
    if width <= 0:
        return x
    radius = max(1, round(3 * width))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / width) ** 2)
    taps = taps / taps.sum()
    for axis in axes:
        size = [1, 1, 1, 1, 1]
        size[axis + 2] = 2 * radius + 1
        beside = [radius * (axis == n) for n in range(3)]
        padded = pad(x, [p for n in reversed(range(3)) for p in (beside[n], beside[n])], mode="replicate")
        x = conv3d(padded, taps.reshape(size))
    return x


def apodised(x: Tensor, axis: int, keep: float, window: float) -> Tensor:
    """k-space along one axis cut to a share `keep` and tapered, between a boxcar (window 0) and Hamming's (1)."""
    n = x.shape[axis + 2]
    frequency = torch.fft.rfftfreq(n) * 2 / keep
    taper = 1 - window * 0.46 * (1 - torch.cos(torch.pi * frequency.clamp(max=1)))
    weights = torch.where(frequency <= 1, taper, 0.0)
    size = [1] * 5
    size[axis + 2] = -1
    out: Tensor = torch.fft.irfft(torch.fft.rfft(x, dim=axis + 2) * weights.reshape(size), n=n, dim=axis + 2)
    return out
