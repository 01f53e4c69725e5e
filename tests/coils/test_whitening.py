"""Noise of known covariance becomes white; virtual coils keep it white, and the signal."""

import dataclasses

import pytest
import torch

from invsr.coils import compressed, noise_covariance, whitened
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.raw import RawData
from invsr.testing.kspace import simulate_kspace
from invsr.testing.metrics import peak
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def white(*shape, seed=0):
    """Standard deviation 1 in each part."""
    drawn = torch.randn(2, *shape, generator=seeded(seed))
    return torch.complex(drawn[0], drawn[1])


def mixing(coils, seed=1):
    return torch.eye(coils) * torch.arange(1.0, coils + 1) + 0.3 * white(coils, coils, seed=seed)


def correlated(coils=3, averages=1):
    """Noise alone, that coils share; with a noise scan and calibration lines of the same noise."""
    matrix = mixing(coils)
    counts = torch.full((24, 20, 6), float(averages))
    samples = (matrix @ white(coils, counts.numel())).reshape(1, coils, *counts.shape) / averages**0.5
    return RawData(
        samples,
        counts,
        Grid.from_spacing(counts.shape, 1.0),
        noise=matrix @ white(coils, 20000, seed=5),
        calibration=(matrix @ white(coils, 12 * 12 * 6, seed=6)).reshape(coils, 12, 12, 6),
    )


@pytest.fixture(scope="module")
def array():
    """Sixteen coils, whitened: noise of standard deviation 1 in each part."""
    grid = centred_grid((24, 20, 16), (3, 3.6, 4.5))
    volume = Volume(shapes(grid, n_samples=32), grid)
    raw, _, _ = simulate_kspace(volume, n_coils=16, noise=0.01)
    return raw.with_samples(raw.samples / (0.01 * peak(volume.data[0, 0])))


def test_covariance_is_that_of_one_part():
    matrix = mixing(3)
    found = noise_covariance(matrix @ white(3, 200000))
    torch.testing.assert_close(found, (matrix @ matrix.mH).to(found.dtype), atol=0.05, rtol=0.02)


def test_whitened_noise_is_independent_and_of_standard_deviation_1():
    white_data = whitened(correlated())
    for values in (white_data.samples[0], white_data.noise, white_data.calibration):
        found = noise_covariance(values.flatten(1))
        torch.testing.assert_close(found, torch.eye(3).to(found.dtype), atol=0.08, rtol=0)


def test_noise_of_averages_is_smaller():
    whole = whitened(correlated(averages=4)).samples[0]
    assert float(whole.real.std()) == pytest.approx(0.5, rel=0.03)
    assert float(whole.imag.std()) == pytest.approx(0.5, rel=0.03)


def test_covariance_may_be_given():
    raw = dataclasses.replace(correlated(), noise=None)
    matrix = mixing(3)
    found = noise_covariance(whitened(raw, matrix @ matrix.mH).samples[0].flatten(1))
    torch.testing.assert_close(found, torch.eye(3).to(found.dtype), atol=0.08, rtol=0)


def test_noise_that_cannot_be_used():
    raw = correlated()
    with pytest.raises(InvsrError, match="no noise scan"):
        whitened(dataclasses.replace(raw, noise=None))
    with pytest.raises(InvsrError, match=r"k-space: .*20 samples for 3 coils: at least 30"):
        whitened(dataclasses.replace(raw, noise=raw.noise[:, :20]))
    dead = raw.noise.clone()
    dead[1] = 0
    with pytest.raises(InvsrError, match=r"no inverse, coil 1 has no noise"):
        whitened(dataclasses.replace(raw, noise=dead))
    copies = raw.noise.clone()
    copies[2] = 2j * copies[0]
    with pytest.raises(InvsrError, match="some are combinations of others"):
        whitened(dataclasses.replace(raw, noise=copies))
    with pytest.raises(InvsrError, match=r"shape \(2, 2\) for 3 coils"):
        whitened(raw, torch.eye(2))
    with pytest.raises(InvsrError, match="NaN or infinite"):
        noise_covariance(torch.full((1, 20), complex("nan")))


# --- compression


def test_principal_components_keep_the_signal_and_the_noise_white(array):
    few = compressed(array)
    assert 1 < few.n_coils < 16
    kept, whole = (float(one.samples.abs().square().sum()) for one in (few, array))
    noise = 2 * array.counts.numel()
    assert 0.995 <= (kept - few.n_coils * noise) / (whole - 16 * noise) <= 1
    assert len(few.notes) == 1 and few.notes[0].startswith(f"{few.n_coils} virtual coils kept of 16, with 99.")
    # The same rows applied to white noise: it stays white, as they are orthonormal.
    noisy = dataclasses.replace(array, noise=white(16, 50000), calibration=white(16, 12, 12, 12))
    found = compressed(noisy, 5)
    assert found.calibration.shape == (5, 12, 12, 12)
    covariance = noise_covariance(found.noise)
    torch.testing.assert_close(covariance, torch.eye(5).to(covariance.dtype), atol=0.03, rtol=0)


def test_fewer_coils_are_those_of_most_energy(array):
    powers = compressed(array, 16).samples[0].abs().square().sum((1, 2, 3))
    assert bool((powers.diff() < 0).all())
    torch.testing.assert_close(powers.sum(), array.samples.abs().square().sum(), rtol=1e-4, atol=0)
    assert compressed(array, energy=0.8).n_coils < compressed(array).n_coils
    assert compressed(array, energy=1.0) is array


def test_averages_count_as_often(array):
    """Coil 0 alone is measured often: its direction is the strongest although its samples are not."""
    samples = torch.zeros(1, 2, 8, 8, 8, dtype=torch.complex64)
    samples[0, 0, :4], samples[0, 1, 4:] = 20, 25
    counts = torch.ones(8, 8, 8)
    counts[:4] = 4
    noise = white(1, 2, 8, 8, 8) / counts.sqrt()
    first = compressed(array.with_samples(samples + noise, counts=counts, grid=centred_grid((8, 8, 8))), 1)
    assert float(first.samples[0, 0, :4].abs().mean()) > 10 * float(first.samples[0, 0, 4:].abs().mean())


def test_noise_is_no_signal(array):
    """One direction across coils has signal, with a third of the energy of all noise."""
    direction = torch.tensor([1, 1j, -1, 0.5])[:, None] / 3.25**0.5
    samples = (direction * 1.6 * white(1, 8000, seed=2) + white(4, 8000)).reshape(1, 4, 20, 20, 20)
    noisy = array.with_samples(samples, counts=torch.ones(20, 20, 20), grid=centred_grid((20, 20, 20)))
    assert compressed(noisy, energy=0.9).n_coils == 1


def test_compression_that_makes_no_sense(array):
    for wrong in ({"n_coils": 0}, {"n_coils": 17}, {"energy": 0.0}, {"energy": 1.1}):
        with pytest.raises(InvsrError):
            compressed(array, **wrong)
