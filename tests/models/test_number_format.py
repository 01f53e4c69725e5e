"""Networks in bfloat16: close to what they give in float32, small noise and derivatives too."""

import pytest
import torch
from denoising_networks import ALL, images, made, noise, sides

from invsr.models.networks import UNet


def coarse(network, x, sigma):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        return network(x, sigma)


def relative(found, expected):
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_close(name):
    network = made(name, torch.float32)
    x = images(network, *sides(network), dtype=torch.float32)
    out, expected = coarse(network, x, 0.1), network(x, 0.1)
    assert out.dtype == torch.float32
    centre = x[:, network.neighbours : network.neighbours + 1]
    assert 0 < relative(centre - out, centre - expected) < 0.05


@pytest.mark.parametrize("name", ["UNet 2-D", "UNet 2.5-D", "UNet 3-D", "DnCNN 3-D"])
def test_bfloat16_keeps_small_noise_on_a_bright_image(name):
    network = made(name, torch.float32)
    head = network.head if isinstance(network, UNet) else network.layers[0]
    with torch.no_grad():
        head.weight.sub_(head.weight.clone().flip(-1))  # of differences, as those of trained networks are
    level, n = 0.002, 2 * network.multiple * (network.reach // network.multiple + 3)
    x = 1 + level * images(network, *[8] * (network.dim - 1), n, dtype=torch.float32)
    inside = slice(network.reach, -network.reach)
    centre = x[:, network.neighbours : network.neighbours + 1]
    removed = (centre - network(x, level))[..., inside]
    assert relative(x.bfloat16().float() - 1, x - 1) > 0.5  # what one bfloat16 number keeps of the noise
    assert relative((centre - coarse(network, x, level))[..., inside], removed) < 0.02


def test_bfloat16_derivatives_are_close():
    network = made("gradient step, UNet 3-D, elu", torch.float32)
    x = images(network, 8, 8, 8, dtype=torch.float32).requires_grad_()
    w = noise(*x.shape, seed=1, dtype=torch.float32)
    variables = [x, *network.parameters()]
    expected = torch.autograd.grad(network(x, 0.1), variables, w)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, 0.1)
    for n, (found, other) in enumerate(zip(torch.autograd.grad(out, variables, w), expected, strict=True)):
        assert found.dtype == torch.float32
        assert 0 < relative(found, other) < 0.05, n
