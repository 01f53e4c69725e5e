"""Networks built from their configurations, and how much they compute."""

import json

import pytest
import torch
from denoising_networks import ALL, images, made, sides

from invsr.errors import InvsrError
from invsr.models.architectures import build, multiply_adds
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet
from invsr.models.shuffled import ShuffledUNet

# Size -----------------------------------------------------------------------------------------------


def test_multiply_adds_are_those_counted_by_hand():
    assert multiply_adds(DnCNN(2, 4, depth=3)) == 9 * (2 * 4 + 4 * 4 + 4 * 1)
    assert multiply_adds(DnCNN(3, 5, depth=2, neighbours=0)) == 27 * (2 * 5 + 5 * 1)
    assert multiply_adds(DnCNN(2, 4, depth=2, neighbours=1)) == 9 * (4 * 4 + 4 * 1)
    # Head, two blocks, way down, two coarse blocks, way up, tail; four fine pixels to a coarse one.
    fine = 9 * 2 * 4 + 2 * 2 * 9 * 4 * 4 + 4 * 8 + 9 * 4 * 1
    coarse = 4 * 4 * 8 + 2 * 2 * 9 * 8 * 8
    assert multiply_adds(UNet(2, (4, 8), blocks=1)) == fine + coarse / 4
    assert multiply_adds(GradientStep(UNet(2, (4, 8), blocks=1))) == 2 * (fine + coarse / 4)  # there and back


def test_a_shuffled_unet_costs_a_third_of_a_unet_at_most():
    assert 3 * multiply_adds(ShuffledUNet()) < multiply_adds(UNet(channels=(32, 64, 128)))


def test_counting_leaves_no_trace():
    network = UNet(2, (4, 8), blocks=1)
    multiply_adds(network)
    assert not any(layer._forward_hooks for layer in network.modules())


# Building -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_built_from_its_configuration(name):
    network = made(name, torch.float32)
    again = build(type(network).__name__, json.loads(json.dumps(network.config)))
    assert type(again) is type(network)
    assert (again.dim, again.neighbours, again.multiple, again.reach) == (
        network.dim,
        network.neighbours,
        network.multiple,
        network.reach,
    )
    again.load_state_dict(network.state_dict())
    x = images(network, *sides(network), dtype=torch.float32)
    assert torch.equal(again(x, 0.1), network(x, 0.1))


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("Transformer", {}, "no network 'Transformer'"),
        ("UNet", {"width": 3}, "no network 'UNet' with configuration.*width"),
        ("UNet", {"activation": "gelu"}, "gelu"),
        ("UNet", {"channels": []}, "no network 'UNet'"),
        ("UNet", {"dim": 4}, "dim is 4"),
        ("UNet", {"blocks": 10**9}, "blocks is 1000000000: at most 10 numbers, none above 2048"),
        ("UNet", {"channels": [4, 6], "blocks": [1, 1]}, "blocks is .1, 1.: 2 scales take one number or 3 of them"),
        ("UNet", {"channels": [4, 10**6]}, "channels is"),
        ("UNet", {"channels": [4] * 40}, "channels is"),
        ("UNet", None, "no network 'UNet'"),
        ("GradientStep", {"network": {"architecture": "DnCNN", "depth": 10**9}}, "depth is"),
        ("DnCNN", {"dim": 1}, "dim is 1"),
        ("DnCNN", {"depth": "deep"}, "no network 'DnCNN'"),
        ("DnCNN", {"dim": 3, "neighbours": 1}, "only networks of slices have neighbours"),
        ("GradientStep", {}, "no network 'GradientStep'"),
        ("GradientStep", {"network": {"dim": 3}}, "architecture"),
        ("GradientStep", {"network": {"architecture": "Transformer"}}, "no network 'Transformer'"),
    ],
)
def test_configurations_that_do_not_fit_are_named(architecture, config, message):
    with pytest.raises(InvsrError, match=message):
        build(architecture, config)


def test_building_leaves_the_configuration_alone():
    config = {"network": {"architecture": "DnCNN", "dim": 2, "channels": 4, "depth": 3}}
    kept = json.dumps(config)
    build("GradientStep", config)
    assert json.dumps(config) == kept
