"""The cost of denoisers that have one, and their step along its gradient."""

import numpy as np
import pytest
import torch
from small_denoisers import Fake, blur_volumes, made, noise, plain

from invsr.priors import Denoiser


def test_only_gradient_steps_have_a_cost():
    z = noise(1, 1, 4, 6, 8)
    for network in (made("UNet 3-D"), made("DnCNN 3-D"), Fake(blur_volumes, 3)):
        assert Denoiser(network).cost(z, 0.2) is None
    prior = Denoiser(made("gradient step 3-D"))
    assert prior.cost(z) is None
    assert prior.cost(z, 0.0) is None


def test_cost_is_that_of_the_network_over_the_variance():
    network = made("gradient step 3-D")
    z = noise(2, 3, 4, 6, 8)
    found = Denoiser(network).cost(z, torch.tensor(0.2))
    assert found.ndim == 0
    expected = sum(float(network.cost(one[None, None], 0.2)) for one in z.flatten(0, 1)) / 0.04
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_cost_of_sizes_that_need_padding_and_of_complex_volumes():
    network = made("gradient step 3-D")
    prior = Denoiser(network)
    z = noise(5, 6, 7)
    padded = torch.from_numpy(np.pad(z.numpy(), [(0, 1), (0, 0), (0, 1)], mode="edge"))
    expected = float(network.cost(padded[None, None], 0.2)) / 0.04
    assert float(prior.cost(z[None, None], 0.2)) == pytest.approx(expected)
    image = z.abs()[None, None]
    assert float(prior.cost(complex(0.6, -0.8) * image, 0.2)) == pytest.approx(float(prior.cost(image, 0.2)))


@pytest.mark.parametrize(("planes", "axes"), [(1, [1]), (2, [2]), ("all", [0, 1, 2]), ("random", [0, 1, 2])])
def test_cost_of_slices_is_the_mean_over_the_axes(planes, axes):
    network = made("gradient step 2-D")
    z = noise(4, 6, 8)
    each = [sum(float(network.cost(one[None, None], 0.2)) for one in z.movedim(axis, 0)) for axis in axes]
    found = Denoiser(network, planes=planes).cost(z[None, None], 0.2)
    assert float(found) == pytest.approx(np.mean(each) / 0.04)


@pytest.mark.parametrize(("name", "options"), [("gradient step 3-D", {}), ("gradient step 2-D", {"planes": "all"})])
def test_prox_is_a_gradient_step_on_the_cost(name, options):
    network = made(name)
    prior = plain(network, **options)
    z, direction, h = noise(1, 1, 4, 6, 8), noise(1, 1, 4, 6, 8, seed=1), 1e-5
    slope = float(prior.cost(z + h * direction, 0.2) - prior.cost(z - h * direction, 0.2)) / (2 * h)
    expected = float(((z - prior.prox(z, 0.2)) * direction).sum()) / 0.04
    assert slope == pytest.approx(expected, rel=1e-6)
