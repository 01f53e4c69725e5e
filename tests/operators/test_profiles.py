"""Slice profiles and in-plane point spreads against what they are by definition."""

import numpy as np
import pytest
import torch
from small_grids import noise

from invsr.errors import InvsrError
from invsr.numerics.axes import GAUSSIAN_FWHM
from invsr.numerics.interpolation import keys_kernel
from invsr.operators.profiles import (
    PROFILES,
    band_limited_matrix,
    profile_samples,
    read_profile,
    sampled_matrix,
    spline_matrix,
)


def positions(*values):
    return torch.tensor(values, dtype=torch.float64)


def rows(kind, size, spacing, at, width):
    offsets, weights = profile_samples(kind)
    return sampled_matrix(size, spacing, at, offsets * width, weights)


def line(size, spacing, f):
    return f(torch.arange(size, dtype=torch.float64) * spacing)


def full_width(x, y):
    """Between the outermost crossings of half the maximum."""
    half = y.max() / 2
    above = np.flatnonzero(y >= half)
    left, right = above[0], above[-1]
    a = np.interp(half, [y[left - 1], y[left]], [x[left - 1], x[left]])
    b = np.interp(half, [y[right + 1], y[right]], [x[right + 1], x[right]])
    return b - a


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("width", [2.0, 5.0])
def test_width_as_sampled(kind, width):
    size, spacing = 121, 0.2
    centre = 60 * spacing
    row = rows(kind, size, spacing, positions(centre), width)[0].numpy()
    found = full_width(np.arange(size) * spacing, row)
    assert found == pytest.approx(width, abs=0.03)
    assert row.sum() == pytest.approx(1)
    assert row @ (np.arange(size) * spacing) == pytest.approx(centre)  # a shifted profile would shift the anatomy


@pytest.mark.parametrize("kind", PROFILES)
def test_profiles_are_symmetric_densities(kind):
    offsets, weights = profile_samples(kind)
    assert float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(offsets.flip(0), -offsets)
    torch.testing.assert_close(weights.flip(0), weights)


def test_shape_of_the_selective_profiles():
    for kind in ("sinc", "slr"):
        offsets, weights = (t.numpy() for t in profile_samples(kind))
        height = weights / weights[np.abs(offsets) < 0.2].mean()
        assert np.abs(height[np.abs(offsets) < 0.2] - 1).max() < 0.05  # a plateau
        assert np.abs(height[np.abs(offsets) > 0.9]).max() < 0.05  # and little beyond


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("width", [0.4, 3.3, 6.0])
def test_constants_and_ramps(kind, width):
    size, spacing = 24, 0.8
    at = positions(*np.arange(-0.3, 18.5, 1.37))
    matrix = rows(kind, size, spacing, at, width)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(at), dtype=torch.float64))
    offsets, _ = profile_samples(kind)
    reach = float(offsets.max()) * width
    whole = (at - reach >= -0.5 * spacing) & (at + reach <= (size - 0.5) * spacing)
    ramp = line(size, spacing, lambda x: 3 * x - 5)
    torch.testing.assert_close((matrix @ ramp)[whole], 3 * at[whole] - 5)


def test_rows_outside_are_zero():
    matrix = rows("boxcar", 10, 1.0, positions(-3.0, -0.6, -0.4, 9.4, 9.6, 40.0), 2.0)
    assert (matrix.abs().sum(1) > 0).tolist() == [False, False, True, True, False, False]


def test_single_voxel():
    torch.testing.assert_close(rows("gaussian", 1, 4.0, positions(0.3), 3.0), torch.ones(1, 1, dtype=torch.float64))


# Keys ------------------------------------------------------------------------------------------------


def test_interpolation_is_exact_on_parabolas_inside():
    size, spacing = 12, 1.3
    at = positions(*np.linspace(spacing, (size - 2) * spacing, 37))
    values = sampled_matrix(size, spacing, at) @ line(size, spacing, lambda x: 2 - x + 0.7 * x**2)
    torch.testing.assert_close(values, 2 - at + 0.7 * at**2)


