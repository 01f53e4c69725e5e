"""Denoising networks: bias-free, told the noise level, for slices, slabs and volumes.

A network without additive constants is homogeneous: ``D(c x, c sigma) = c D(x, sigma)`` for c > 0. It serves
every intensity scale, and noise levels beyond those it was trained on (Mohan et al. 2020).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.models.engines import compiles_whole, estimated_noise, note_torch
from invsr.models.streaming import (
    Convolution,
    Each,
    Residual,
    Scale,
    Stage,
    convolved,
    in_parts,
    is_slow,
    planes_at_once,
    through,
)
from invsr.numerics.iteration import tell

# Smaller volumes go through a network whole.
LEAST_VOXELS = 500_000
# Working memory: for images that go through whole, float32 numbers per voxel and channel; for others, multiples of what
# is worked on at once, and planes that wait for the coarser scales.
WHOLE, PARTS, WAITING = 6.0, 38, 20
# Slope of a leaky ReLU below zero.
LEAK = 0.1


class _Conv3d(nn.Conv3d):
    """A 3-D convolution that is fast for a single small volume too."""

    def forward(self, x: Tensor) -> Tensor:
        if not is_slow(x):
            return super().forward(x)
        # A batch of two always goes to oneDNN.
        return super().forward(x.expand(2, *x.shape[1:]))[:1]


class _ConvTranspose3d(nn.ConvTranspose3d):
    """A transposed 3-D convolution that is fast for a single small volume too."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not is_slow(x):
            return super().forward(x, output_size)
        return super().forward(x.expand(2, *x.shape[1:]), output_size)[:1]


CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: _Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: _ConvTranspose3d}


class Network(nn.Module):
    """Base class of the denoising networks: ``D(x, sigma) = x - N(x, sigma)`` with N a convolutional body.

    Parameters
    ----------
    dim : {2, 3}
        2 for convolutions over slices, 3 over volumes.
    neighbours : int
        With ``dim=2``: number of slices on either side of the denoised one that enter as channels (2.5-D).

    Attributes
    ----------
    inputs : int
        Channels of an image.
    multiple : int
        Image sides must be multiples of it.
    reach : int
        Radius of the receptive field: an output pixel depends on no input pixel farther away.
    width : float
        Channels at full resolution.
    streams : bool
        Whether large volumes go through on the CPU a few planes at a time, where no gradient is asked for: those of
        networks of volumes that define `stages`.
    compiles : bool
        Whether OpenVINO may run the body.

    Shape
    -----
    x : (batch, inputs, *image)
    sigma : number, (batch,), or a tensor that broadcasts against (batch, 1, *image)
    out : (batch, 1, *image)
    """

    config: dict[str, Any]
    multiple: int = 1
    reach: int = 0
    width: float = 1.0
    is_gradient_step: bool = False
    compiles: bool = True

    def __init__(self, dim: int, neighbours: int = 0) -> None:
        super().__init__()
        if dim not in CONVOLUTIONS:
            raise InvsrError(f"dim is {dim}: a denoising network has 2-D or 3-D convolutions")
        if neighbours and dim != 2:
            raise InvsrError(f"neighbours is {neighbours} with dim {dim}: only networks of slices have neighbours")
        self.dim = dim
        self.neighbours = neighbours
        self.inputs = 1 + 2 * neighbours
        self.streams = dim == 3 and type(self).stages is not Network.stages

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if level.ndim == 1:
            level = level.reshape(-1, *[1] * (self.dim + 1))
        centre = x[:, self.neighbours : self.neighbours + 1]
        large = self._in_parts(x.shape[2:], x.device)
        if large and not torch.is_grad_enabled() and not compiles_whole(self, x):
            return self._streamed(centre, level)
        noise_map = level.expand_as(centre) if level.ndim <= 1 else level.expand(len(x), 1, *x.shape[2:])
        # The body may run in a coarser number format; the subtraction may not.
        return centre - estimated_noise(self, torch.cat([x, noise_map], 1)).to(x.dtype)

    def memory(self, shape: Sequence[int], device: torch.device) -> int:
        """Bytes that a pass through an image of a shape takes without gradients, beside what goes in and comes out.

        Measured (`python -m benchmarks.speed.network_memory`), and rounded up.
        """
        if not self._in_parts(shape, device):
            return round(4 * WHOLE * self.width * math.prod(shape))
        plane = math.prod(shape[1:])
        return round(4 * self.width * plane * (PARTS * planes_at_once(shape) + WAITING))

    def body(self, x: Tensor) -> Tensor:
        """The estimated noise: (batch, channels + 1, *image) to (batch, 1, *image)."""
        raise NotImplementedError

    def stages(self, planes: int) -> list[Stage]:
        """The body, for planes of a volume that come one after the other, about so many at a time."""
        raise NotImplementedError

    def _in_parts(self, shape: Sequence[int], device: torch.device) -> bool:
        """Whether an image goes through a few planes at a time where no gradient is asked for."""
        return self.streams and device.type == "cpu" and math.prod(shape) >= LEAST_VOXELS

    def _streamed(self, x: Tensor, level: Tensor) -> Tensor:
        """The same for a volume, a few planes at a time."""
        note_torch(self, x)
        noise_map = level.expand((len(x), 1, *x.shape[2:]))
        return self._through_planes(x, noise_map, self.stages(planes_at_once(x.shape[2:])))

    def _through_planes(self, x: Tensor, noise_map: Tensor, stages: list[Stage]) -> Tensor:
        """x less the noise that the stages of the body find in it."""
        out, at = torch.empty_like(x), 0
        for planes, last in in_parts(x):
            noise = through(stages, torch.cat([x[:, :, planes], noise_map[:, :, planes]], 1), last)
            done = slice(at, at + noise.shape[2])
            torch.sub(x[:, :, done], noise.to(x.dtype), out=out[:, :, done])
            at = done.stop
            tell(at / x.shape[2])
        return out


