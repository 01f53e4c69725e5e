"""Networks of slices: the planes that they see, and the neighbours of a slice."""

import pytest
import torch
from small_denoisers import F64, Fake, blur_slices, blur_volumes, noise, plain
from torch.nn.functional import pad


def impulse():
    return pad(torch.ones(1, 1, 1, 1, 1, dtype=F64), (3, 3, 3, 2, 2, 3))


def across(v, axis):
    """Slices across that axis, blurred."""
    return blur_slices(v.movedim(axis + 2, 2)[0, 0, :, None])[:, 0].movedim(0, axis)[None, None]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_across_one_axis(axis):
    v = impulse()
    fake = Fake(blur_slices, 2)
    out = plain(fake, planes=axis).prox(v, 0.1)
    torch.testing.assert_close(out, across(v, axis))
    spread = [int(n.max() - n.min()) for n in out[0, 0].nonzero(as_tuple=True)]
    assert spread == [0 if n == axis else 2 for n in range(3)]
    assert fake.shapes == [(v.shape[axis + 2], 1, *(v.shape[n + 2] for n in range(3) if n != axis))]


def test_all_planes_are_the_mean_of_three():
    v = noise(1, 1, 5, 6, 7)
    expected = sum(across(v, axis) for axis in range(3)) / 3
    torch.testing.assert_close(plain(Fake(blur_slices, 2), planes="all").prox(v, 0.1), expected)


def test_random_planes_are_each_of_the_three():
    v = noise(1, 1, 5, 6, 7)
    prior = plain(Fake(blur_slices, 2), planes="random")
    candidates = [across(v, axis) for axis in range(3)]
    seen = [[torch.allclose(out, one) for one in candidates] for out in (prior.prox(v, 0.1) for _ in range(30))]
    assert all(sum(one) == 1 for one in seen)
    assert min(map(sum, zip(*seen, strict=True))) >= 3


def test_planes_mean_nothing_to_networks_of_volumes():
    v = noise(1, 1, 5, 6, 7)
    for planes in ("random", "all", 1):
        torch.testing.assert_close(plain(Fake(blur_volumes, 3), planes=planes).prox(v, 0.1), blur_volumes(v))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("tile", [1, 10**6])
def test_neighbours_repeat_at_the_ends(axis, tile):
    v = noise(1, 1, 5, 6, 7)
    slices = v.movedim(axis + 2, 0)
    n = len(slices)
    for channel in range(5):
        fake = Fake(lambda x, channel=channel: x[:, channel : channel + 1], 2, neighbours=2)
        out = plain(fake, planes=axis, tile=tile).prox(v, 0.1).movedim(axis + 2, 0)
        expected = slices[[min(max(i + channel - 2, 0), n - 1) for i in range(n)]]
        assert torch.equal(out, expected)
        assert all(shape[1] == 5 for shape in fake.shapes)
        assert len(fake.shapes) == (n if tile == 1 else 1)
