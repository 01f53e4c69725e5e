"""Symmetries: what a network sees is turned and flipped, and turned back."""

import pytest
import torch
from small_denoisers import Fake, blur_slices, blur_volumes, noise, plain, shift

from invsr.errors import InvsrError


@pytest.mark.parametrize(("network", "dim"), [(blur_volumes, 3), (blur_slices, 2)])
def test_symmetries_do_nothing_to_an_equivariant_network(network, dim):
    v = noise(1, 1, 5, 6, 7)
    expected = plain(Fake(network, dim), planes=1).prox(v, 0.1)
    prior = plain(Fake(network, dim), planes=1, symmetries=True)
    for _ in range(20):
        torch.testing.assert_close(prior.prox(v, 0.1), expected)


@pytest.mark.parametrize(("dim", "axes"), [(3, (2, 3, 4)), (2, (4,))])
def test_symmetries_turn_and_flip_what_the_network_sees(dim, axes):
    v = noise(1, 1, 5, 6, 7)
    prior = plain(Fake(shift, dim), planes=0, symmetries=True)
    candidates = [v.roll(step, axis) for axis in axes for step in (1, -1)]
    seen = [[torch.equal(out, one) for one in candidates] for out in (prior.prox(v, 0.1) for _ in range(60))]
    assert all(sum(one) == 1 for one in seen)
    assert min(map(sum, zip(*seen, strict=True))) >= 2


def test_a_number_of_symmetries_is_the_mean_over_as_many():
    v = noise(1, 1, 5, 6, 7)
    one = plain(Fake(shift, 3), symmetries=True, seed=2)
    expected = torch.stack([one.prox(v, 0.1) for _ in range(5)]).mean(0)
    torch.testing.assert_close(plain(Fake(shift, 3), symmetries=5, seed=2).prox(v, 0.1), expected)
    with pytest.raises(InvsrError, match="symmetries is -1: use True, False or a number"):
        plain(Fake(shift, 3), symmetries=-1)


@pytest.mark.parametrize("options", [{"symmetries": True, "planes": 0}, {"planes": "random"}])
def test_seed_makes_runs_repeatable(options):
    v = noise(1, 1, 5, 6, 7)

    def run(seed):
        prior = plain(Fake(shift, 2), seed=seed, **options)
        return torch.stack([prior.prox(v, 0.1) for _ in range(12)])

    state = torch.random.get_rng_state()
    first = run(3)
    assert torch.equal(torch.random.get_rng_state(), state)  # of no one else
    torch.rand(1)
    assert torch.equal(run(3), first)
    assert not torch.equal(run(4), first)
