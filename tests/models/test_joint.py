"""A network of several contrasts: any number in any order, each helped by the others."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.models.architectures import build, multiply_adds
from invsr.models.joint import JointUNet
from invsr.models.networks import UNet
from invsr.priors.denoiser import Denoiser

F64 = torch.float64
LEVELS = torch.tensor([0.05, 0.1, 0.2], dtype=F64).reshape(3, 1, 1, 1)


@pytest.fixture
def network():
    """As after training: all weights at random."""
    found = JointUNet(channels=(4, 6, 8), blocks=(1, 1, 0, 1, 1)).to(F64)
    generator = torch.Generator().manual_seed(0)
    for weights in found.parameters():
        weights.data = 0.2 * torch.randn(weights.shape, generator=generator, dtype=F64)
    return found


def noise(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_swapped_contrasts_give_swapped_results(network):
    x, order = noise(2, 3, 8, 8, 12), [2, 0, 1]
    torch.testing.assert_close(network(x[:, order], LEVELS[order]), network(x, LEVELS)[:, order])


def test_each_contrast_sees_the_others_at_its_place(network):
    """A change of one contrast changes another, within reach and nowhere else."""
    x = noise(1, 2, 80, 8, 8)
    other = x.clone()
    other[0, 1, 40, 4, 4] += 1
    changed = (network(other, 0.1) - network(x, 0.1))[0, 0].abs().amax((1, 2))
    assert changed[40] > 1e-6
    reached = changed.nonzero().flatten()
    assert int(reached.min()) >= 40 - network.reach and int(reached.max()) <= 40 + network.reach


def test_it_is_homogeneous_in_all_contrasts_together(network):
    x = noise(1, 3, 8, 8, 8)
    torch.testing.assert_close(network(7 * x, 7 * LEVELS), 7 * network(x, LEVELS))


def test_that_of_a_unet_begins_as_the_unet_for_each():
    plain = UNet(channels=(4, 6), blocks=1).to(F64)
    joint = JointUNet.of(plain).to(F64)
    x = noise(1, 3, 8, 8, 8)
    expected = torch.cat([plain(x[:, n : n + 1], float(LEVELS[n])) for n in range(3)], 1)
    torch.testing.assert_close(joint(x, LEVELS), expected)
    assert build("JointUNet", joint.config).config == plain.config


def test_multiply_adds_are_those_counted_by_hand():
    plain = UNet(channels=(4, 6), blocks=1)
    exchanges = 2 * (12 * 2 + 2 * 4) + (18 * 3 + 3 * 6) / 8  # twice on the fine scale, once on the coarse one
    assert multiply_adds(JointUNet.of(plain)) == multiply_adds(plain) + exchanges


def test_a_denoiser_hands_it_all_contrasts(network):
    x = noise(1, 3, 10, 9, 11)
    plain = Denoiser(network, symmetries=False, crop=False, bfloat16=False)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 3, 0, 2), mode="replicate")
    torch.testing.assert_close(plain.prox(x, LEVELS), network(padded, LEVELS)[..., :10, :9, :11])
    long = noise(1, 2, 104, 8, 8)
    tiled = Denoiser(network, symmetries=False, crop=False, bfloat16=False, tile=60 * 8 * 8)
    torch.testing.assert_close(tiled.prox(long, LEVELS[:2]), network(long, LEVELS[:2]))
    turned = Denoiser(network, symmetries=True, bfloat16=False)
    assert turned.prox(x, LEVELS).shape == x.shape


def test_slices_are_refused():
    with pytest.raises(InvsrError, match="denoised as volumes"):
        JointUNet(dim=2)
