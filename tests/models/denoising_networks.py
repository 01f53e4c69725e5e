"""A small network of every kind, and images for it."""

import torch
from torch import nn

from invsr.models.gradient_step import GradientStep
from invsr.models.joint import JointUNet
from invsr.models.networks import DnCNN, UNet
from invsr.models.shuffled import ShuffledUNet

F64 = torch.float64


def _exchanging(network):
    """A joint network as after training: what contrasts tell each other counts."""
    for module in network.modules():
        if hasattr(module, "give"):
            nn.init.normal_(module.give.weight, std=0.1)
    return network


PLAIN = {
    "UNet 2-D": lambda: UNet(2, (4, 6, 8), blocks=1),
    "UNet 2.5-D": lambda: UNet(2, (4, 6), blocks=1, neighbours=2),
    "UNet 3-D": lambda: UNet(3, (4, 6), blocks=1),
    "UNet 3-D, one scale": lambda: UNet(3, (4,), blocks=2),
    "UNet 3-D, blocks by place": lambda: UNet(3, (4, 6, 8), blocks=(1, 0, 0, 2, 1), activation="leaky"),
    "shuffled UNet 2-D": lambda: ShuffledUNet(2, (4, 6), blocks=1, detail=3),
    "shuffled UNet 3-D": lambda: ShuffledUNet(3, (4, 6), blocks=1, detail=2),
    "joint UNet": lambda: _exchanging(JointUNet(3, (4, 6))),
    "DnCNN 2.5-D": lambda: DnCNN(2, 4, depth=4, neighbours=1),
    "DnCNN 3-D": lambda: DnCNN(3, 4, depth=4),
}
SMOOTH = {
    "UNet 2-D, elu": lambda: GradientStep(UNet(2, (4, 6), blocks=1, activation="elu")),
    "UNet 3-D, elu": lambda: GradientStep(UNet(3, (4, 6), blocks=1, activation="elu")),
}
GRADIENT = {**SMOOTH, "DnCNN 2-D": lambda: GradientStep(DnCNN(2, 4, depth=3))}
ALL = {**PLAIN, **{f"gradient step, {name}": make for name, make in GRADIENT.items()}}


def made(name, dtype=F64):
    torch.manual_seed(0)
    return ALL[name]().to(dtype)


def noise(*shape, seed=0, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def images(network, *sides, batch=1, dtype=F64):
    return noise(batch, 1 + 2 * network.neighbours, *sides, dtype=dtype)


def sides(network, n=8):
    return [n, n + 4, n + 8][: network.dim]
