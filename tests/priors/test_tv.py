"""Total variation: what the prox leaves and takes away, in slabs and as a whole."""

import pytest
import torch

from invsr.priors import tv
from invsr.priors.base import Prior


@pytest.mark.parametrize("huber", [0.0, 0.5])
@pytest.mark.parametrize("slab", [1, 60, 10**6])
def test_a_slab_at_a_time_nothing_changes(huber, slab, monkeypatch):
    monkeypatch.setattr(tv, "SLAB", slab)
    prior = tv.TV(huber)
    v = torch.randn(3, 2, 1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = prior.residual(v, 1.2)
    with torch.no_grad():
        assert torch.equal(prior.residual(v, 1.2), expected)
        assert torch.equal(prior.prox(v, 1.2), v - expected)
    assert 0.1 < float((expected.square().sum(0) < 1.2**4 * 0.999).float().mean()) < 0.9  # both sides of the threshold


def test_residual_is_what_any_prox_takes_away():
    class Half(Prior):
        def prox(self, v, sigma):
            return v / 2

    v = torch.tensor([4.0, -2.0])
    assert Half().residual(v, 1.0).tolist() == [2.0, -1.0]


def test_joint_total_variation_of_equal_contrasts_is_that_of_one():
    v = torch.randn(3, 1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    both = v.expand(3, 1, 2, 4, 4, 4)
    found = tv.TV(joint=True).prox(both, 1.0)
    # Vectors are longer by the root of 2, and shortened as much together.
    torch.testing.assert_close(found[:, :, :1], tv.TV().prox(v, 0.5**0.25))
    assert float(tv.TV(joint=True).cost(both)) == pytest.approx(2**0.5 * float(tv.TV().cost(v)), rel=1e-5)


def test_an_edge_in_one_contrast_makes_room_for_the_others():
    weak, strong = torch.zeros(3, 1, 2, 1, 1, 1), torch.zeros(3, 1, 2, 1, 1, 1)
    weak[0, 0, 0], strong[0, 0, 0], strong[0, 0, 1] = 0.9, 0.9, 5.0
    assert float(tv.TV(joint=True).prox(weak, 1.0)[0, 0, 0]) == 0
    assert float(tv.TV(joint=True).prox(strong, 1.0)[0, 0, 0]) > 0.7
    assert float(tv.TV().prox(strong, 1.0)[0, 0, 0]) == 0
