"""A U-Net whose finest scale is half the image's resolution: the voxels of a 2x2x2 block are its channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invsr.models.networks import CONVOLUTIONS, UNet
from invsr.models.streaming import Convolution, Each, Stage

# Side of the blocks of voxels that become channels.
SIDE = 2


class ShuffledUNet(UNet):
    """A U-Net on blocks of 2x2x2 voxels (space-to-depth), followed by one light convolution at full resolution.

    A convolution at half resolution costs an eighth of one at full resolution, so that wider layers cost less.

    Parameters
    ----------
    dim, channels, blocks, activation
        See `UNet`; the first of `channels` is the width at half resolution.
    detail : int
        Number of channels at full resolution, from which the last convolution estimates the noise.

    References
    ----------
    Zhang, Zuo, Zhang (2018), IEEE Trans. Image Process. 27, 4608-4622 (FFDNet).
    Shi, Caballero, Huszar, Totz, Aitken, Bishop, Rueckert, Wang (2016), CVPR (depth-to-space).

    Examples
    --------
    >>> network = ShuffledUNet(dim=3, channels=(8, 16), blocks=1, detail=2)
    >>> network(torch.rand(1, 1, 8, 8, 8), 0.1).shape
    torch.Size([1, 1, 8, 8, 8])
    """

    def __init__(
        self,
        dim: int = 3,
        channels: Sequence[int] = (48, 96, 128),
        blocks: int | Sequence[int] = 1,
        activation: str = "leaky",
        detail: int = 8,
    ) -> None:
        super().__init__(dim, channels, blocks, activation=activation)
        del self.config["neighbours"]
        self.config["detail"] = detail
        convolution, block = CONVOLUTIONS[dim], SIDE**dim
        self.head = convolution(block + 1, channels[0], 3, padding=1, bias=False)
        self.tail = convolution(channels[0], block * detail, 1, bias=False)
        self.last = convolution(detail, 1, 3, padding=1, bias=False)
        self.width = channels[0] / block + 1.5 * detail
        self.multiple *= SIDE
        # The tail is 1 wide where a U-Net's is 3 wide; the last convolution and the ends of the blocks make up for it.
        self.reach *= SIDE

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(depth_to_space(super().body(self.in_blocks(x))))
        return out

    def in_blocks(self, x: Tensor) -> Tensor:
        """Image and noise map as the channels of blocks; of the noise map, which varies slowly, one number for each."""
        level = space_to_depth(x[:, 1:]).mean(1, keepdim=True)
        return torch.cat([space_to_depth(x[:, :1]), level], 1)

    def stages(self, planes: int) -> list[Stage]:
        # `planes` is even, so that all parts are whole blocks.
        head = Each(self.in_blocks, self.head.in_channels, 1 / SIDE)
        return [head, *super().stages(max(2, planes // SIDE)), Convolution.of(self.last)]

    def _tail(self) -> list[Stage]:
        return [Each(self.tail, self.tail.out_channels), Each(depth_to_space, self.last.in_channels, SIDE)]


def space_to_depth(x: Tensor) -> Tensor:
    """Blocks of voxels as channels: ``(batch, channel, *image)`` to ``(batch, 2^dim channel, *image / 2)``."""
    dim = x.ndim - 2
    # x.shape[0], not len(x): a trace takes a length for a constant.
    split = x.reshape(*x.shape[:2], *(n for side in x.shape[2:] for n in (side // SIDE, SIDE)))
    within, between = [3 + 2 * n for n in range(dim)], [2 + 2 * n for n in range(dim)]
    return split.permute(0, 1, *within, *between).reshape(x.shape[0], -1, *(side // SIDE for side in x.shape[2:]))


def depth_to_space(x: Tensor) -> Tensor:
    """Inverse of `space_to_depth`: ``(batch, 2^dim channel, *image)`` to ``(batch, channel, *2 image)``."""
    dim = x.ndim - 2
    split = x.reshape(x.shape[0], -1, *[SIDE] * dim, *x.shape[2:])
    order = [axis for n in range(dim) for axis in (2 + dim + n, 2 + n)]
    return split.permute(0, 1, *order).reshape(*split.shape[:2], *(SIDE * side for side in x.shape[2:]))
