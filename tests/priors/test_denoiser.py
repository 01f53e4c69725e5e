"""Denoisers as priors: options, what they say of their network, and its number format."""

import pytest
import torch
from small_denoisers import F64, Fake, blur_slices, blur_volumes, made, noise, plain

from invsr.errors import InvsrError
from invsr.models.engines import multiplies_bfloat16
from invsr.priors import Denoiser


def test_refuses():
    with pytest.raises(InvsrError, match="dim is 4: a denoiser takes slices"):
        Denoiser(Fake(blur_volumes, 3), dim=4)
    for planes in ("axial", 3, -1):
        with pytest.raises(InvsrError, match="planes .* use random, all or an axis 0, 1, 2"):
            Denoiser(Fake(blur_slices, 2), planes=planes)


def test_what_the_network_says_of_itself():
    prior = Denoiser(made("UNet 2.5-D"))
    assert (prior.dim, prior.neighbours, prior.multiple, prior.name) == (2, 2, 2, "UNet")
    assert prior.reach == prior.network.reach
    assert Denoiser(lambda x, sigma: x).dim == 2
    assert Denoiser(Fake(blur_volumes, 3), name="blur").name == "blur"
    assert prior.is_denoiser and not prior.quadratic


def test_network_moves_with_the_prior():
    network = made("UNet 3-D", torch.float32)
    prior = plain(network)
    assert {f"network.{name}" for name in network.state_dict()} == set(prior.state_dict())
    v = noise(1, 1, 5, 6, 7)
    expected = prior.prox(v.float(), 0.2)
    assert prior.to(F64).prox(v, 0.2).dtype == F64
    torch.testing.assert_close(prior.prox(v, 0.2).float(), expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.device.type == "meta" for parameter in prior.to("meta").network.parameters())


@pytest.mark.parametrize("bfloat16", [True, False, None])
def test_number_format_of_the_network(bfloat16):
    formats = []

    def function(x):
        formats.append(torch.is_autocast_enabled("cpu"))
        return x

    v = noise(1, 1, 5, 6, 7, dtype=torch.float32)
    out = plain(Fake(function, 3), bfloat16=bfloat16).prox(v, 0.1)
    assert formats == [multiplies_bfloat16(v.device) if bfloat16 is None else bfloat16]
    assert torch.equal(out, v)


def test_bfloat16_changes_little():
    network = made("UNet 3-D", torch.float32)
    v = noise(1, 1, 9, 8, 7, dtype=torch.float32)
    out, expected = plain(network, bfloat16=True).prox(v, 0.2), plain(network).prox(v, 0.2)
    assert out.dtype == torch.float32
    assert 0 < float((out - expected).norm()) < 0.02 * float((v - expected).norm())
