"""Interleaved packages of one scan: found to have moved, rotations and motion through the plane included."""

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError
from invsr.examples import example
from invsr.inspection.slices import MOST_CHANCE, chance
from invsr.motion.order import by_times, interleaved, n_packages
from invsr.motion.packages import TURN, UNITS, amount, shares, turned
from invsr.operators import acquisition
from invsr.pipeline.moved import CERTAIN_MOTION, _with_packages, packages_moved, with_packages_noted
from invsr.pipeline.preparation import scans_of
from invsr.pipeline.scan import Scan
from invsr.testing.metrics import evaluate

MOVED = np.array([*np.deg2rad([1.5, -1.0, 1.0]), 0.4, -0.5, 1.0])


@pytest.fixture(scope="module")
def truth():
    return example(48)


def acquired(truth, moved, count=2):
    """Slices of 4 mm, of which the second package of `count` moved."""
    still = invsr.simulate(truth, slice_thickness=4, axis=2)
    motion = torch.zeros(still.grid.shape[2], 6, dtype=torch.float64)
    motion[1::count] = torch.from_numpy(moved)
    operator = acquisition(
        still.grid, reference=truth.grid, slice_thickness=4, through_plane=2, motion=motion, centre=truth.grid.centre
    )
    with torch.no_grad():
        data = operator(truth.data)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    return still.with_data(data + 0.01 * data.max() * noise)


@pytest.fixture(scope="module")
def scan(truth):
    return acquired(truth, MOVED)


def test_packages_that_moved_are_put_back(truth, scan):
    options = {"method": "tv", "reference": truth.grid, "max_iter": 15}
    found = invsr.reconstruct(scan, motion="packages", faults="keep", **options)
    (moved,) = found.motion.scans
    assert not moved.motion[::2].any() and (moved.motion[1::2] == moved.motion[1]).all()
    np.testing.assert_allclose(np.degrees(moved.motion[1, :3]), np.degrees(MOVED[:3]), atol=0.7)
    np.testing.assert_allclose(moved.motion[1, 3:], MOVED[3:], atol=0.5)
    as_is = invsr.reconstruct(scan, faults="keep", **options)
    scores = [evaluate(one.volume.numpy(), truth.numpy(), quick=True)["psnr"] for one in (as_is, found)]
    assert scores[1] > scores[0] + 1.0
    assert found.volume.grid == truth.grid


def test_motion_through_the_slices_is_not_found_too_small(truth):
    """The difference of two motions: without what evenly spaced slices pretend taken off, 0.7 of it is found."""
    found = []
    for through in (-1.0, 1.0):
        (one,) = scans_of(acquired(truth, np.array([0, 0, 0, 0.4, -0.5, through])), faults="keep")
        found.append(packages_moved(one, truth.grid, 0.1).scans[0].motion[1, 3:])
    assert 0.9 < (found[1] - found[0])[2] / 2 < 1.15


def test_slices_that_did_not_move_stay(truth):
    still = acquired(truth, 0 * MOVED)
    options = {"method": "tv", "reference": truth.grid, "max_iter": 5}
    found = invsr.reconstruct(still, motion="packages", **options)
    assert found.motion.scans[0].still
    assert torch.equal(found.volume.data, invsr.reconstruct(still, **options).volume.data)
    (one,) = scans_of(still)
    seen = packages_moved(one, truth.grid, 0.0).scans[0]
    assert 0 < amount(torch.from_numpy(seen.motion)) < 0.4


def test_an_empty_slice_says_nothing_of_motion(truth, scan):
    empty = scan.data.clone()
    empty[..., 7] = 0
    for one in scans_of(scan.with_data(empty)):
        (found,) = packages_moved(one, truth.grid, 0.1).scans
        assert found.rejected == [7]
        assert amount(torch.from_numpy(found.motion)) > 1


def test_motion_that_is_certain_is_noted(truth, scan):
    found = invsr.reconstruct(scan, method="cubic")
    (note,) = [note for note in found.remarks() if "--motion packages" in note]
    assert "packages of slices that were acquired by turns moved against each other" in note
    assert not any("packages" in note for note in invsr.reconstruct(scan, method="cubic", faults="keep").remarks())
    still = acquired(truth, 0 * MOVED)
    assert not any("packages" in note for note in invsr.reconstruct(still, method="cubic").remarks())


