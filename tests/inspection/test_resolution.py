"""Zero-filling in the power spectrum: found where it is, to 5 % of the matrix, and nowhere else."""

import numpy as np
import pytest
import torch
from zero_filled import partial_fourier, zero_filled

from invsr.errors import InvsrError
from invsr.examples import example
from invsr.inspection import measured_matrix, measured_share, partial_fourier_share, power_spectrum


@pytest.fixture(scope="module")
def slices():
    """A head in slices of 4 mm, bright tissue at 1000."""
    data = example().numpy()
    data = data * (1000 / np.percentile(data[data > 0], 99.9))
    return data.reshape(*data.shape[:2], -1, 4).mean(3)


@pytest.mark.parametrize("ellipse", [False, True])
@pytest.mark.parametrize("noise", [2, 10, 30])
@pytest.mark.parametrize("share", [(0.5, 0.6), (0.7, 0.8), (0.75, 0.9)])
def test_the_share_that_was_measured(slices, share, noise, ellipse):
    data = zero_filled(slices, share, noise, ellipse)
    found = [measured_share(data, axis) for axis in (0, 1)]
    assert found == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("noise", [0, 2, 10, 30])
def test_no_false_finding(slices, noise):
    everything = zero_filled(slices, (1, 1), noise)
    assert measured_matrix(everything, (0, 1)) == everything.shape
    if noise:  # without any, the resampling of the example head itself shows
        one = zero_filled(slices, (0.6, 1), noise)
        assert measured_share(one, 0) < 0.63 and measured_share(one, 1) == 1


def test_intensities_have_no_unit(slices):
    data = zero_filled(slices, (0.6, 0.7), 10)
    assert measured_share(data * 1e-6, 0) == pytest.approx(measured_share(data, 0))


def test_noise_and_what_is_too_small_show_nothing():
    noise = torch.randn(64, 64, 8, generator=torch.Generator().manual_seed(0)) + 100
    assert measured_matrix(noise, (0, 1)) == (64, 64, 8)
    assert power_spectrum(noise[:20], 0) is None
    assert measured_matrix(torch.zeros(64, 64, 8), (0, 1)) == (64, 64, 8)
    with pytest.raises(InvsrError, match="complex data"):
        measured_matrix(noise.to(torch.complex64), (0,))


def test_the_spectrum_of_white_noise_is_flat():
    noise = torch.randn(128, 64, 32, generator=torch.Generator().manual_seed(0)) + 100
    found = power_spectrum(noise, 0)
    power = found.power[2:-1]
    assert found.n_windows == 64 * 32 and len(found.power) == 65
    assert float(power.max() / power.min()) < 1.3


@pytest.mark.parametrize("noise", [5, 20])
@pytest.mark.parametrize("share", [0.625, 0.75, 0.875, 1])
def test_partial_fourier(slices, share, noise):
    data = partial_fourier(slices, 1, share, noise)
    assert partial_fourier_share(data, 1) == pytest.approx(share, abs=0.015)
    assert partial_fourier_share(data, 0) == 1


def test_partial_fourier_needs_tissue():
    assert partial_fourier_share(torch.zeros(64, 64, 8), 0) == 1
    assert partial_fourier_share(torch.ones(20, 20, 4), 0) == 1
