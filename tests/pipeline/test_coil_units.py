"""Intensities from several coils: whatever their noise, and whatever the scale of their maps."""

import dataclasses
from functools import cache

import pytest
import torch
from torch.nn.functional import avg_pool3d

from invsr.errors import InvsrError
from invsr.operators import random_mask
from invsr.pipeline.raw_matrix import resampled_maps
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.testing.kspace import simulate_kspace
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume

SHAPE, SIGMA = (16, 32, 32), 0.01


@cache
def measured(correlation=0.0):
    """k-space of four coils, their maps, and the truth; neighbours' noise is correlated, which a noise scan tells."""
    grid = centred_grid(SHAPE, 1.5)
    truth = Volume(shapes(grid, n_samples=16, size=32), grid)
    mask = random_mask((1, *SHAPE[1:]), 2.0, 0.4, torch.Generator().manual_seed(0), axes=(1, 2))
    raw, maps, _ = simulate_kspace(truth, n_coils=4, mask=mask, noise=0.0)
    distance = (torch.arange(4)[:, None] - torch.arange(4)).abs()
    factor = torch.linalg.cholesky(correlation ** distance.double()).to(torch.complex64)
    generator = torch.Generator().manual_seed(1)

    def noise(count):
        parts = torch.randn(2, 4, count, generator=generator)
        return SIGMA * factor @ torch.complex(parts[0], parts[1])

    samples = raw.samples + noise(truth.data.numel()).reshape(raw.samples.shape) * (raw.counts > 0)
    return dataclasses.replace(raw, samples=samples, noise=noise(5000)), maps, truth


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_noise_that_coils_share_leaves_intensities_alone(correlation):
    raw, maps, truth = measured(correlation)
    tissue = (truth.data > 0.2).float()
    for known in (None, maps):
        found = reconstruct_raw(raw, method="tikhonov", lam=1e-4, maps=known)
        near, there = (avg_pool3d(one * tissue, 7, 1, 3) for one in (found.x.abs(), truth.data))
        ratio = (near / there)[tissue > 0]
        assert float(ratio.median()) == pytest.approx(1.0, abs=0.02)
        assert float(ratio.quantile(0.95) - ratio.quantile(0.05)) < 0.1


@pytest.mark.parametrize("method", ["tikhonov", "tv", "unrolled"])
def test_the_scale_of_maps_is_that_of_the_result_and_of_nothing_else(method):
    raw, maps, _ = measured()
    scale = 2.0**-5  # a power of two: bfloat16, in which networks run on some processors, rounds others anew
    one, other = (reconstruct_raw(raw, method=method, maps=factor * maps) for factor in (1.0, scale))
    torch.testing.assert_close(scale * other.x, one.x, rtol=1e-3, atol=1e-4)
    assert other.sigma == pytest.approx(one.sigma, rel=1e-3) and other.chi2 == pytest.approx(one.chi2, rel=1e-3)
    assert one.sigma == pytest.approx(SIGMA, rel=0.05)


@pytest.mark.parametrize("spacing", [None, 1.0])
def test_nothing_is_invented_where_maps_are_zero(spacing):
    raw, maps, truth = measured()
    head = (truth.data > 0.05)[0, 0]
    found = reconstruct_raw(raw, method="tikhonov", maps=maps * head, spacing=spacing)
    assert any("coil maps are 0 in" in line for line in found.remarks())
    assert float((found.x == 0).float().mean()) == pytest.approx(1 - float(head.float().mean()), abs=0.03)
    if spacing is None:
        assert bool((found.x[0, 0][~head] == 0).all())


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_maps_without_any_value_are_refused(value):
    raw, maps, _ = measured()
    with pytest.raises(InvsrError, match="coil maps that are 0 everywhere, or not finite"):
        reconstruct_raw(raw, method="tikhonov", maps=torch.full_like(maps, value))


def test_maps_on_another_matrix_keep_their_norm():
    _, maps, _ = measured()
    shading = torch.linspace(0.5, 1.5, SHAPE[1]).reshape(-1, 1)
    there = resampled_maps(maps * shading, (24, 40, SHAPE[2]), (0, 1, 2))
    norm = there.abs().square().sum(0).sqrt()
    expected = torch.nn.functional.interpolate(shading.reshape(1, 1, -1), 40, mode="linear")[0, 0]
    torch.testing.assert_close(norm[:, 4:-4].mean((0, 2)), expected[4:-4], rtol=0.05, atol=0.0)
