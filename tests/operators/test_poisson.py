"""Poisson-disc masks: their number of samples, centre and distances."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.operators.kspace_weights import poisson_disc, random_mask


def nearest(mask):
    """Mean distance of the samples outside the centre to the nearest other one."""
    at = mask.nonzero().double()
    apart = torch.cdist(at, at).fill_diagonal_(torch.inf).amin(1)
    middle = torch.tensor(mask.shape) // 2
    return float(apart[((at - middle).abs() > 8).any(1)].mean())


@pytest.mark.parametrize("acceleration", [3.0, 6.0])
def test_so_many_samples_that_keep_their_distance(acceleration):
    mask = poisson_disc((4, 64, 48), acceleration, 10)
    assert mask.dtype == torch.float64 and set(mask.unique().tolist()) == {0.0, 1.0}
    assert int(mask[0].sum()) == round(64 * 48 / acceleration)
    assert torch.equal(mask, mask[:1].expand_as(mask))
    assert bool(mask[:, 27:37, 19:29].all())
    plain = random_mask((1, 64, 48), acceleration, 0.15, torch.Generator().manual_seed(0), (1, 2))
    assert nearest(mask[0]) > 1.15 * nearest(plain[0])
    assert float(mask[0, 16:48, 12:36].mean()) > 1.5 * float(mask[0, :8].mean())  # denser in the middle


def test_every_seed_ends_with_as_many_samples_as_asked_for():
    for seed in range(60):
        shape, acceleration, centre = (1, 9 + seed, 40 - seed // 2), 1.2 + 0.1 * seed, seed % 4
        mask = poisson_disc(shape, acceleration, centre, seed)
        assert int(mask.sum()) == round(shape[1] * shape[2] / acceleration)


def test_axes():
    mask = poisson_disc((32, 5, 40), 4, (6, 8), axes=(2, 0))
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert bool(mask[13:19, :, 16:24].all()) and int(mask[:, 0].sum()) == 320


def test_seeds():
    first, again, other = (poisson_disc((1, 40, 40), 4, 6, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # Not the same mask with others taken out: what two share is not much more than chance.
    outside = torch.ones(40, 40, dtype=torch.bool)
    outside[12:28, 12:28] = False
    assert float((first[0] * other[0])[outside].sum() / first[0][outside].sum()) < 0.5
    one, two = (poisson_disc((1, 40, 40), 4, 6, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    generator = torch.Generator().manual_seed(3)
    assert not torch.equal(*(poisson_disc((1, 40, 40), 4, 6, generator) for _ in range(2)))


def test_what_cannot_be_drawn():
    for wrong in ((1.0, 4, (1, 2)), (4.0, 4, (1,)), (4.0, 30, (1, 2)), (4.0, 50, (1, 2))):
        with pytest.raises(InvsrError):
            poisson_disc((4, 40, 40), wrong[0], wrong[1], axes=wrong[2])
