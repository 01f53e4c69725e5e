"""Networks that see a volume a few planes at a time give what they give for the whole of it."""

import pytest
import torch

from invsr.models import networks, streaming
from invsr.models.joint import JointUNet
from invsr.models.networks import DnCNN, Network, UNet
from invsr.models.shuffled import ShuffledUNet
from invsr.models.streaming import Convolution, in_parts

NETWORKS = {
    "unet": lambda: UNet(dim=3, channels=(4, 6, 8)),
    "two blocks, elu": lambda: UNet(dim=3, channels=(4, 6), blocks=2, activation="elu"),
    "blocks by place, leaky": lambda: UNet(dim=3, channels=(4, 6, 8), blocks=(1, 0, 0, 2, 1), activation="leaky"),
    "dncnn": lambda: DnCNN(dim=3, channels=4, depth=5),
    "more layers than planes at once": lambda: DnCNN(dim=3, channels=4, depth=12),
    "more blocks than planes at once": lambda: UNet(dim=3, channels=(4, 6), blocks=5),
    "joint": lambda: JointUNet(channels=(4, 6, 8), blocks=(1, 1, 0, 1, 1)),
    "shuffled": lambda: ShuffledUNet(channels=(4, 6, 8), detail=3),
}


def random(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for weights in network.parameters():
        weights.data = 0.2 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    return network


def in_parts_of(planes, monkeypatch, area=8 * 16):
    monkeypatch.setattr(networks, "LEAST_VOXELS", 1)
    monkeypatch.setattr(streaming, "VOXELS", planes * area)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_planes", [24, 32, 72])
@pytest.mark.parametrize("at_once", [2, 8, 14])
def test_planes_in_parts_and_the_whole_volume(name, n_planes, at_once, monkeypatch):
    network = random(NETWORKS[name]().double())
    x = torch.rand((1, 1, n_planes, 8, 16), dtype=torch.float64)
    level = torch.linspace(0.05, 0.2, 8).reshape(1, 1, 1, 8, 1).double()
    with torch.no_grad():
        expected = network(x, level)
        in_parts_of(at_once, monkeypatch)
        found = network(x, level)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_several_contrasts_in_parts(monkeypatch):
    network = random(NETWORKS["joint"]().double())
    x = torch.rand((2, 3, 24, 8, 16), dtype=torch.float64)
    level = torch.tensor([0.05, 0.1, 0.2]).reshape(3, 1, 1, 1)
    with torch.no_grad():
        expected = network(x, level)
        in_parts_of(8, monkeypatch)
        found = network(x, level)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_gradients_take_the_whole_volume(monkeypatch):
    in_parts_of(8, monkeypatch)
    network = random(NETWORKS["unet"]())
    x = torch.rand(1, 1, 24, 8, 8, requires_grad=True)
    network(x, 0.1).sum().backward()
    assert float(x.grad.abs().max()) > 0


def test_a_network_without_stages_takes_the_whole_volume(monkeypatch):
    class Own(Network):
        def body(self, x):
            return 0.5 * x[:, :1]

    in_parts_of(8, monkeypatch)
    x = torch.rand(1, 1, 24, 8, 8)
    with torch.no_grad():
        assert not Own(3).streams
        torch.testing.assert_close(Own(3)(x, 0.1), 0.5 * x)


def test_bfloat16_in_parts(monkeypatch):
    network = random(NETWORKS["unet"]())
    x = torch.rand(1, 1, 48, 8, 16)
    with torch.no_grad():
        expected = network(x, 0.1)
        in_parts_of(8, monkeypatch)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(x, 0.1)
    assert float((found - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("n_planes", [1, 2, 7, 8, 9, 24])
def test_a_convolution_of_any_number_of_planes(n_planes, monkeypatch):
    monkeypatch.setattr(streaming, "VOXELS", 8 * 20)
    layer = torch.nn.Conv3d(2, 3, 3, padding=1, bias=False).double()
    x = torch.rand((1, 2, n_planes, 5, 4), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(streamed(layer, x), layer(x))


def test_few_planes_in_single_precision(monkeypatch):
    # Where PyTorch would take the slow way.
    monkeypatch.setattr(streaming, "VOXELS", 8 * 20)
    layer = torch.nn.Conv3d(2, 3, 3, padding=1, bias=False)
    x = torch.rand((1, 2, 10, 5, 4))
    with torch.no_grad():
        torch.testing.assert_close(streamed(layer, x), layer(x))


def streamed(layer, x):
    stage = Convolution.of(layer)
    return torch.cat([stage.push(x[:, :, planes], last) for planes, last in in_parts(x)], 2)
