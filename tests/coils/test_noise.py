"""Noise found in k-space that has signal everywhere, and doubts where there is no air."""

from functools import cache

import pytest
import torch

from invsr.coils import estimate_noise, whitened
from invsr.operators.kspace_weights import random_mask
from invsr.testing.kspace import simulate_kspace
from invsr.testing.metrics import peak
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume

SHAPE = (64, 60, 56)
NOISE = 0.01


@cache
def head(shape=SHAPE):
    grid = centred_grid(shape, [80 / n for n in shape])
    return Volume(shapes(grid, n_samples=64), grid)


def relative(raw, volume):
    found = estimate_noise(raw)
    return found.sigma / (NOISE * peak(volume.data[0, 0])), found


@pytest.mark.parametrize(
    ("matrix", "axes", "mask"),
    [
        (None, (0, 1, 2), None),
        ((32, 30, 28), (0, 1, 2), None),
        ((32, 30, 56), (0, 1), None),
        (None, (1, 2), None),
        (None, (0, 1, 2), 4),
    ],
    ids=["full", "half", "slices", "readout transformed", "4-fold"],
)
@pytest.mark.parametrize("n_coils", [1, 6])
def test_sigma(matrix, axes, mask, n_coils):
    volume = head()
    if mask is not None:
        mask = random_mask(SHAPE, mask, 0.35, torch.Generator().manual_seed(0), (1, 2))
    raw, _, _ = simulate_kspace(volume, n_coils=n_coils, noise=NOISE, matrix=matrix, axes=axes, mask=mask)
    ratio, found = relative(raw, volume)
    # Half the matrix has more signal than noise at its edge. There is little air in an image of a third of the lines.
    assert ratio == pytest.approx(1, abs=0.03 if mask is None else 0.08)
    assert found.trusted or mask is not None


def test_averages():
    """The middle was measured nine times, the rest twice: the noise is that of one average all the same."""
    counts = torch.full(SHAPE, 2.0)
    counts[:, 20:40, 18:38] = 9
    raw, _, _ = simulate_kspace(head(), n_coils=4, noise=NOISE, mask=counts)
    assert relative(raw, head())[0] == pytest.approx(1, abs=0.03)


def test_noise_that_coils_share():
    raw, _, _ = simulate_kspace(head(), n_coils=3, noise=NOISE)
    matrix = torch.tensor([[1, 0.5j, 0], [0, 30, 0], [0.2, 0, 0.1]], dtype=torch.complex64)
    mixed = raw.with_samples(torch.einsum("vc,bcijk->bvijk", matrix, raw.samples))
    found = estimate_noise(mixed)
    sigma = NOISE * peak(head().data[0, 0])
    # In units in which each coil's noise is 1: it differs 300-fold between them.
    true = (matrix @ matrix.mH).to(found.covariance.dtype) * sigma**2
    scale = true.diagonal().real.rsqrt().diag_embed().to(true.dtype)
    torch.testing.assert_close(scale @ found.covariance @ scale, scale @ true @ scale, atol=0.06, rtol=0)


def test_slices_that_are_missing_are_not_air():
    counts = torch.ones(SHAPE)
    counts[..., 10:30] = 0
    raw, _, _ = simulate_kspace(head(), n_coils=2, noise=NOISE, mask=counts, axes=(0, 1))
    assert relative(raw, head())[0] == pytest.approx(1, abs=0.03)


def test_slices_of_different_averages():
    """The slices with less noise have some signal in their air: in units of one average it is no longer dark."""
    counts = torch.ones(SHAPE)
    counts[..., 28:] = 9
    data = head().data.clone()
    data[..., 28:] += 0.4 * NOISE * peak(data[0, 0])
    volume = head().with_data(data)
    raw, _, _ = simulate_kspace(volume, n_coils=2, noise=NOISE, mask=counts, axes=(0, 1))
    ratio, found = relative(raw, volume)
    assert ratio == pytest.approx(1, abs=0.03) and found.trusted


def test_a_loud_coil_without_signal_does_not_tell_where_air_is():
    raw, _, _ = simulate_kspace(head(), n_coils=3, noise=NOISE)
    drawn = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    samples = raw.samples.clone()
    samples[0, 2] = torch.complex(drawn[0], drawn[1])
    found = estimate_noise(raw.with_samples(samples)).covariance.diagonal().real.sqrt()
    sigma = NOISE * peak(head().data[0, 0])
    torch.testing.assert_close(found, torch.tensor([sigma, sigma, 1.0]).double(), rtol=0.03, atol=0)


def test_no_air():
    inside = Volume.from_array(head().data[0, 0, 18:46, 16:44, 16:40] + 0.5, 1.0)
    raw, _, _ = simulate_kspace(inside, n_coils=1, noise=0.001, phase=False)
    doubt = estimate_noise(raw).doubt
    assert "air" in doubt and not estimate_noise(raw).trusted


def test_no_full_middle():
    counts = torch.zeros(SHAPE)
    counts[:, ::2] = 1
    raw, _, _ = simulate_kspace(head(), n_coils=4, noise=0.05, mask=counts)
    found = estimate_noise(raw)
    assert "middle of k-space" in found.doubt
    assert found.sigma == pytest.approx(0.05 * peak(head().data[0, 0]), rel=0.1)


def test_the_estimate_whitens():
    raw, _, _ = simulate_kspace(head(), n_coils=2, noise=NOISE)
    again = estimate_noise(whitened(raw, estimate_noise(raw).covariance))
    torch.testing.assert_close(again.covariance, torch.eye(2).to(again.covariance.dtype), atol=0.02, rtol=0)
    assert again.sigma == pytest.approx(1, abs=0.01)
