"""How far a network sees, and the multiple of voxels that it takes."""

import pytest
import torch
from denoising_networks import ALL, F64, images, made, noise

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet


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
