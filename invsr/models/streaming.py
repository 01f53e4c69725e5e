"""Layers over a volume a few planes at a time: what lies between them never exists for the whole volume at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from invsr.numerics.iteration import tell

# Planes that are worked on at once, even.
PLANES = 8
# PyTorch convolves a batch of one in 3-D by a loop ten times as slow as oneDNN, unless the product of channels and the
# first two sides exceeds this (`use_mkldnn` in its Convolution.cpp).
LARGEST_SLOW_SIZE = 20_480


class Stage(Protocol):
    """A layer that takes planes (axis 2) as they come, and gives those that are ready."""

    def push(self, x: Tensor, last: bool) -> Tensor: ...


class Convolution:
    """A convolution of width 3 with zeros around the volume: one plane behind its input, until the last ones.

    Parameters
    ----------
    convolve : callable
        ``convolve(x)`` without padding along axis 2.
    channels : int
        Of what it returns.
    """

    def __init__(self, convolve: Any, channels: int) -> None:
        self.convolve, self.channels = convolve, channels
        self.before: Tensor | None = None

    @classmethod
    def of(cls, layer: Any) -> Convolution:
        """Of an ``nn.Conv3d`` of width 3 with padding 1 and without a bias."""
        return cls(lambda x: convolved(x, layer.weight), layer.out_channels)

    def push(self, x: Tensor, last: bool) -> Tensor:
        edge = x.new_zeros((*x.shape[:2], 1, *x.shape[3:]))
        parts = [edge if self.before is None else self.before, x, *([edge] if last else [])]
        whole = torch.cat(parts, 2)
        self.before = whole[:, :, -2:]
        if whole.shape[2] < 3:  # deep in a long chain, where no plane is ready yet
            return x.new_empty((len(x), self.channels, 0, *x.shape[3:]))
        found: Tensor = self.convolve(whole)
        return found


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution of width 3, zeros around the volume but along axis 2, whose outermost planes are used up."""
    if not is_slow(x):
        return conv3d(x, weight, padding=(0, 1, 1))
    # Few planes are many columns: with the axes in another order PyTorch takes the fast way.
    return conv3d(x.transpose(2, 4), weight.transpose(2, 4), padding=(1, 1, 0)).transpose(2, 4)


def is_slow(x: Tensor) -> bool:
    """Whether PyTorch convolves a volume by a loop ten times as slow as oneDNN."""
    single = x.device.type == "cpu" and x.dtype == torch.float32 and len(x) == 1
    if not single or torch.is_autocast_enabled("cpu") or is_tracing():
        return False
    return x.shape[1:4].numel() <= LARGEST_SLOW_SIZE


def is_tracing() -> bool:
    """Whether PyTorch records operations, for another engine."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


class Residual:
    """``x + second(activation(first(x)))``."""

    def __init__(self, first: Any, activation: nn.Module, second: Any) -> None:
        self.first, self.activation, self.second = Convolution.of(first), activation, Convolution.of(second)
        self.waiting: Tensor | None = None

    def push(self, x: Tensor, last: bool) -> Tensor:
        change = self.second.push(self.activation(self.first.push(x, last)), last)
        x = x if self.waiting is None else torch.cat([self.waiting, x], 2)
        ready = change.shape[2]
        self.waiting = x[:, :, ready:].clone(memory_format=torch.preserve_format)
        return change.add_(x[:, :, :ready])


class Each:
    """A layer that takes every plane by itself."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def push(self, x: Tensor, last: bool) -> Tensor:
        found: Tensor = self.layer(x) if x.shape[2] else x
        return found


def streamed(stages: Sequence[Stage], parts: Iterable[tuple[Tensor, bool]]) -> Iterator[Tensor]:
    """What the stages, one after the other, make of a volume's planes, a part at a time.

    Parameters
    ----------
    stages : sequence of Stage
    parts : iterable of (Tensor, bool)
        Planes, shape (batch, channel, planes, j, k), and whether they are the last.
    """
    for x, last in parts:
        for stage in stages:
            x = stage.push(x, last)
        if x.shape[2]:
            yield x


def in_parts(x: Tensor, planes: int = PLANES) -> Iterator[tuple[Tensor, bool]]:
    """The planes of a volume, some at a time, and whether they are the last."""
    n = x.shape[2]
    for start in range(0, n, planes):
        yield x[:, :, start : start + planes], start + planes >= n


def gathered(parts: Iterable[Tensor], n_planes: int) -> Tensor:
    """Parts put together into one volume of `n_planes`, each written as it comes."""
    out: Tensor | None = None
    at = 0
    for part in parts:
        if out is None:
            shape = (*part.shape[:2], n_planes, *part.shape[3:])
            out = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last_3d)
        out[:, :, at : at + part.shape[2]] = part
        at += part.shape[2]
        tell(at / n_planes)
    assert out is not None and at == n_planes
    return out
