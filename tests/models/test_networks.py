"""Denoising networks: shapes, homogeneity, noise levels, small volumes."""

import itertools

import pytest
import torch
from denoising_networks import ALL, F64, PLAIN, images, made, noise, sides

from invsr.models.gradient_step import RANGE, GradientStep
from invsr.models.networks import UNet
from invsr.models.shuffled import depth_to_space, space_to_depth


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("batch", [1, 3])
def test_one_channel_comes_out(name, batch):
    network = made(name, torch.float32)
    out = network(images(network, *sides(network), batch=batch, dtype=torch.float32), 0.1)
    assert out.shape == (batch, 1, *sides(network))
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", ["UNet 2.5-D", "DnCNN 2.5-D"])
def test_noise_is_subtracted_from_the_slice_in_the_middle(name):
    network = made(name)
    x = images(network, 8, 8)
    with torch.no_grad():
        (network.tail if name.startswith("UNet") else network.layers[-1]).weight.zero_()
    assert torch.equal(network(x, 0.1), x[:, network.neighbours : network.neighbours + 1])


@pytest.mark.parametrize("name", ALL)
def test_nothing_in_nothing_out(name):
    network = made(name)
    assert not network(0 * images(network, *sides(network)), 0.0).any()


@pytest.mark.parametrize("name, scale", [*itertools.product(PLAIN, [1e-3, 0.3, 170.0]), ("gradient step, relu", 1e-3)])
def test_relu_networks_are_homogeneous(name, scale):
    torch.manual_seed(0)
    network = GradientStep(UNet(3, (4, 6))).to(F64) if name == "gradient step, relu" else made(name)
    x = images(network, *sides(network))
    if name == "gradient step, relu":
        x = x.clamp(*RANGE)  # beyond, it brings intensities back
    expected = scale * network(x, 0.2)
    torch.testing.assert_close(network(scale * x, scale * 0.2), expected, rtol=1e-11, atol=1e-13 * scale)


@pytest.mark.parametrize("name", ALL)
def test_noise_level_matters(name):
    network = made(name)
    x = images(network, *sides(network))
    assert (network(x, 0.1) - network(x, 0.5)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ALL)
def test_noise_levels_per_image_equal_separate_calls(name):
    network = made(name)
    x, levels = images(network, *sides(network), batch=3), torch.tensor([0.05, 0.3, 1.1], dtype=F64)
    expected = torch.cat([network(one, float(level)) for one, level in zip(x.split(1), levels, strict=True)])
    column = levels.reshape(-1, *[1] * (network.dim + 1))
    for sigma in (levels, column, column.expand(3, 1, *sides(network)), levels.float().double()):
        torch.testing.assert_close(network(x, sigma), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(network(x, levels), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(network(x[1:2], levels[1]), expected[1:2], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["UNet 2-D", "UNet 3-D", "gradient step, UNet 3-D, elu"])
def test_noise_level_per_pixel(name):
    network = made(name)
    x = images(network, *sides(network))
    level = noise(1, 1, *sides(network), seed=1).abs()
    assert (network(x, level) - network(x, level.mean())).abs().max() > 1e-4
    torch.testing.assert_close(network(x.repeat(2, *[1] * (network.dim + 1)), level)[1:], network(x, level))


@pytest.mark.parametrize("name", ALL)
def test_argument_is_left_alone(name):
    network = made(name)
    x = images(network, *sides(network))
    kept = x.clone()
    network(x, 0.1)
    assert torch.equal(x, kept)


def test_blocks_of_voxels_become_channels_and_voxels_again():
    x = noise(2, 3, 4, 6, 8)
    deep = space_to_depth(x)
    assert deep.shape == (2, 24, 2, 3, 4)
    # The eight voxels of a block are consecutive channels.
    torch.testing.assert_close(deep[1, 8:16, 1, 2, 3], x[1, 1, 2:4, 4:6, 6:8].flatten())
    assert torch.equal(depth_to_space(deep), x)
    flat = noise(2, 1, 4, 6)
    assert space_to_depth(flat).shape == (2, 4, 2, 3) and torch.equal(depth_to_space(space_to_depth(flat)), flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_single_small_volume_gives_what_it_gives_in_a_batch(dtype):
    torch.manual_seed(0)
    network = UNet(channels=(4, 8)).to(dtype)
    x = torch.rand(2, 1, 8, 10, 12, dtype=dtype)
    one, both = x[:1].clone().requires_grad_(), x.clone().requires_grad_()
    alone, together = network(one, 0.1), network(both, 0.1)[:1]
    torch.testing.assert_close(alone, together)
    assert alone.shape == (1, 1, 8, 10, 12)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0][:1] for y, x in ((alone, one), (together, both))]
    torch.testing.assert_close(*gradients)


def test_a_single_small_volume_is_no_slow_convolution():
    network, x = UNet(channels=(4, 8)), torch.rand(1, 1, 8, 8, 8)
    with torch.profiler.profile() as profile, torch.no_grad():
        network(x, 0.1)
    called = {one.key for one in profile.key_averages()}
    assert any("mkldnn" in name for name in called) or not torch.backends.mkldnn.is_available()
    assert not any("slow_conv" in name for name in called if torch.backends.mkldnn.is_available())