@pytest.mark.parametrize(("low", "high"), [(16, 36), (12, 34)])
def test_motion_that_slices_do_not_agree_on_is_not_noted(truth, low, high):
    """A mask cuts anatomy off, which pretends motion: more than would be noted by its size alone."""
    still = acquired(truth, 0 * MOVED)
    inside = np.zeros(still.grid.shape, dtype=np.float32)
    inside[low:high, low:high] = 1
    (one,) = scans_of(still, masks=invsr.Volume.from_array(inside, affine=still.grid.affine))
    pretended = packages_moved(one, truth.grid, CERTAIN_MOTION).scans[0]
    assert amount(torch.from_numpy(pretended.motion)) > CERTAIN_MOTION * one.slice_spacing
    assert with_packages_noted(one, truth.grid) is one


def test_slices_of_packages_that_moved_find_a_like_share_of_it(truth, scan):
    (one,) = scans_of(scan, faults="keep")
    found = shares(_with_packages(one, truth.grid, CERTAIN_MOTION), truth.grid)
    assert found.isfinite().all() and (found > 0).sum() >= 11  # of 12
    assert chance(found) < MOST_CHANCE


def test_the_sidecar_says_how_many_packages(truth):
    moved = acquired(truth, MOVED, count=3)
    times = np.empty(moved.grid.shape[2])
    times[interleaved(len(times), 3).numpy()] = np.arange(len(times))
    (one,) = scans_of(invsr.Volume(moved.data, moved.grid, "head", 4.0, slice_times=times, slice_axis=2), faults="keep")
    motion = packages_moved(one, truth.grid, 0.1).scans[0].motion
    assert not motion[::3].any()
    assert np.linalg.norm((motion[1] - MOVED) * UNITS.numpy()) < 0.6 * np.linalg.norm(MOVED * UNITS.numpy())
    assert np.linalg.norm(motion[2] * UNITS.numpy()) < 0.5 * np.linalg.norm(MOVED * UNITS.numpy())


def test_number_of_packages():
    assert n_packages(None) == 2
    assert n_packages(torch.arange(12)) == n_packages(torch.arange(12).flip(0)) == 1
    for n in (9, 12, 20, 25):
        for step in range(2, int(n**0.5) + 1):
            for first in range(step):
                order = interleaved(n, step, first)
                assert n_packages(order) == n_packages(order.flip(0)) == step


def test_number_of_packages_of_several_bands_and_of_other_orders_within_a_package():
    two_bands = [float(one) for one in [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]] * 2  # slices n and n + 12 at once
    assert n_packages(by_times(two_bands)) == 2
    assert n_packages(by_times([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] * 2)) == 1
    assert n_packages(torch.tensor([0, 2, 4, 6, 8, 9, 7, 5, 3, 1])) == 2


def test_the_turned_grid_covers_the_field_of_view(truth):
    grid = invsr.Grid((20, 31, 7), np.array([[0, 2.0, 0, 3], [1.5, 0, 0, -4], [0, 0, 5, 9], [0, 0, 0, 1]]))
    found = turned(grid, 2.0)
    np.testing.assert_allclose(found.spacing, 2.0)
    np.testing.assert_allclose(found.centre, grid.centre)
    assert found.contains(grid.points()).all()
    angle = np.degrees(np.arccos(np.diag(grid.directions.T @ found.directions)))
    assert (angle > abs(TURN[0])).all()


def test_what_has_no_packages_is_refused(truth, scan):
    with pytest.raises(InvsrError, match="motion packages is that of one scan's slices, not of 2 scans"):
        invsr.reconstruct([scan, acquired(truth, 0 * MOVED)], motion="packages")
    few = Scan(invsr.simulate(truth, slice_thickness=12, axis=2))
    with pytest.raises(InvsrError, match="4 slices make no 2 packages of at least 3"):
        packages_moved(few, truth.grid, 0.1)
    times = np.arange(float(scan.grid.shape[2]))
    in_turn = Scan(invsr.Volume(scan.data, scan.grid, "head", 4.0, slice_times=times, slice_axis=2))
    with pytest.raises(InvsrError, match="head: by the times in its sidecar, slices were not acquired by turns"):
        packages_moved(in_turn, truth.grid, 0.1)
