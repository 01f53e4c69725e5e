"""Networks by name and configuration, and their arithmetic cost."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.models.gradient_step import GradientStep
from invsr.models.joint import Exchange, JointUNet
from invsr.models.networks import CONVOLUTIONS, TRANSPOSED, DnCNN, Network, UNet
from invsr.models.shuffled import ShuffledUNet

# Of a network: numbers of channels, blocks and layers, and scales.
LARGEST_SIZE, MOST_SCALES = 2048, 10


def build(architecture: str, config: dict[str, Any]) -> Network:
    """The network that a weights file describes.

    Raises
    ------
    InvsrError
        When the architecture is unknown or the configuration does not fit it.
    """
    try:
        _require_sizes(config)
        if architecture == "GradientStep":
            inner = dict(config["network"])
            return GradientStep(build(inner.pop("architecture"), inner))
        kinds: dict[str, type[Network]] = {
            "UNet": UNet,
            "ShuffledUNet": ShuffledUNet,
            "DnCNN": DnCNN,
            "JointUNet": JointUNet,
        }
        network: Network = kinds[architecture](**config)
        return network
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InvsrError(f"no network {architecture!r} with configuration {config}: {error}") from None


def _require_sizes(config: dict[str, Any]) -> None:
    """Raise where a damaged description asks for a network that would take minutes to make."""
    for name, value in config.items():
        sizes = value if isinstance(value, list | tuple) else [value]
        if len(sizes) > MOST_SCALES or any(isinstance(size, int) and size > LARGEST_SIZE for size in sizes):
            raise InvsrError(f"{name} is {value}: at most {MOST_SCALES} numbers, none above {LARGEST_SIZE}")


def multiply_adds(network: Network) -> float:
    """Multiply-adds per voxel of one forward pass, from the sizes of the layers."""
    size = 4 * network.multiple
    image = torch.zeros((1, network.inputs, *[size] * network.dim))
    total: int = 0

    def count(layer: Any, _: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, Exchange):
            total += sum(one.numel() for one in layer.parameters()) * (out.numel() // out.shape[1])
            return
        kernel = math.prod(layer.kernel_size) * layer.in_channels * layer.out_channels // layer.groups
        sites = out.numel() // layer.out_channels
        total += kernel * (sites // math.prod(layer.stride) if layer.transposed else sites)

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, (*CONVOLUTIONS.values(), *TRANSPOSED.values(), Exchange))
    ]
    try:
        with torch.no_grad():
            network(image, 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    # A gradient step goes back through the same convolutions.
    passes = 2 if isinstance(network, GradientStep) else 1
    return float(passes * total / size**network.dim)
