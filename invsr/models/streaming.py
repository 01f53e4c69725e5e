"""Networks over a volume a few planes at a time: their memory does not grow with the number of planes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

# Voxels that are worked on at once, about: fewer take less memory, much fewer more time.
VOXELS = 130_000
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
        Number of channels that it returns.
    """

    def __init__(self, convolve: Callable[[Tensor], Tensor], channels: int) -> None:
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
        self.before = whole[:, :, -2:].clone(memory_format=torch.preserve_format)
        if whole.shape[2] < 3:  # deep in a long chain, where no plane is ready yet
            return x.new_empty((len(x), self.channels, 0, *x.shape[3:]))
        return self.convolve(whole)


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
        self.waiting = Queue()

    def push(self, x: Tensor, last: bool) -> Tensor:
        self.waiting.put(x)
        change = self.second.push(self.activation(self.first.push(x, last)), last)
        return change.add_(self.waiting.take(change.shape[2])) if change.shape[2] else change


class Each:
    """A layer that takes planes by themselves, or as many as there are of them at a time.

    Parameters
    ----------
    layer : callable
    channels : int, optional
        Number of channels that it returns; as many as it gets by default.
    zoom : float
        Factor by which it changes the sides of the planes.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], channels: int | None = None, zoom: float = 1.0) -> None:
        self.layer, self.channels, self.zoom = layer, channels, zoom

    def push(self, x: Tensor, last: bool) -> Tensor:
        if x.shape[2]:
            return self.layer(x)
        # PyTorch's layers take no tensors without planes.
        sides = [round(self.zoom * n) for n in x.shape[3:]]
        return x.new_empty((len(x), self.channels or x.shape[1], 0, *sides))


class Scale:
    """One scale of a U-Net: encode, half the resolution, `inner`, twice the resolution, add what was encoded, decode.

    What was encoded waits until `inner`, which gets `planes` at a time, has come to the same planes.
    """

    def __init__(
        self, encode: Sequence[Stage], down: Any, inner: Sequence[Stage], up: Any, decode: Sequence[Stage], planes: int
    ) -> None:
        self.encode, self.inner, self.decode, self.planes = encode, inner, decode, planes
        self.down, self.up = Each(down, down.out_channels, 0.5), Each(up, up.out_channels, 2.0)
        self.skips, self.to_halve = Queue(), Queue()

    def push(self, x: Tensor, last: bool) -> Tensor:
        encoded = through(self.encode, x, last)
        self.skips.put(encoded)
        self.to_halve.put(encoded)
        enough = last or self.to_halve.planes >= 2 * self.planes
        pairs = self.to_halve.take(self.to_halve.planes // 2 * 2 if enough else 0)
        fine = self.up.push(through(self.inner, self.down.push(pairs, last), last), last)
        return through(self.decode, fine.add_(self.skips.take(fine.shape[2])), last)


class Queue:
    """Planes that wait, in the order in which they came."""

    def __init__(self) -> None:
        self.parts: deque[Tensor] = deque()
        self.planes = 0

    def put(self, x: Tensor) -> None:
        """Append planes."""
        if x.shape[2] or not self.parts:
            self.parts.append(x)
            self.planes += x.shape[2]

    def take(self, n: int) -> Tensor:
        """The first n planes, at most `planes`."""
        taken: list[Tensor] = []
        while n > 0:
            part = self.parts.popleft()
            if part.shape[2] > n:
                self.parts.appendleft(part[:, :, n:])
                part = part[:, :, :n]
            taken.append(part)
            n, self.planes = n - part.shape[2], self.planes - part.shape[2]
            if not self.parts:
                self.parts.append(part[:, :, :0])
        if not taken:
            return self.parts[0][:, :, :0]
        return taken[0] if len(taken) == 1 else torch.cat(taken, 2)


def through(stages: Sequence[Stage], x: Tensor, last: bool) -> Tensor:
    """What the stages, one after the other, make of planes, shape (batch, channel, planes, j, k)."""
    for stage in stages:
        x = stage.push(x, last)
    return x


def in_parts(x: Tensor) -> Iterator[tuple[slice, bool]]:
    """The planes of a volume that are worked on at once, and whether they are the last."""
    n, planes = x.shape[2], planes_at_once(x.shape[2:])
    for start in range(0, n, planes):
        yield slice(start, min(n, start + planes)), start + planes >= n


def planes_at_once(shape: Sequence[int]) -> int:
    """An even number of planes, of about `VOXELS` voxels, of a volume of a shape."""
    return max(2, VOXELS // math.prod(shape[1:]) // 2 * 2)
