"""Small networks, and functions in their place, as denoisers."""

import torch
from torch.nn.functional import avg_pool2d, avg_pool3d

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet
from invsr.priors import Denoiser

F64 = torch.float64


class Fake:
    """A function in the place of a network; keeps the shapes it was called with."""

    def __init__(self, function, dim, neighbours=0, multiple=1):
        self.function, self.dim, self.neighbours, self.multiple, self.reach = function, dim, neighbours, multiple, 1
        self.shapes = []

    def __call__(self, x, sigma):
        self.shapes.append(tuple(x.shape))
        return self.function(x)


def blur_slices(x):
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def blur_volumes(x):
    return avg_pool3d(x, 3, 1, 1, count_include_pad=False)


def shift(x):
    return x.roll(1, -1)


def plain(network, **options):
    """Nothing but the network: no symmetries, no crop, float32."""
    return Denoiser(network, **{"symmetries": False, "crop": False, "bfloat16": False, **options})


def noise(*shape, seed=0, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


NETWORKS = {
    "UNet 2-D": lambda: UNet(2, (4, 6), blocks=1),
    "UNet 2.5-D": lambda: UNet(2, (4, 6), blocks=1, neighbours=2),
    "UNet 3-D": lambda: UNet(3, (4, 6, 8), blocks=1),
    "DnCNN 3-D": lambda: DnCNN(3, 4, depth=3),
    "gradient step 3-D": lambda: GradientStep(UNet(3, (4, 6), blocks=1, activation="elu")),
    "gradient step 2-D": lambda: GradientStep(UNet(2, (4, 6), blocks=1, activation="elu")),
}


def made(name, dtype=F64):
    torch.manual_seed(0)
    return NETWORKS[name]().to(dtype).requires_grad_(False)
