"""Small networks whose weights are saved, and volumes for them."""

import torch

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet

NETWORKS = {
    "UNet 3-D": lambda: UNet(3, (4, 6), blocks=1),
    "UNet 2.5-D": lambda: UNet(2, (4, 6), blocks=1, neighbours=1),
    "DnCNN": lambda: DnCNN(2, 4, depth=3),
    "gradient step": lambda: GradientStep(UNet(3, (4, 6), blocks=1, activation="elu")),
}


def made(name="UNet 3-D"):
    torch.manual_seed(0)
    return NETWORKS[name]()


def volume(*shape):
    return torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(1))
