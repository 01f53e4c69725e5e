"""What volumes a denoiser takes: sizes that it pads, single slices, complex ones, batches."""

import itertools

import numpy as np
import pytest
import torch
from small_denoisers import NETWORKS, Fake, made, noise, plain
from torch.nn.functional import pad

from invsr.priors import Denoiser


@pytest.mark.parametrize("name", ["UNet 3-D", "gradient step 3-D"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 8, 8), (1, 9, 3)])
def test_volumes_are_padded_to_what_the_network_takes(name, shape):
    network = made(name)
    v = noise(*shape)
    pad = [(0, -n % network.multiple) for n in shape]
    if name.startswith("gradient"):  # the slope at the image itself: its faces stand for the padding too
        image = v.clone().requires_grad_()
        flat = [p for pair in reversed(pad) for p in pair]
        energy = network.cost(torch.nn.functional.pad(image[None, None], flat, mode="replicate"), 0.2).sum()
        expected = v - torch.autograd.grad(energy, image)[0]
    else:
        padded = torch.from_numpy(np.pad(v.numpy(), pad, mode="edge"))[None, None]
        expected = network(padded, 0.2)[0, 0, : shape[0], : shape[1], : shape[2]]
    torch.testing.assert_close(plain(network).prox(v[None, None], 0.2)[0, 0], expected, rtol=1e-11, atol=1e-13)


def test_slices_are_padded_to_what_the_network_takes():
    network = made("UNet 2-D")
    v = noise(3, 5, 7)
    padded = torch.from_numpy(np.pad(v.numpy(), [(0, 0), (0, 1), (0, 1)], mode="edge"))
    expected = torch.stack([network(one[None, None], 0.2)[0, 0, :5, :7] for one in padded])
    torch.testing.assert_close(plain(network, planes=0).prox(v[None, None], 0.2)[0, 0], expected)


def test_unknown_networks_get_sides_that_are_multiples_of_eight():
    shapes = []

    def function(x, sigma):
        shapes.append(tuple(x.shape))
        return x

    v = noise(1, 1, 3, 9, 16)
    assert torch.equal(plain(function, planes=0).prox(v, 0.1), v)
    assert shapes == [(3, 1, 16, 16)]


EDGE_CASES = {
    "constant": lambda: torch.full((1, 1, 9, 8, 7), 3.0),
    "negative": lambda: -torch.rand(1, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0)),
    "one voxel bright": lambda: pad(torch.ones(1, 1, 1, 1, 1), (12,) * 6),
    "faint": lambda: 1e-20 * noise(1, 1, 9, 8, 7, dtype=torch.float32),
    "one slice, first axis": lambda: noise(1, 1, 1, 9, 8, dtype=torch.float32),
    "one slice, second axis": lambda: noise(1, 1, 9, 1, 8, dtype=torch.float32),
    "one slice, third axis": lambda: noise(1, 1, 9, 8, 1, dtype=torch.float32),
    "two slices": lambda: noise(1, 1, 9, 2, 8, dtype=torch.float32),
    "three slices": lambda: noise(1, 1, 9, 8, 3, dtype=torch.float32),
    "one voxel": lambda: noise(1, 1, 1, 1, 1, dtype=torch.float32),
}


@pytest.mark.parametrize("case", EDGE_CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_volumes_of_every_kind_come_back_whole(name, case):
    v = EDGE_CASES[case]()
    kept = v.clone()
    out = Denoiser(made(name, torch.float32)).prox(v, 0.1)
    assert out.shape == v.shape
    assert out.dtype == v.dtype
    assert out.isfinite().all()
    assert torch.equal(v, kept)


def test_the_phase_of_an_image_is_kept_and_its_magnitude_denoised():
    prior = plain(made("UNet 3-D"))
    image, phase = noise(1, 1, 5, 6, 7).abs(), complex(0.6, -0.8)
    torch.testing.assert_close(prior.prox(phase * image, 0.2), phase * prior.prox(image, 0.2))


def test_batches_and_channels_are_independent():
    prior = plain(made("UNet 3-D"), crop=True)
    v = noise(2, 3, 5, 6, 7)
    v[1, 1] = 0
    out = prior.prox(v, 0.2)
    assert out.shape == v.shape
    for b, c in itertools.product(range(2), range(3)):
        expected = prior.prox(v[b : b + 1, c : c + 1], 0.2)
        torch.testing.assert_close(out[b : b + 1, c : c + 1], expected)


def refuse(x):
    raise AssertionError("the network was called")


@pytest.mark.parametrize("sigma", [0, 0.0, torch.tensor(0.0)])
def test_without_noise_nothing_changes(sigma):
    v = noise(1, 1, 5, 6, 7)
    assert torch.equal(Denoiser(Fake(refuse, 3)).prox(v, sigma), v)


def test_nothing_stays_nothing():
    v = torch.zeros(1, 2, 5, 6, 7)
    assert torch.equal(Denoiser(Fake(refuse, 3)).prox(v, 0.1), v)


def test_sigma_may_be_a_tensor():
    prior = plain(made("UNet 3-D"))
    v = noise(1, 1, 5, 6, 7)
    assert torch.equal(prior.prox(v, torch.tensor(0.25)), prior.prox(v, 0.25))
    assert not torch.equal(prior.prox(v, 0.5), prior.prox(v, 0.25))


def test_prox_is_differentiable():
    prior = plain(made("gradient step 3-D"))
    assert torch.autograd.gradcheck(lambda t: prior.prox(t, 0.2), noise(1, 1, 3, 4, 3).requires_grad_())
