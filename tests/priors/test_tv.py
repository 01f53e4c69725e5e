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
