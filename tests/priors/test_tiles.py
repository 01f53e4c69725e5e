"""Tiles cover a volume once, and denoised in tiles it is what it is as a whole."""

import math

import numpy as np
import pytest
import torch
from small_denoisers import F64, made, noise, plain

from invsr.errors import InvsrError
from invsr.models.networks import UNet
from invsr.priors.tiling import tiles


@pytest.mark.parametrize(
    ("shape", "largest", "reach", "multiple"),
    [
        ((9, 11, 71), 7000, 15, 2),
        ((17, 19, 23), 1728, 3, 1),
        ((40, 41, 42), 22000, 9, 4),
        ((1, 33, 64), 600, 2, 8),
        ((64, 2, 2), 64, 5, 2),
        ((20, 20, 20), 8000, 50, 4),
    ],
)
def test_tiles_cover_the_volume_once(shape, largest, reach, multiple):
    count = np.zeros(shape, int)
    index = np.arange(count.size).reshape(shape)
    found = list(tiles(shape, largest, reach, multiple))
    for core, padded, inside in found:
        count[core] += 1
        assert index[padded].size <= largest
        assert np.array_equal(index[padded][inside], index[core])
        for n, one, around in zip(shape, core, padded, strict=True):
            assert one.start % multiple == around.start % multiple == 0
            assert around.start <= max(0, one.start - reach)
            assert around.stop >= min(n, one.stop + reach)
    assert (count == 1).all()
    assert (len(found) == 1) == (math.prod(shape) <= largest)


def test_tiles_that_are_too_small_are_refused():
    with pytest.raises(InvsrError, match="tiles of 1000 voxels are too small for a network that reaches 15 voxels far"):
        list(tiles((64, 64, 64), 1000, 15, 2))
    with pytest.raises(InvsrError, match="too small"):
        plain(made("UNet 3-D"), tile=500).prox(noise(1, 1, 40, 40, 40), 0.1)


@pytest.mark.parametrize(
    ("name", "shape", "tile", "n_calls"),
    [
        ("DnCNN 3-D", (17, 19, 23), 2200, 12),
        ("gradient step 3-D", (5, 7, 139), 4800, 2),
        ("UNet 2-D", (11, 9, 13), 300, 6),
        ("UNet 2.5-D", (11, 9, 13), 300, 6),
    ],
)
def test_tiled_is_untiled(name, shape, tile, n_calls):
    network = made(name)
    v = noise(1, 1, *shape)
    expected = plain(network, planes=0).prox(v, 0.2)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    found = plain(network, planes=0, tile=tile).prox(v, 0.2)
    assert len(calls) == n_calls
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiled_unet_is_untiled_along_every_axis(axis, dtype):
    torch.manual_seed(0)
    network = UNet(3, (4, 6), blocks=1).to(dtype)
    shape = [7, 7, 7]
    shape[axis] = 73
    v = noise(1, 1, *shape, dtype=dtype)
    with torch.no_grad():
        found, expected = plain(network, tile=7 * 7 * 70).prox(v, 0.2), plain(network).prox(v, 0.2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if dtype == F64 else 1e-5)
