"""Lesions and drawn structures that are put into training patches."""

import pytest
import torch

from invsr.training import structures
from invsr.training.structures import insert

SHAPE = (28, 32, 36)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def half_head():
    """Anatomy of 0.5 in one half, air in the other, in one contrast."""
    image = torch.zeros(1, *SHAPE)
    image[:, :14] = 0.5
    return image


@pytest.mark.parametrize("lesions", [[], [torch.ones(1, 1, 5, 6, 7)]])
def test_structures_lie_within_the_anatomy_and_leave_most_of_it(lesions):
    image = half_head()
    changed = torch.stack([insert(image, lesions, seeded(n)) != image for n in range(30)])[:, 0].float()
    assert not changed[:, 15:].any()  # an edge takes two voxels
    shares = changed[:, :14].flatten(1).mean(1)
    assert (shares > 0).all() and shares.median() < 0.5


def test_the_image_is_left_alone_and_results_are_not_negative():
    image = half_head()
    results = [insert(image, [], seeded(n)) for n in range(20)]
    assert torch.equal(image, half_head())
    assert all(float(one.min()) >= 0 for one in results)
    assert any(float(one.max()) > 0.55 for one in results) and any(float(one[:, :14].min()) < 0.4 for one in results)
    assert torch.equal(results[3], insert(image, [], seeded(3)))


def test_most_structures_are_in_one_contrast_alone():
    images = torch.cat([half_head(), 0.4 * half_head(), 2 * half_head()])
    changed = [(insert(images, [], seeded(n)) != images).flatten(1).any(1) for n in range(60)]
    counts = [int(one.sum()) for one in changed]
    assert 1 in counts and 3 in counts and 0 < sum(count < 3 for count in counts) < 60
    assert torch.stack(changed).any(0).all()  # in any of them


def test_air_alone_stays_as_it_is():
    air = torch.zeros(1, *SHAPE)
    assert torch.equal(insert(air, [], seeded(0)), air)


def test_lesions_keep_their_volume():
    """A cube of 6 voxels, turned and scaled by no more than the range of LESION_ZOOM."""
    mask = torch.zeros(1, 1, 8, 8, 8)
    mask[..., 1:7, 1:7, 1:7] = 1
    low, high = structures.LESION_ZOOM
    for seed in range(10):
        found = structures._segmented(mask, (40, 40, 40), torch.tensor([20.0, 20.0, 20.0]), seeded(seed))
        assert float(found[20, 20, 20]) == pytest.approx(1, abs=1e-5)
        assert 0.9 * 6**3 / high**3 < float(found.sum()) < 1.1 * 7**3 / low**3


def test_turns_are_rotations():
    for seed in range(5):
        turn = structures._turn(seeded(seed)).double()
        torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
        assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-6)
