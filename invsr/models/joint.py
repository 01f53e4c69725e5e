"""A network that denoises several contrasts of one head together, each with the help of the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from invsr.errors import InvsrError
from invsr.models.engines import note_torch
from invsr.models.networks import LEAK, UNet, first_layer, head_stage, stages_of
from invsr.models.streaming import Each, Scale, Stage, planes_at_once

# Factor of what contrasts give each other. Training begins with weights of zero, and its steps (Muon's) are of one size
# for all weights: with a factor these grow faster than those of a network that is trained already.
STRENGTH = 8.0


class JointUNet(UNet):
    """A `UNet` whose weights serve each contrast, and which on every scale tells each what the others have there.

    .. code-block:: text

        h_c <- h_c + STRENGTH V leaky(U [h_c, mean of h, max of h])        voxel by voxel

    It takes any number of contrasts in any order: swapped contrasts give swapped results. One contrast alone goes
    through it as well. Like a `UNet`, it is homogeneous: in all contrasts and their noise levels together.

    Parameters
    ----------
    dim, channels, blocks, activation
        As of `UNet`; `dim` is 3.

    Shape
    -----
    x : (batch, contrast, *image)
    sigma : number, or a tensor that broadcasts against x
    out : (batch, contrast, *image)

    Examples
    --------
    >>> network = JointUNet(channels=(4, 8))
    >>> network(torch.rand(1, 3, 8, 8, 8), 0.1).shape
    torch.Size([1, 3, 8, 8, 8])
    """

    compiles = False

    def __init__(
        self,
        dim: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int | Sequence[int] = 1,
        neighbours: int = 0,
        activation: str = "relu",
    ) -> None:
        if dim != 3 or neighbours:
            raise InvsrError(f"dim {dim}, neighbours {neighbours}: contrasts are denoised as volumes (3, 0)")
        super().__init__(dim, channels, blocks, neighbours, activation)
        finer, coarsest = list(channels[:-1]), channels[-1]
        self.exchange_down = nn.ModuleList(Exchange(width) for width in finer)
        self.exchange_bottom = Exchange(coarsest)
        self.exchange_up = nn.ModuleList(Exchange(width) for width in finer)

    @classmethod
    def of(cls, network: UNet) -> JointUNet:
        """A network of volumes with the weights of a `UNet`; contrasts tell each other nothing until it is trained."""
        joint = cls(**network.config)
        joint.load_state_dict(joint.state_dict() | network.state_dict())
        return joint

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        if level.ndim == 1:
            level = level.reshape(-1, 1, 1, 1, 1)
        note_torch(self, x)
        # The weights serve each contrast: they are a batch for them.
        each, noise_map = x.reshape(-1, 1, *x.shape[2:]), level.expand_as(x).reshape(-1, 1, *x.shape[2:])
        if self._in_parts(x.shape[2:], x.device) and not torch.is_grad_enabled():
            stages = self._stages(planes_at_once(x.shape[2:]), x.shape[1])
            return self._through_planes(each, noise_map, stages).reshape(x.shape)
        both = torch.cat([each, noise_map], 1).contiguous(memory_format=torch.channels_last_3d)
        # The body may run in a coarser number format; the subtraction may not.
        return x - self.body(both, x.shape[1]).reshape(x.shape).to(x.dtype)

    def body(self, x: Tensor, contrasts: int = 1) -> Tensor:
        """The estimated noise: (batch * contrasts, 2, *image) to (batch * contrasts, 1, *image)."""
        out = first_layer(self.head, x)
        skips = []
        for encode, exchange, down in zip(self.encode, self.exchange_down, self.down, strict=True):
            skips.append(exchange(encode(out), contrasts))
            out = down(skips[-1])
        out = self.exchange_bottom(self.bottom(out), contrasts)
        coarse_to_fine: Any = zip(
            reversed(self.up), reversed(self.exchange_up), reversed(self.decode), reversed(skips), strict=True
        )
        for up, exchange, decode, skip in coarse_to_fine:
            out = decode(exchange(up(out).add_(skip), contrasts))
        found: Tensor = self.tail(out)
        return found

    def stages(self, planes: int) -> list[Stage]:
        return self._stages(planes, 1)

    def _stages(self, planes: int, contrasts: int) -> list[Stage]:
        def exchange(layer: Any) -> Stage:
            return Each(lambda x: layer(x, contrasts))

        inner: list[Stage] = [*stages_of(self.bottom), exchange(self.exchange_bottom)]
        scales: Any = zip(
            self.encode, self.exchange_down, self.down, self.up, self.exchange_up, self.decode, strict=True
        )
        for n, (encode, told, down, up, told_again, decode) in reversed(list(enumerate(scales, start=1))):
            going_down: list[Stage] = [*stages_of(encode), exchange(told)]
            going_up: list[Stage] = [exchange(told_again), *stages_of(decode)]
            inner = [Scale(going_down, down, inner, up, going_up, max(1, planes // 2**n))]
        return [head_stage(self.head), *inner, *self._tail()]


class Exchange(nn.Module):
    """What a contrast's features become by what all contrasts have at the same place.

    Shape
    -----
    x : (batch * contrasts, channel, *image)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gather = nn.Linear(3 * channels, channels // 2, bias=False)
        self.give = nn.Linear(channels // 2, channels, bias=False)
        nn.init.zeros_(self.give.weight)  # at first each contrast is on its own

    def forward(self, x: Tensor, contrasts: int) -> Tensor:
        # With the channels last, where they lie in memory, each layer is one matrix product.
        here = x.movedim(1, -1)
        each = here.reshape(-1, contrasts, *here.shape[1:])
        mean, largest = each.mean(1, keepdim=True), reduce(torch.maximum, each.unbind(1))[:, None]
        own, common, brightest = self.gather.weight.chunk(3, 1)
        told = linear(each, own) + linear(mean, common) + linear(largest, brightest)
        given: Tensor = self.give(leaky_relu(told, LEAK, inplace=True))
        return x.add(given.flatten(0, 1).movedim(-1, 1), alpha=STRENGTH)
