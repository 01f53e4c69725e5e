"""Known values continued into what is unknown."""

import pytest
import torch

from invsr.numerics.filling import filled


def volume(*shape, seed=0):
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(9, 7, 5), (16, 1, 3), (1, 1, 6)])
def test_known_values_stay_and_the_others_lie_between_them(shape):
    data, known = volume(*shape), volume(*shape, seed=1) > 0.5
    known[0, 0, 0, 0, 0] = True
    found = filled(torch.where(known, data, torch.nan), known)
    assert torch.equal(found[known], data[known])
    assert bool((found >= data[known].min() - 1e-9).all() & (found <= data[known].max() + 1e-9).all())


def test_a_constant_stays_one_and_near_values_count_most():
    known = torch.zeros(1, 1, 32, 8, 8, dtype=torch.bool)
    known[:, :, :8], known[:, :, 24:] = True, True
    torch.testing.assert_close(filled(torch.full(known.shape, 3.0), known), torch.full(known.shape, 3.0))
    ramp = torch.arange(32.0).reshape(1, 1, -1, 1, 1).expand(known.shape)
    found = filled(ramp, known)[0, 0, :, 4, 4]
    assert bool((found.diff() > -1e-5).all()) and 4 < float(found[9]) < 12 and 20 < float(found[22]) < 28


def test_everything_known_is_returned_as_it_is():
    data = volume(4, 4, 4)
    assert filled(data, torch.ones_like(data, dtype=torch.bool)) is data