def test_interpolation_at_voxels_is_the_identity():
    torch.testing.assert_close(
        sampled_matrix(7, 1.3, torch.arange(7).double() * 1.3), torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_kernel_of_keys():
    t = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(keys_kernel(t), positions(1, 0.5625, 0, -0.0625, 0, 0))
    torch.testing.assert_close(keys_kernel(-t), keys_kernel(t))


# Gaussian -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5])
def test_gaussian_rows(width, shift):
    size = 61
    centre, sigma = 30 + shift, width / GAUSSIAN_FWHM
    row = rows("gaussian", size, 1.0, positions(centre), width)[0]

    def density(x):
        return torch.exp(-0.5 * ((x - centre) / sigma) ** 2) / (sigma * (2 * np.pi) ** 0.5)

    # By definition, the mean of Keys' kernel under the density.
    fine = torch.linspace(0, size - 1, 60 * 500 + 1, dtype=torch.float64)
    voxels = torch.arange(size, dtype=torch.float64)
    expected = (keys_kernel(fine[:, None] - voxels) * density(fine)[:, None]).sum(0) / 500
    assert float((row - expected).abs().max()) < 2e-4  # the profile is cut at four standard deviations
    # The kernel has no second moment: what it adds to a smooth profile falls with the fourth power of the width.
    if width >= 3:
        assert float((row - density(voxels)).abs().max()) < (4e-3 if width < 4 else 1e-3)


def test_gradient_in_the_width():
    # The mean of x^2 under a Gaussian is p^2 + sigma^2, and Keys' interpolation is exact on x^2.
    offsets, weights = profile_samples("gaussian")
    width = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    matrix = sampled_matrix(41, 1.0, positions(20.2), offsets * width, weights)
    value = (matrix @ line(41, 1.0, lambda x: x**2))[0]
    (slope,) = torch.autograd.grad(value, width)
    assert float(value.detach()) == pytest.approx(20.2**2 + (4 / GAUSSIAN_FWHM) ** 2, rel=1e-4)
    assert float(slope) == pytest.approx(2 * 4 / GAUSSIAN_FWHM**2, rel=2e-3)  # cut at four standard deviations


@pytest.mark.parametrize("kind", PROFILES)
def test_gradient_in_the_width_by_differences(kind):
    offsets, weights = profile_samples(kind)
    x = noise(30)

    def value(width):
        return sampled_matrix(30, 1.0, positions(9.7, 14.2), offsets * width, weights) @ x

    width = torch.tensor(3.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, width)


# Band limit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("n", [5, 7, 8, 12, 13, 15])
def test_band_limit_is_the_cropped_transform(size, n):
    spacing = 1.2
    step = size * spacing / n
    matrix = band_limited_matrix(size, spacing, torch.arange(n).double() * step, step).numpy()
    x = noise(size).numpy()
    low = np.arange(n) - n // 2  # an even matrix size holds its Nyquist frequency with negative sign
    cropped = np.fft.ifft(np.fft.fft(x)[low][np.argsort(low % n)]) * n / size
    np.testing.assert_allclose(matrix @ x, cropped.real, atol=1e-12)


@pytest.mark.parametrize("size", [8, 9])
def test_band_limit_between_voxels_is_the_fourier_series(size):
    spacing, at = 1.2, positions(0.0, 0.31, 4.4, 8.9)
    matrix = band_limited_matrix(size, spacing, at, 0.3)  # finer: nothing is cut
    for f in range((size + 1) // 2):

        def wave(x, f=f):
            return torch.cos(2 * np.pi * f * x / (size * spacing) + 0.4)

        torch.testing.assert_close(matrix @ line(size, spacing, wave), wave(at))


def test_band_limit_cuts_at_the_samples_nyquist_frequency():
    size, step = 20, 2.0
    matrix = band_limited_matrix(size, 1.0, torch.arange(10).double() * step, step)
    x = torch.arange(size, dtype=torch.float64)
    assert float((matrix @ torch.cos(2 * np.pi * 6 * x / size)).abs().max()) < 1e-12
    kept = torch.cos(2 * np.pi * 4 * x / size)
    torch.testing.assert_close(matrix @ kept, kept[::2])


def test_band_limit_outside_the_field_of_view_is_zero():
    matrix = band_limited_matrix(8, 1.0, positions(-2.0, -0.5, 3.0, 7.5, 9.0), 2.0)
    assert (matrix.abs().sum(1) > 0).tolist() == [False, True, True, True, False]


# Files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [" ", ",", "\t"])
def test_profile_from_a_file(tmp_path, delimiter):
    path = tmp_path / "profile.txt"
    x = np.linspace(-4, 4, 33)
    shuffled = np.random.default_rng(0).permutation(33)
    table = np.stack([x, np.exp(-0.5 * x**2)], 1)[shuffled]
    np.savetxt(path, table, delimiter=delimiter, header="mm amplitude")
    offsets, weights = read_profile(path)
    row = sampled_matrix(161, 0.1, positions(8.0), offsets, weights)[0].numpy()
    assert full_width(np.arange(161) * 0.1, row) == pytest.approx(GAUSSIAN_FWHM, rel=0.01)
    assert row.sum() == pytest.approx(1)


def test_profile_file_sets_width_and_position(tmp_path):
    path = tmp_path / "profile.txt"
    np.savetxt(path, [[1.0, 2.0], [3.0, 2.0]])  # a boxcar of 2 mm, 2 mm ahead of the slice
    offsets, weights = read_profile(str(path))
    assert float((offsets * weights).sum()) == pytest.approx(2)
    assert (float(offsets.min()), float(offsets.max())) == (1, 3)
    np.savetxt(path, [[1.0, 1e308], [3.0, 1e308]])
    torch.testing.assert_close(read_profile(path), (offsets, weights))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a b\nc d", "not two columns of numbers"),
        ("1 2 3\n4 5 6", "two columns"),
        ("1 2", "two columns"),
        ("1 2\n3 nan", "two columns"),
        ("", "two columns"),
        ("-1 -1\n1 -1", "area is -2"),
        ("-1 0\n1 0", "area is 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*input contained no data")
def test_profile_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "profile.txt"
    path.write_text(content)
    with pytest.raises(InvsrError, match=message) as error:
        read_profile(path)
    assert "profile.txt" in str(error.value)


def test_profile_that_is_neither_a_name_nor_a_file():
    with pytest.raises(InvsrError, match="neither one of gaussian, boxcar, sinc, slr nor a file"):
        read_profile("guassian")
    with pytest.raises(InvsrError, match="unknown slice profile 'guassian'"):
        profile_samples("guassian")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 40])
