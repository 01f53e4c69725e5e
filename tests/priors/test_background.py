"""The crop to the foreground: background is smoothed, the rest is as if there were no crop."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_denoisers import F64, Fake, blur_volumes, noise, plain

from invsr.models.networks import DnCNN
from invsr.priors.denoiser import BACKGROUND, FOREGROUND_MARGIN


def head(sign=1.0, dtype=F64):
    """A bright block amid faint noise, and the box that is neither background nor margin."""
    v = 0.1 * BACKGROUND * noise(1, 1, 40, 33, 30, dtype=dtype).clamp(-3, 3)
    v[..., 12:18, 14:19, 20:24] = sign * (1 + 0.1 * noise(6, 5, 4, dtype=dtype, seed=1))
    v[..., 36, 28, 3] = 0.3  # one voxel is no anatomy
    # Means over three voxels see the block one voxel earlier.
    blocks = [(12, 18, 40), (14, 19, 33), (20, 24, 30)]
    return v, tuple(slice(max(0, a - 1 - FOREGROUND_MARGIN), min(n, b + 1 + FOREGROUND_MARGIN)) for a, b, n in blocks)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_background_is_smoothed_and_the_rest_as_if_there_were_no_crop(sign):
    torch.manual_seed(0)
    network = DnCNN(3, 4, depth=4).to(F64).requires_grad_(False)
    v, box = head(sign)
    out, expected = plain(network, crop=True).prox(v, 0.2), plain(network).prox(v, 0.2)
    count = ndimage.uniform_filter(np.ones(v.shape[2:]), 3, mode="constant")
    mean = torch.from_numpy(ndimage.uniform_filter(v[0, 0].numpy(), 3, mode="constant") / count)
    outside = torch.ones(v.shape[2:], dtype=torch.bool)
    outside[box] = False
    torch.testing.assert_close(out[0, 0][outside], mean[outside], rtol=1e-10, atol=1e-13)
    near = tuple(slice(s.start + network.reach, s.stop - network.reach) for s in box)
    torch.testing.assert_close(out[0, 0][near], expected[0, 0][near], rtol=1e-11, atol=1e-13)
    assert (out - expected)[0, 0][outside].abs().max() > 1e-4


def test_network_gets_the_foreground_only():
    v, box = head()
    fake = Fake(blur_volumes, 3)
    plain(fake, crop=True).prox(v, 0.2)
    assert fake.shapes == [(1, 1, *(s.stop - s.start for s in box))]


@pytest.mark.parametrize("n", [1, 2])
def test_background_of_few_slices(n):
    v = 1e-4 * noise(1, 1, 40, 32, n)
    v[..., 10:14, 10:14, :] = 1
    out = plain(Fake(lambda x: 0 * x, 3), crop=True).prox(v, 0.1)
    box = slice(10 - 1 - FOREGROUND_MARGIN, 14 + 1 + FOREGROUND_MARGIN)
    assert not out[..., box, box, :].any()
    torch.testing.assert_close(out[..., 30, 30, 0], v[..., 29:32, 29:32, 0].mean((-1, -2)))


def test_volumes_without_background_are_not_cropped():
    v = 1 + 0.1 * noise(1, 1, 9, 10, 11)
    fake = Fake(blur_volumes, 3)
    torch.testing.assert_close(plain(fake, crop=True).prox(v, 0.2), blur_volumes(v))
    assert fake.shapes == [(1, 1, 9, 10, 11)]