class UNet(Network):
    """A DRUNet of any size: residual blocks on several scales, joined by strided and transposed convolutions.

    Parameters
    ----------
    dim, neighbours
        See `Network`.
    channels : sequence of int
        Number of channels on each scale, finest first.
    blocks : int or sequence of int
        Residual blocks (two convolutions each) per scale, going down and again going up; twice as many on the coarsest.
        Several numbers count them in the order that the image meets them: scales going down, the coarsest, scales
        going up.
    activation : {"relu", "leaky", "elu"}
        A leaky ReLU (slope 0.1 below zero) goes on learning where a ReLU's channels can go out for good. ELU makes the
        network continuously differentiable, at the price of homogeneity.

    References
    ----------
    Zhang, Li, Zuo, Zhang, Van Gool, Timofte (2022), IEEE Trans. Pattern Anal. Mach. Intell. 44, 6360-6376.

    Examples
    --------
    >>> network = UNet(dim=3, channels=(8, 16), blocks=1)
    >>> network(torch.rand(1, 1, 8, 8, 8), 0.1).shape
    torch.Size([1, 1, 8, 8, 8])
    """

    def __init__(
        self,
        dim: int = 3,
        channels: Sequence[int] = (24, 48, 96),
        blocks: int | Sequence[int] = 1,
        neighbours: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__(dim, neighbours)
        self.config = {
            "dim": dim,
            "channels": tuple(channels),
            "blocks": blocks if isinstance(blocks, int) else tuple(blocks),
            "neighbours": neighbours,
            "activation": activation,
        }
        convolution = CONVOLUTIONS[dim]
        first, scales = channels[0], len(channels)
        self.multiple = 2 ** (scales - 1)
        self.head = convolution(2 + 2 * neighbours, first, 3, padding=1, bias=False)
        steps = list(itertools.pairwise(channels))
        down, bottom, up = _numbers_of_blocks(blocks, scales)
        self.encode = nn.ModuleList(_blocks(dim, steps[n][0], activation, count) for n, count in enumerate(down))
        self.down = nn.ModuleList(convolution(fine, coarse, 2, stride=2, bias=False) for fine, coarse in steps)
        self.bottom = _blocks(dim, channels[-1], activation, bottom)
        self.up = nn.ModuleList(TRANSPOSED[dim](coarse, fine, 2, stride=2, bias=False) for fine, coarse in steps)
        self.decode = nn.ModuleList(_blocks(dim, steps[n][0], activation, count) for n, count in enumerate(up))
        self.tail = convolution(first, 1, 3, padding=1, bias=False)
        self.width = first
        # Two 3-wide convolutions per block, on voxels 2^n wide; a coarse voxel also reads its whole block.
        per_scale = [2 * (n_down + n_up) * 2**n for n, (n_down, n_up) in enumerate(zip(down, up, strict=True))]
        self.reach = 2 + sum(per_scale) + 2 * bottom * 2 ** (scales - 1) + self.multiple - 1

    def body(self, x: Tensor) -> Tensor:
        out = first_layer(self.head, x)
        skips = []
        for encode, down in zip(self.encode, self.down, strict=True):
            skips.append(encode(out))
            out = down(skips[-1])
        out = self.bottom(out)
        for up, decode, skip in zip(reversed(self.up), reversed(self.decode), reversed(skips), strict=True):
            out = decode(up(out).add_(skip))
        found: Tensor = self.tail(out)
        return found

    def stages(self, planes: int) -> list[Stage]:
        inner: list[Stage] = stages_of(self.bottom)
        scales = list(enumerate(zip(self.encode, self.down, self.up, self.decode, strict=True), start=1))
        for n, (encode, down, up, decode) in reversed(scales):
            blocks = [stages_of(one) for one in (encode, decode)]
            # Half as many planes on a scale of half the resolution: more would have to wait for each other.
            inner = [Scale(blocks[0], down, inner, up, blocks[1], max(1, planes // 2**n))]
        return [head_stage(self.head), *inner, *self._tail()]

    def _tail(self) -> list[Stage]:
        return [Convolution.of(self.tail)]


class DnCNN(Network):
    """A chain of convolutions and ReLUs without normalisation; the noise level is an input.

    References
    ----------
    Zhang, Zuo, Chen, Meng, Zhang (2017), IEEE Trans. Image Process. 26, 3142-3155.
    """

    def __init__(self, dim: int = 3, channels: int = 24, depth: int = 10, neighbours: int = 0) -> None:
        super().__init__(dim, neighbours)
        self.config = {"dim": dim, "channels": channels, "depth": depth, "neighbours": neighbours}
        convolution = CONVOLUTIONS[dim]
        layers: list[nn.Module] = [convolution(2 + 2 * neighbours, channels, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [convolution(channels, channels, 3, padding=1, bias=False), nn.ReLU()]
        layers.append(convolution(channels, 1, 3, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.reach = depth
        self.width = channels

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers[1:](first_layer(self.layers[0], x))
        return found

    def stages(self, planes: int) -> list[Stage]:
        first, *others = list(self.layers)
        stages: list[Stage] = [head_stage(first)]
        return stages + [Each(one) if isinstance(one, nn.ReLU) else Convolution.of(one) for one in others]


def head_stage(layer: Any) -> Convolution:
    """The first layer, for planes that come one after the other."""
    return Convolution(lambda part: first_layer(layer, part, padding=(0, 1, 1)), layer.out_channels)


def first_layer(layer: Any, x: Tensor, padding: Any = None) -> Tensor:
    """The first layer. Small noise on a bright image does not survive bfloat16: it enters in two parts there."""
    padding = layer.padding if padding is None else padding
    if not torch.is_autocast_enabled(x.device.type):
        if padding != layer.padding:
            return convolved(x, layer.weight)
        out: Tensor = layer(x)
        return out
    coarse = x.to(torch.get_autocast_dtype(x.device.type))
    both = torch.cat([coarse, (x - coarse.to(x.dtype)).to(coarse.dtype)], 1)
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    weight = torch.cat([layer.weight, layer.weight], 1)
    convolve = torch.nn.functional.conv2d if x.ndim == 4 else torch.nn.functional.conv3d
    return convolve(both.contiguous(memory_format=layout), weight, padding=padding)


def stages_of(blocks: Any) -> list[Stage]:
    """Residual blocks, for planes that come one after the other."""
    return [block.stage() for block in blocks]


def _numbers_of_blocks(blocks: int | Sequence[int], scales: int) -> tuple[list[int], int, list[int]]:
    """Going down, on the coarsest scale, and going up; each of the two lists from the finest scale on."""
    if isinstance(blocks, int):
        return [blocks] * (scales - 1), 2 * blocks, [blocks] * (scales - 1)
    if len(blocks) != 2 * scales - 1:
        raise InvsrError(f"blocks is {list(blocks)}: {scales} scales take one number or {2 * scales - 1} of them")
    return list(blocks[: scales - 1]), blocks[scales - 1], list(reversed(blocks[scales:]))


def _blocks(dim: int, channels: int, activation: str, n_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(dim, channels, activation) for _ in range(n_blocks)))


class _Residual(nn.Module):
    def __init__(self, dim: int, channels: int, activation: str) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dim]
        self.first = convolution(channels, channels, 3, padding=1, bias=False)
        self.second = convolution(channels, channels, 3, padding=1, bias=False)
        # In place, here and below: what is overwritten is no layer's input that its gradient needs.
        kinds: dict[str, Callable[[], nn.Module]] = {
            "relu": lambda: nn.ReLU(inplace=True),
            "leaky": lambda: nn.LeakyReLU(LEAK, inplace=True),
            "elu": nn.ELU,
        }
        self.activation = kinds[activation]()
        # Blocks start near the identity, so that deep networks train without normalisation.
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.activation(self.first(x)))
        return out.add_(x)

    def stage(self) -> Stage:
        """The block for planes that come one after the other."""
        return Residual(self.first, self.activation, self.second)
