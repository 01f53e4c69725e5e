"""Registration of contrasts: how alike they are found does not depend on how much of the head the second one shows."""

import numpy as np
import pytest

import invsr
from invsr.examples import crop, example
from invsr.motion.contrasts import align_contrasts
from invsr.pipeline.contrasts import LEAST_ALIKE


@pytest.fixture(autouse=True)
def fewer_points(monkeypatch):
    """A quarter: what is claimed does not depend on how many there are."""
    monkeypatch.setattr("invsr.motion.contrasts.POINTS", 5_000)


@pytest.fixture(scope="module")
def head():
    return crop(example(), 64)


def other_contrast(volume):
    levels = volume.data / float(volume.data.max())
    return volume.with_data(levels * (1.7 - 1.4 * levels))


def part(volume, first, stop):
    """Slices first to stop along the third axis."""
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world([0, 0, first])
    data = volume.data[..., first:stop]
    return volume.with_data(data, invsr.Grid(tuple(data.shape[2:]), affine))


def found(fixed, moving):
    return align_contrasts(fixed.data, fixed.grid, moving.data, moving.grid, fixed.grid.centre)


@pytest.mark.parametrize("first, stop", [(16, 48), (24, 40)])
def test_a_part_of_the_head_is_as_alike_as_the_whole(head, first, stop):
    one = found(head, part(other_contrast(head), first, stop))
    assert one.after > 0.2 and one.after >= one.before - 0.01  # of the whole 0.28
    assert np.abs(one.motion).max() < 0.3


def test_a_part_of_other_anatomy_is_not_alike(head):
    other = head.with_data(other_contrast(head).data.flip(2, 4).transpose(2, 3).contiguous())
    assert found(head, part(other, 24, 40)).after < LEAST_ALIKE


def test_no_overlap_is_not_alike(head):
    moving = part(other_contrast(head), 0, 16)
    affine = moving.grid.affine.copy()
    affine[:3, 3] = moving.grid.to_world([0, 0, -50])
    away = moving.with_data(moving.data, invsr.Grid(moving.grid.shape, affine))
    assert found(head, away).after < LEAST_ALIKE
