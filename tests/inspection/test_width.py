"""The width of slices from the data: random fields whose spectrum is isotropic, averaged over known profiles."""

import pytest
import torch

import invsr
from invsr.inspection import slice_width
from invsr.operators.scan_model import slice_profile_of


def field(shape, ratio=1.0, slope=3.5, seed=0):
    """A random field about 10 whose power falls with frequency; `ratio` times as coarse along the last axis."""
    frequency = [torch.fft.fftfreq(n) for n in shape]
    a, b, c = (one.reshape([-1 if n == m else 1 for m in range(3)]) for n, one in enumerate(frequency))
    radius = (a.square() + b.square() + (ratio * c).square()).sqrt()
    radius[0, 0, 0] = torch.inf
    white = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = torch.fft.ifftn(torch.fft.fftn(white) * radius ** (-slope / 2)).real
    return 10 + found / found.std()


@pytest.fixture(scope="module")
def truth():
    return invsr.Volume.from_array(field((96, 96, 240)), spacing=1.0)


def seen(truth, thickness, gap=0.0, profile="gaussian", noise=0.002, axis=2, as_profile=None):
    scan = invsr.simulate(
        truth, slice_thickness=thickness, gap=gap, slice_profile=profile, noise=noise, axis=axis, seed=1
    )
    slices = scan.data[0, 0].movedim(axis, -1)
    return slice_width(slices, (1.0, 1.0), thickness + gap, slice_profile_of(as_profile or profile, 1.0))


@pytest.mark.parametrize("profile", ["gaussian", "boxcar", "slr"])
@pytest.mark.parametrize("thickness, gap", [(3.0, 0.0), (4.0, 1.0), (6.0, 0.0), (8.0, -2.0)])
def test_the_width_of_the_profile(truth, thickness, gap, profile):
    found = seen(truth, thickness, gap, profile)
    assert found.width == pytest.approx(thickness, rel=0.1)
    assert found.low <= thickness <= found.high


def test_units_and_intensities_do_not_count(truth):
    slices = invsr.simulate(truth, slice_thickness=4, noise=0.002, axis=2).data[0, 0]
    profile = slice_profile_of("gaussian", 1.0)
    one = slice_width(slices, (1.0, 1.0), 4.0, profile)
    other = slice_width(1e-3 * slices, (0.5, 0.5), 2.0, profile)
    # Windows are at most 64 pixels wide: as many mm here, half as many there.
    assert other.width == pytest.approx(one.width / 2, rel=0.1)


def test_samples_are_thin(truth):
    slices = truth.data[0, 0][..., ::5]
    assert slice_width(slices, (1.0, 1.0), 5.0, slice_profile_of("gaussian", 1.0)).width < 1.5


def test_a_boxcar_looks_like_a_narrower_gaussian(truth):
    assert seen(truth, 6.0, profile="boxcar", as_profile="gaussian").width == pytest.approx(6 / 1.47, rel=0.12)


def test_anatomy_that_is_coarser_across_the_slices_lies_in_the_range():
    coarse = invsr.Volume.from_array(field((96, 96, 240), ratio=1.15), spacing=1.0)
    found = seen(coarse, 5.0)
    assert found.width > 5 and found.low <= 5.0 <= found.high


def test_nothing_is_said_without_tissue_of_slices_that_differ_by_turns_or_of_a_single_one(truth):
    profile = slice_profile_of("gaussian", 1.0)
    slices = invsr.simulate(truth, slice_thickness=4, noise=0.002, axis=2).data[0, 0]
    assert slice_width(torch.zeros_like(slices), (1.0, 1.0), 4.0, profile) is None
    assert slice_width(slices[:12], (1.0, 1.0), 4.0, profile) is None
    assert slice_width(slices[..., :1], (1.0, 1.0), 4.0, profile) is None
    assert slice_width(torch.ones_like(slices), (1.0, 1.0), 4.0, profile) is None
    sign = torch.where(torch.arange(slices.shape[2]) % 2 == 1, 1.0, -1.0)
    pattern = torch.linspace(0, 40, 96).sin()[:, None, None] * sign
    assert slice_width(slices + 2 * pattern, (1.0, 1.0), 4.0, profile) is None
