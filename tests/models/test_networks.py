"""Denoising networks: shapes, homogeneity, reach, the gradient step and its derivative, number format."""

import itertools
import json

import pytest
import torch
from torch import nn

from invsr.errors import InvsrError
from invsr.models.architectures import build, multiply_adds
from invsr.models.gradient_step import RANGE, GradientStep
from invsr.models.joint import JointUNet
from invsr.models.networks import DnCNN, UNet
from invsr.models.shuffled import ShuffledUNet, depth_to_space, space_to_depth

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


# What goes in and comes out -------------------------------------------------------------------------


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


# Reach and multiple ---------------------------------------------------------------------------------


def response(network, position, axis, n):
    """The output along one axis to an impulse there, other sides as small as the network takes them."""
    shape = [network.multiple] * network.dim
    shape[axis] = n
    x = torch.zeros((1, 1 + 2 * network.neighbours, *shape), dtype=F64)
    x.movedim(2 + axis, 0)[position] = 1
    return network(x, 0.0).movedim(2 + axis, 0).flatten(1)


# Gradient steps through ReLUs do not pass where the impulse has not been.
@pytest.mark.parametrize("name", [name for name in ALL if name != "gradient step, DnCNN 2-D"])
def test_reach_is_true_and_tight(name):
    network = made(name)
    axes = range(network.dim)
    # Positive weights: nothing cancels, and what is not reached stays exactly zero.
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(2 / weight[0].numel())
    n = 2 * network.multiple * (network.reach // network.multiple + 3)
    for axis in axes:
        farthest = 0
        for position in range(n // 2, n // 2 + network.multiple):
            changed = response(network, position, axis, n).any(1).nonzero().flatten()
            assert int(changed[0]) > 0 and int(changed[-1]) < n - 1
            farthest = max(farthest, position - int(changed[0]), int(changed[-1]) - position)
        if isinstance(network, GradientStep):
            # There and back meet a coarse grid's blocks at different ends: a few voxels less than the sum.
            slack = 2 * (network.multiple - 1)
            assert network.reach - slack <= farthest <= network.reach
        else:
            assert farthest == network.reach


@pytest.mark.parametrize("name", ALL)
def test_one_voxel_changes_nothing_beyond_reach(name):
    network = made(name)
    n = 2 * network.multiple * (network.reach // network.multiple + 3)
    x = images(network, *[4 * network.multiple] * (network.dim - 1), n)
    changed = x.clone()
    changed[..., n // 2] += 1
    difference = (network(changed, 0.1) - network(x, 0.1)).abs().flatten(0, -2).amax(0)
    assert not difference[: n // 2 - network.reach].any()
    assert not difference[n // 2 + network.reach + 1 :].any()
    assert difference[n // 2] > 1e-2
    assert difference[n // 2 - network.reach // 2 : n // 2].any()


@pytest.mark.parametrize("name", ALL)
def test_a_shift_by_multiple_shifts_the_output(name):
    network = made(name)
    n = 2 * network.multiple * (network.reach // network.multiple + 4)
    for axis in range(network.dim):
        first = response(network, n // 2, axis, n)
        second = response(network, n // 2 + network.multiple, axis, n)
        torch.testing.assert_close(second[network.multiple :], first[: -network.multiple], rtol=1e-9, atol=1e-14)
        if network.multiple > 1:
            second = response(network, n // 2 + 1, axis, n)
            assert (second[1:] - first[:-1]).abs().max() > 1e-3


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_multiple_is_the_coarsest_voxel(scales):
    network = UNet(2, [4] * scales, blocks=1)
    n = network.multiple
    assert n == 2 ** (scales - 1) == GradientStep(network).multiple
    assert network(noise(1, 1, n, 3 * n, dtype=torch.float32), 0.1).shape == (1, 1, n, 3 * n)
    assert DnCNN(2, 4, depth=3).multiple == 1


# Gradient steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_step_descends_on_its_cost(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=2).requires_grad_()
    levels = torch.tensor([0.1, 0.4], dtype=F64)
    cost = network.cost(x, levels)
    assert cost.shape == (2,)
    removed, outside = x - network.network(x, levels), x - x.clamp(*RANGE)
    assert outside.any()
    expected = 0.5 * (removed.square() + outside.square()).flatten(1).sum(1)
    torch.testing.assert_close(cost, expected)
    (slope,) = torch.autograd.grad(cost.sum(), x)
    torch.testing.assert_close(network(x, levels), x - slope, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(network(x, levels), x - slope, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENT)
def test_cost_is_never_negative_and_zero_where_nothing_is_removed(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=4).clamp(*RANGE)
    assert (network.cost(x, 0.1) > 0).all() and (network.cost(x + 2, 0.1) > network.cost(x, 0.1) + 1).all()
    assert not network.cost(0 * x, 0.0).any()
    nn.init.zeros_(list(network.parameters())[-1])  # N(x) = x
    assert not network.cost(x, 0.1).any()
    assert torch.equal(network(x, 0.1), x)


def slopes(network, x, sigma):
    """``x - grad g`` differentiated twice by autograd."""
    x = x if x.requires_grad else x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network.cost(x, sigma).sum(), x, create_graph=True)
    return x - slope


@pytest.mark.parametrize("name", GRADIENT)
def test_derivative_of_the_gradient_step_is_the_second_one_of_its_cost(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=2).requires_grad_()
    w, levels = noise(*x.shape, seed=1), torch.tensor([0.1, 0.4], dtype=F64, requires_grad=True)
    variables = [x, levels, *network.parameters()]
    found = torch.autograd.grad(network(x, levels), variables, w)
    expected = torch.autograd.grad(slopes(network, x, levels), variables, w)
    assert (found[0] - w).abs().max() > 1e-2
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_derivatives_of_the_gradient_step_that_are_not_asked_for():
    network = made("gradient step, UNet 3-D, elu")
    x = images(network, 4, 4, 6)
    w, last = noise(*x.shape, seed=1), list(network.parameters())[-1]
    expected_x, expected_last = torch.autograd.grad(slopes(network, x.requires_grad_(), 0.2), [x, last], w)
    network.requires_grad_(False)
    (found,) = torch.autograd.grad(network(x, 0.2), x, w)
    torch.testing.assert_close(found, expected_x)
    last.requires_grad_()
    (found,) = torch.autograd.grad(network(x.detach(), 0.2), last, w)
    torch.testing.assert_close(found, expected_last)
    assert not network.requires_grad_(False)(x.detach(), 0.2).requires_grad


def test_gradient_step_passes_gradcheck():
    network = made("gradient step, UNet 2-D, elu")
    x = images(network, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: network(t, 0.2), x)


def test_gradient_step_is_differentiable_twice():
    network = made("gradient step, UNet 2-D, elu")
    x, w = images(network, 4, 4).requires_grad_(), noise(1, 1, 4, 4, seed=1).requires_grad_()
    weight = network.network.tail.weight

    def derivatives(step):
        (once,) = torch.autograd.grad(step(x), x, w, create_graph=True)
        return torch.autograd.grad((once * noise(*x.shape, seed=2)).sum(), [x, w, weight])

    expected = derivatives(lambda t: slopes(network, t, 0.2))
    for found, other in zip(derivatives(lambda t: network(t, 0.2)), expected, strict=True):
        torch.testing.assert_close(found, other)


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


def test_blocks_of_voxels_become_channels_and_voxels_again():
    x = noise(2, 3, 4, 6, 8)
    deep = space_to_depth(x)
    assert deep.shape == (2, 24, 2, 3, 4)
    # The eight voxels of a block are consecutive channels.
    torch.testing.assert_close(deep[1, 8:16, 1, 2, 3], x[1, 1, 2:4, 4:6, 6:8].flatten())
    assert torch.equal(depth_to_space(deep), x)
    flat = noise(2, 1, 4, 6)
    assert space_to_depth(flat).shape == (2, 4, 2, 3) and torch.equal(depth_to_space(space_to_depth(flat)), flat)


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


# Number format --------------------------------------------------------------------------------------


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
