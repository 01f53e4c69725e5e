"""Every method tells how much of it is done."""

import numpy as np
import pytest
import torch

import invsr
from invsr import methods
from invsr.models import networks, streaming
from invsr.models.networks import DnCNN
from invsr.numerics.iteration import Steps
from invsr.priors.denoiser import Denoiser
from invsr.priors.tiling import tiles
from invsr.testing.phantoms import centred_grid, shapes

METHODS = {
    "cubic": methods.Cubic(),
    "tikhonov": methods.Tikhonov(),
    "tv": methods.TV(max_iter=40),
    "pnp": methods.PnP(denoiser="mri-denoiser-fast"),
    "descent": methods.PnP(denoiser="mri-denoiser-gs", max_iter=3),
    "unrolled": methods.Unrolled(),
    "deq": methods.Equilibrium(),
    "posterior": methods.Posterior(denoiser="mri-denoiser-fast", n_samples=2),
}


@pytest.fixture(scope="module")
def scans():
    grid = centred_grid((20, 18, 16), 1.0)
    truth = invsr.Volume(shapes(grid, n_samples=16, size=20.0), grid)
    return [invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.01) for axis in (2, 0)]


def told(scans, **options):
    """The shares and the figures that a reconstruction tells of, once they are known to be in order."""
    news = []
    invsr.reconstruct(scans, progress=lambda *one: news.append(one), **options)
    shares = [done for done, _ in news]
    assert shares[0] == 0 and shares[-1] == 1
    assert (np.diff(shares) >= 0).all()
    return shares, [figures for _, figures in news if figures]


def test_every_method_is_here():
    assert {type(one) for one in METHODS.values()} == set(methods.METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_shares_grow_from_0_to_1(scans, name):
    shares, figures = told(scans[0], method=METHODS[name])
    if name != "cubic":
        assert len(figures) >= 3 and len(set(shares)) >= 4
        # No step is most of the whole, the last one included: nothing stands still and then jumps to the end.
        assert max(np.diff(shares)) < 0.5


def test_motion_and_the_repetitions_of_the_bootstrap_are_parts(scans):
    shares, _ = told(scans, method="tikhonov", motion="stack", uncertainty="bootstrap", n_samples=2)
    whole = np.array(shares)
    for low, high in ((0.0, 0.3), (0.3, 0.53), (0.54, 0.76), (0.77, 0.99)):
        assert ((whole > low) & (whole < high)).any()


def told_by_prox(prior, v):
    news = []
    with Steps(lambda done, _: news.append(done)).step():
        prior.prox(v, 0.1)
    assert news == sorted(news) and news[-1] == 1
    return set(news)


def test_a_network_tells_of_its_planes_and_of_each_draw(monkeypatch):
    monkeypatch.setattr(networks, "LEAST_VOXELS", 1)
    monkeypatch.setattr(streaming, "VOXELS", 4 * 32**2)
    prior = invsr.priors.pretrained("mri-denoiser-fast")
    v = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        planes = told_by_prox(prior, v)
        assert len(planes) > 3 and max(np.diff([0, *sorted(planes)])) < 0.7
        prior.symmetries = 2
        assert len(told_by_prox(prior, v)) > 1.8 * len(planes)


def test_a_network_tells_of_its_tiles_and_of_each_axis():
    v = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    tiled = Denoiser(DnCNN(dim=3, channels=2, depth=3), symmetries=False, crop=False, tile=6000)
    n_tiles = len(list(tiles(v.shape[2:], 6000, tiled.reach, tiled.multiple)))
    assert n_tiles > 2 and told_by_prox(tiled, v) == {n / n_tiles for n in range(1, n_tiles + 1)}
    slices = Denoiser(DnCNN(dim=2, channels=2, depth=3), planes="all", symmetries=False, crop=False, tile=12 * 24**2)
    assert sorted(told_by_prox(slices, v)) == pytest.approx([n / 6 for n in range(1, 7)])
