"""Random acquisitions: within their ranges, inside the patch, true to their numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr.grid import Grid
from invsr.training.acquisitions import LARGEST_TURN, PROFILES, Acquisitions


def drawn(n=200, shape=(48, 16, 16), **options):
    generator = torch.Generator().manual_seed(0)
    return [Acquisitions(**options).draw(shape, generator) for _ in range(n)]


def test_ranges():
    found = drawn()
    scans = [one.scans[0] for one in found]
    thickness = [one.thickness for one in scans]
    gaps = np.array([one.distance / one.thickness - 1 for one in scans])
    assert 2 <= min(thickness) < 2.2 and 7.5 < max(thickness) <= 8
    assert np.median(thickness) == pytest.approx(4, abs=0.5)  # log-uniform
    assert 0.35 < (gaps < 1e-9).mean() < 0.65 and 0.27 < gaps.max() <= 0.3
    assert {one.profile for one in scans} == set(PROFILES) and {one.axis for one in scans} == {0}
    assert {len(one.scans) for one in found} == {1}
    noises = [one.sigma for one in found]
    assert 0.002 <= min(noises) < 0.0025 and 0.035 < max(noises) <= 0.04
    assert np.std([np.log(one.assumed_sigma / one.sigma) for one in found]) == pytest.approx(0.1, abs=0.02)


def test_a_share_of_the_slices_is_thin():
    found = [one.scans[0] for one in drawn(400, thin=0.3)]
    shares = np.array([one.thickness / one.distance for one in found])
    assert (shares < 0.76).mean() == pytest.approx(0.2, abs=0.06) and 0.08 < shares.min() < 0.15


def test_three_slices_fit_at_every_thickness_and_gap():
    found = [one.scans[0] for one in drawn(400, thickness=(2.0, 20.0), gap=1.0)]
    assert max(3 * one.distance for one in found) <= 48 + 1e-9 and max(one.thickness for one in found) > 14


def test_slices_lie_across_the_longest_side_and_there_are_three():
    for shape, axis in (((16, 48, 16), 1), ((8, 8, 16), 2)):
        for one in drawn(50, shape):
            assert one.scans[0].axis == axis and one.operator().range.shape[axis] >= 3


@pytest.mark.parametrize("profile", ["gaussian", "boxcar"])
def test_operator_has_the_geometry_of_the_acquisition(profile):
    one = replace(drawn(1)[0].scans[0], thickness=4.0, distance=5.0, profile=profile, offset=0.25)
    operator = one.operator(Grid((48, 16, 16), np.eye(4)))
    assert operator.range.shape == (9, 16, 16) and operator.domain.shape == (48, 16, 16)
    np.testing.assert_allclose(operator.range.spacing, [5, 1, 1])
    # 48 - 9 x 5 voxels are left; a quarter of them lie before the first slice, whose face is half a voxel before 0.
    assert operator.range.origin[0] == pytest.approx(-0.5 + 0.25 * 3 + 2.5)
    ramp = torch.arange(48.0).reshape(1, 1, 48, 1, 1).expand(1, 1, 48, 16, 16)
    inside = operator(ramp)[0, 0, 1:-1, 0, 0]
    np.testing.assert_allclose(inside, operator.range.origin[0] + 5 * np.arange(1, 8), atol=1e-4)


def test_same_seed_same_acquisition():
    assert drawn(5) == drawn(5)


def test_several_scans():
    found = drawn(400, (48, 24, 24), stacks=0.5, oblique=0.4)
    several = [one for one in found if len(one.scans) > 1]
    assert len(several) == pytest.approx(200, abs=40) and {one.shape for one in several} == {(32, 32, 32)}
    assert {len(one.scans) for one in several} == {2, 3}
    turned = [one for one in several if any(any(scan.turn) for scan in one.scans)]
    assert len(turned) == pytest.approx(0.4 * len(several), abs=30)
    angles = [np.linalg.norm(scan.turn) for one in turned for scan in one.scans[1:]]
    assert 0.9 * LARGEST_TURN < max(angles) <= LARGEST_TURN
    assert not any(any(one.scans[0].turn) for one in several)  # the target lies along the first scan
    apart = [len({scan.axis for scan in one.scans}) == len(one.scans) for one in several]
    assert 0.6 < np.mean(apart) < 0.95
    alike = [one.scans[1].thickness == one.scans[0].thickness for one in several]
    assert np.mean(alike) == pytest.approx(0.5, abs=0.12)
    noises = [np.log(scan.noise) for one in several for scan in one.scans[1:]]
    assert np.std(noises) == pytest.approx(0.3, abs=0.06)


def test_a_turned_scan_lies_where_its_turn_puts_it():
    patch = Grid((24, 24, 24), np.eye(4))
    scan = replace(drawn(1)[0].scans[0], axis=2, thickness=3.0, distance=3.0, turn=(0.3, 0.0, 0.0))
    operator = scan.operator(patch)
    np.testing.assert_allclose(operator.range.centre, patch.centre, atol=1e-9)
    assert np.arccos(operator.range.directions[2, 2]) == pytest.approx(0.3)
    ramp = torch.from_numpy(patch.points()[..., 2]).float()[None, None]
    read = operator(ramp)[0, 0]
    inner = (slice(8, 16), slice(8, 16), slice(3, 5))
    np.testing.assert_allclose(read[inner], operator.range.points()[inner][..., 2], atol=2e-2)


def test_contrasts_have_an_acquisition_each():
    ranges = Acquisitions(stacks=0.5, thin=0.1)
    found = [ranges.draw_contrasts(3, (48, 24, 24), torch.Generator().manual_seed(n)) for n in range(300)]
    assert {one.shape for one in found} == {(32, 32, 32)}
    scans = [[member.scans[0] for member in one.members] for one in found]
    assert all(len(member.scans) == 1 for one in found for member in one.members)
    axes = [len({scan.axis for scan in three}) for three in scans]
    assert set(axes) == {1, 3} and np.mean(np.equal(axes, 1)) == pytest.approx(1 / 3, abs=0.1)
    guided = [three[-1].distance == 1 for three in scans]
    assert np.mean(guided) == pytest.approx(0.2, abs=0.08)
    assert len({member.sigma for member in found[0].members}) == 3
    assert found[0].assumed_sigma.shape == (3, 1, 1, 1)
    clean = torch.rand(2, 3, 32, 32, 32)
    exact, measured = found[0].operator()(clean), found[0].measured(clean, torch.Generator().manual_seed(0))
    for y, part, member in zip(measured, exact, found[0].members, strict=True):
        assert float((y - part).std()) == pytest.approx(member.sigma, rel=0.1)