def test_a_spline_keeps_constants_ramps_and_voxels(size):
    positions = 0.5 * (torch.arange(2 * size + 1, dtype=torch.float64) - 1)
    matrix = spline_matrix(size, positions)
    torch.testing.assert_close(matrix.sum(1), torch.ones_like(positions))
    torch.testing.assert_close(matrix[1::2], torch.eye(size, dtype=torch.float64))
    if size > 1:
        torch.testing.assert_close(matrix @ torch.arange(size, dtype=torch.float64), positions, atol=1e-10, rtol=0)
    # Beyond the outermost voxels noise is not amplified more than by the line through two of them.
    assert float(matrix.abs().sum(1).max()) < 2.001


def test_a_spline_of_a_long_line_has_no_denormal_numbers():
    """Products with them take thirty times as long on some processors."""
    size = 200
    positions = torch.arange(size - 1, dtype=torch.float64) + 0.5
    matrix = spline_matrix(size, positions)
    single = matrix.float().abs()
    assert not ((single > 0) & (single < torch.finfo(torch.float32).tiny)).any()
    torch.testing.assert_close(matrix @ torch.arange(size, dtype=torch.float64), positions, atol=1e-8, rtol=0)


def test_a_spline_keeps_detail_that_keys_kernel_takes_away():
    size = 60
    voxels, midway = torch.arange(size, dtype=torch.float64), torch.arange(10, 50, dtype=torch.float64) + 0.5
    wave = 2 * torch.pi * 0.35  # 70 % of the Nyquist frequency
    spline, keys = spline_matrix(size, midway), sampled_matrix(size, 1.0, midway)
    error = [float((matrix @ (wave * voxels).cos() - (wave * midway).cos()).norm()) for matrix in (spline, keys)]
    assert error[0] < 0.2 * error[1]
