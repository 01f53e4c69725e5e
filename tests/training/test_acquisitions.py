"""Random acquisitions: within their ranges, inside the patch, true to their numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr.training.acquisitions import PROFILES, Acquisitions


def drawn(n=200, shape=(48, 16, 16), **options):
    generator = torch.Generator().manual_seed(0)
    return [Acquisitions(**options).draw(shape, generator) for _ in range(n)]


def test_ranges():
    found = drawn()
    thickness = [one.thickness for one in found]
    gaps = np.array([one.distance / one.thickness - 1 for one in found])
    assert 2 <= min(thickness) < 2.2 and 7.5 < max(thickness) <= 8
    assert np.median(thickness) == pytest.approx(4, abs=0.5)  # log-uniform
    assert 0.35 < (gaps < 1e-9).mean() < 0.65 and 0.27 < gaps.max() <= 0.3
    assert {one.profile for one in found} == set(PROFILES) and {one.axis for one in found} == {0}
    noises = [one.sigma for one in found]
    assert 0.002 <= min(noises) < 0.0025 and 0.035 < max(noises) <= 0.04
    assert np.std([np.log(one.assumed_sigma / one.sigma) for one in found]) == pytest.approx(0.1, abs=0.02)


def test_slices_lie_across_the_longest_side_and_there_are_three():
    for shape, axis in (((16, 48, 16), 1), ((8, 8, 16), 2)):
        for one in drawn(50, shape):
            assert one.axis == axis and one.operator().range.shape[axis] >= 3


@pytest.mark.parametrize("profile", ["gaussian", "boxcar"])
def test_operator_has_the_geometry_of_the_acquisition(profile):
    one = replace(drawn(1)[0], thickness=4.0, distance=5.0, profile=profile, offset=0.25)
    operator = one.operator()
    assert operator.range.shape == (9, 16, 16) and operator.domain.shape == (48, 16, 16)
    np.testing.assert_allclose(operator.range.spacing, [5, 1, 1])
    # 48 - 9 x 5 voxels are left; a quarter of them lie before the first slice, whose face is half a voxel before 0.
    assert operator.range.origin[0] == pytest.approx(-0.5 + 0.25 * 3 + 2.5)
    ramp = torch.arange(48.0).reshape(1, 1, 48, 1, 1).expand(1, 1, 48, 16, 16)
    inside = operator(ramp)[0, 0, 1:-1, 0, 0]
    np.testing.assert_allclose(inside, operator.range.origin[0] + 5 * np.arange(1, 8), atol=1e-4)


def test_same_seed_same_acquisition():
    assert drawn(5) == drawn(5)
