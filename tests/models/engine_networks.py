"""Networks for each engine, and what the engine of the moment finds beside PyTorch."""

import math

import torch

from invsr.models import engines
from invsr.models.networks import DnCNN, UNet
from invsr.models.shuffled import ShuffledUNet

TORCH, BFLOAT16, OPENVINO = "torch float32", "torch bfloat16", "openvino float32"
NETWORKS = {
    "UNet": lambda: UNet(3, (4, 8), 1),
    "UNet, leaky": lambda: UNet(3, (4, 6, 8), (1, 0, 1, 1, 0), activation="leaky"),
    "UNet, elu": lambda: UNet(3, (4, 8), 1, activation="elu"),
    "UNet of slabs": lambda: UNet(2, (4, 8), 1, neighbours=1),
    "ShuffledUNet": lambda: ShuffledUNet(3, (4, 8), 1, detail=2),
    "ShuffledUNet of slices": lambda: ShuffledUNet(2, (4, 8), 1, detail=2),
    "DnCNN": lambda: DnCNN(3, 4, 4),
}


def made(name, seed=0):
    """A network with weights that make all layers count."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape) / math.sqrt(weights[0].numel()))
    return network


def image(network, *sides, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1 + 2 * network.neighbours, *sides, generator=generator)


def both(network, x, sigma=0.1):
    """What the engine of the moment finds, and PyTorch."""
    used = engines.record()
    with torch.no_grad():
        found = network(x, sigma)
        ways = list(*used.values())
        with engines.only_torch():
            return found, network(x, sigma), ways


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())
