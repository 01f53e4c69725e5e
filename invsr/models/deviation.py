"""A network that tells how wrong a reconstruction is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsr.models.networks import CONVOLUTIONS
from invsr.models.shuffled import SIDE, ShuffledUNet, space_to_depth
from invsr.models.streaming import through

# Volumes that the network is told of each voxel: see `invsr.uncertainty.predicted.told`.
TOLD = 4
# The logarithm of the deviation from which it starts, and of the noise, about the middle of what it meets.
LOG_DEVIATION, LOG_NOISE = -3.5, -4.5
# Voxels of a large volume that go through at once: with fewer, layers of so few channels take up to three times longer.
AT_ONCE = 1_500_000


class DeviationNetwork(ShuffledUNet):
    """The standard deviation of each voxel's error, from the reconstruction and what is known of the acquisition.

    A small U-Net on blocks of 2x2x2 voxels, whose output is the logarithm of the deviation.

    Parameters
    ----------
    channels, blocks, activation, detail
        See `ShuffledUNet`.

    Shape
    -----
    x : (batch, TOLD, i, j, k), with even sides that `multiple` divides
    sigma : number or (batch,), noise of the data
    out : (batch, 1, i, j, k)

    Examples
    --------
    >>> network = DeviationNetwork(channels=(8, 16), detail=2)
    >>> network(torch.rand(1, TOLD, 8, 8, 8), 0.01).shape
    torch.Size([1, 1, 8, 8, 8])
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        blocks: int | Sequence[int] = 1,
        activation: str = "leaky",
        detail: int = 4,
    ) -> None:
        super().__init__(3, channels, blocks, activation, detail)
        del self.config["dim"]
        self.inputs = TOLD
        # All volumes but the last, which is constant, in blocks; it, the noise and a constant.
        wide = (TOLD - 1) * SIDE**3 + 3
        self.head = CONVOLUTIONS[3](wide, channels[0], 3, padding=1, bias=False)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        noise = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1, 1).log() - LOG_NOISE
        whole = torch.cat([x, noise.expand(len(x), 1, *x.shape[2:])], 1)
        if torch.is_grad_enabled() or not self._in_parts(x.shape[2:], x.device):
            return (self.body(whole) + LOG_DEVIATION).exp()
        planes = max(2, AT_ONCE // math.prod(x.shape[3:]) // 2 * 2)
        stages, found = self.stages(planes), []
        for start in range(0, x.shape[2], planes):
            found.append(through(stages, whole[:, :, start : start + planes], start + planes >= x.shape[2]))
        return (torch.cat(found, 2) + LOG_DEVIATION).exp()

    def in_blocks(self, x: Tensor) -> Tensor:
        means = [space_to_depth(x[:, n : n + 1]).mean(1, keepdim=True) for n in (TOLD - 1, TOLD)]
        return torch.cat([space_to_depth(x[:, : TOLD - 1]), *means, torch.ones_like(means[0])], 1)
