"""Which slice came after which: told by times, guessed from motion, used by what holds slices together."""

import pytest
import torch

from invsr.motion.order import by_times, guessed, interleaved, links

N = 24


def walked(order, seed=0):
    """Motion that drifts in the order of acquisition."""
    steps = torch.randn(len(order), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    motion = torch.empty_like(steps)
    motion[order] = steps.cumsum(0)
    return motion


def test_times_give_the_order_and_multiband_keeps_that_of_the_file():
    assert by_times([0.5, 0.0, 0.5, 0.0]).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize(("step", "first"), [(2, 0), (2, 1), (3, 0), (5, 0)])
def test_an_interleave_is_guessed_from_motion(step, first):
    order = interleaved(N, step, first)
    assert sorted(order.tolist()) == list(range(N))
    found = guessed(walked(order), torch.ones(N, dtype=torch.bool), torch.arange(N))
    assert torch.equal(found, order)


def test_the_order_of_the_file_stays_where_motion_does_not_speak_against_it():
    used = torch.ones(N, dtype=torch.bool)
    assert torch.equal(guessed(walked(torch.arange(N)), used, torch.arange(N)), torch.arange(N))
    for seed in range(10):
        chance = torch.randn(N, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(guessed(chance, used, torch.arange(N)), torch.arange(N))
    assert torch.equal(guessed(torch.zeros(N, 6).double(), used, torch.arange(N)), torch.arange(N))


def test_slices_that_are_left_out_do_not_mislead():
    order = interleaved(N, 2)
    motion, used = walked(order), torch.ones(N, dtype=torch.bool)
    motion[7], used[7] = 1e3, False
    assert torch.equal(guessed(motion, used, torch.arange(N)), order)


def test_links_are_the_slices_before_and_after():
    assert links(torch.tensor([0, 2, 1, 3])).tolist() == [[0, 2], [2, 3], [0, 1], [1, 3]]
