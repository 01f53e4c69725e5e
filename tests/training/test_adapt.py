"""Denoisers adapted to a scan's own in-plane detail."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.models.networks import UNet
from invsr.priors.denoiser import Denoiser
from invsr.training.adapt import adapt
from invsr.training.degradation import Degradation


def network():
    torch.manual_seed(0)
    return UNet(dim=3, channels=(8, 16))


def stripes(n=24):
    """Fine structure along i and j, none along k: what a scan of thick slices across k shows."""
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    plane = 0.5 + 0.25 * torch.sin(0.9 * i) + 0.25 * torch.sin(0.9 * j)
    return plane[None, None, :, :, None].expand(1, 1, n, n, n).contiguous()


def test_learns_what_slices_hide(monkeypatch):
    """Thick slices almost erase the stripes; an adapted prior restores them, an unadapted one cannot."""
    # An untrained small network learns in large steps.
    monkeypatch.setattr("invsr.training.adapt.ADAPTATION_RATE", 5e-3)
    monkeypatch.setattr("invsr.training.adapt.ADAPTATION_PATCH", 16)
    prior, truth = Denoiser(network(), symmetries=False, bfloat16=False), stripes()
    figures = []
    adapted = adapt(
        prior, truth, axis=2, thickness=3.0, sigma=0.005, steps=30, progress=lambda *report: figures.append(report)
    )
    assert [done for done, _ in figures] == [(n + 1) / 30 for n in range(30)]
    degradation = Degradation(measured=1.0, thickness=(3.0, 3.0), gap=0.0, slice_noise=(0.005, 0.005), axes=(0,))
    noisy, level = degradation(truth[0], torch.Generator().manual_seed(5))

    def error(denoiser):
        with torch.no_grad():
            return float((denoiser.prox(noisy[None], level) - truth).square().mean())

    assert error(adapted) < 0.7 * error(prior)


def test_the_prior_itself_stays_and_seeds_repeat():
    prior, scan = Denoiser(network(), bfloat16=False, seed=3), stripes(20)
    before = {name: value.clone() for name, value in prior.network.state_dict().items()}
    with torch.no_grad():
        one, same, other = (adapt(prior, scan, axis=1, thickness=2.0, steps=2, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(value, before[name]) for name, value in prior.network.state_dict().items())
    assert not any(value.requires_grad for value in one.network.parameters())
    v = torch.rand(1, 1, 8, 8, 8)
    assert one.network is not prior.network and one.symmetries
    assert torch.equal(one.network(v, 0.1), same.network(v, 0.1))
    assert not torch.equal(one.network(v, 0.1), other.network(v, 0.1))


def test_scans_smaller_than_a_patch():
    adapted = adapt(Denoiser(network(), bfloat16=False), stripes(20)[..., :5], axis=2, thickness=4.0, gap=1.0, steps=1)
    assert all(bool(value.isfinite().all()) for value in adapted.network.parameters())


def test_scans_without_noise():
    adapted = adapt(Denoiser(network(), bfloat16=False), stripes(20), axis=2, thickness=4.0, sigma=0.0, steps=6)
    assert all(bool(value.isfinite().all()) for value in adapted.network.parameters())


@pytest.mark.parametrize("odd", [{"axis": -1}, {"axis": 3}, {"thickness": 0.0}, {"sigma": -0.01}], ids=str)
def test_numbers_that_make_no_sense(odd):
    """Axis -1 is none of the three: slices were taken for as sharp across as within."""
    with pytest.raises(InvsrError, match="an axis from 0 to 2, a thickness above zero"):
        adapt(Denoiser(network()), stripes(20), **{"axis": 2, "thickness": 4.0} | odd)


def test_bad_input():
    with pytest.raises(InvsrError, match=r"only the denoisers of this package"):
        adapt(Denoiser(lambda x, sigma: x, dim=3), stripes(20), axis=2, thickness=4.0)
    with pytest.raises(InvsrError, match=r"use one of volumes"):
        adapt(Denoiser(UNet(dim=2, channels=(4, 8))), stripes(20), axis=2, thickness=4.0)
    with pytest.raises(InvsrError, match=r"no voxel bright enough"):
        adapt(Denoiser(network()), torch.zeros(1, 1, 20, 20, 20), axis=2, thickness=4.0)
