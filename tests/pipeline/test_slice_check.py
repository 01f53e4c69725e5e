"""The check of the slice thickness fails where it should and only there; what masks hide does not count."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.pipeline.scan import Scan
from invsr.pipeline.slice_check import EXPECTED, WINDOW, question, slice_correlation
from invsr.testing.phantoms import centred_grid, shapes

pytestmark = pytest.mark.usefixtures("unmoved")


@pytest.fixture(scope="module")
def truth():
    grid = centred_grid((44, 40, 40), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=40.0), grid)


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness, gap, factor", [(4.0, 0.0, 1.6), (3.0, 1.0, 2.0), (2.0, 0.0, 1.6)])
def test_the_true_thickness_passes_and_a_larger_one_fails(truth, axis, thickness, gap, factor):
    scan = invsr.simulate(truth, slice_thickness=thickness, gap=gap, axis=axis, noise=0.005)
    right = slice_correlation(Scan(scan, slice_axis=axis))
    assert EXPECTED[0] < right < EXPECTED[1] and question(Scan(scan), right) == []
    wide = Scan(scan, slice_axis=axis, slice_thickness=factor * thickness)
    (line,) = question(wide, slice_correlation(wide))
    assert f"{wide.thickness:g} mm" in line and "thinner" in line
    narrow = slice_correlation(Scan(scan, slice_axis=axis, slice_thickness=0.5 * thickness))
    assert narrow > right + 0.05


def test_thicker_slices_than_told_are_said(truth):
    scan = invsr.simulate(truth, slice_thickness=4.0, gap=-2.0, axis=2, noise=0.005)
    narrow = Scan(scan, slice_thickness=1.5)
    (line,) = question(narrow, slice_correlation(narrow))
    assert "thicker" in line


def test_slices_that_lie_or_shine_differently_by_turns_let_it_fall(truth, scan):
    right = slice_correlation(Scan(scan))
    moved, darker = scan.data.clone(), scan.data.clone()
    moved[..., ::2] = scan.data.roll(3, 2)[..., ::2]
    darker[..., ::2] *= 0.6
    assert slice_correlation(Scan(scan.with_data(moved))) < right - 0.1
    assert slice_correlation(Scan(scan.with_data(darker))) < right - 0.1
    samples = invsr.Volume(truth.data[..., 1::4], truth.grid.coarsen((1, 1, 4)))
    assert slice_correlation(Scan(samples)) < right - 0.1


def test_the_scale_of_the_data_and_pixels_outside_the_mask_do_not_matter(scan):
    inside = torch.ones_like(scan.data)
    inside[:, :, :10] = 0
    spoilt = torch.where(inside > 0, scan.data, 5 * torch.rand(scan.data.shape))
    mask = scan.with_data(inside)
    clean, masked = (slice_correlation(Scan(scan.with_data(d), mask=mask, noise=0.01)) for d in (scan.data, spoilt))
    assert masked == pytest.approx(clean, abs=0.05)
    loud = slice_correlation(Scan(scan.with_data(1000 * scan.data)))
    assert loud == pytest.approx(slice_correlation(Scan(scan)), abs=1e-3)


def test_scans_that_say_nothing_of_slices_are_left_alone(truth, scan):
    assert slice_correlation(Scan(truth)) is None  # isotropic
    few = invsr.Volume(scan.data[..., :4], Grid((44, 40, 4), scan.grid.affine))
    assert slice_correlation(Scan(few)) is None
    noise = 0.01 * torch.randn(1, 1, 8, 8, 6, generator=torch.Generator().manual_seed(0))
    assert slice_correlation(Scan(invsr.Volume.from_array(noise[0, 0], spacing=(1, 1, 4)))) is None  # too few pixels


def test_large_pictures_are_looked_at_in_a_window(scan):
    air = torch.zeros(1, 1, 3 * WINDOW, 40, 10)
    air[:, :, 200:244] = scan.data
    wide = invsr.Volume(air, Grid((3 * WINDOW, 40, 10), scan.grid.affine), slice_axis=2)
    found = slice_correlation(Scan(wide, noise=0.01))
    assert found == pytest.approx(slice_correlation(Scan(scan, noise=0.01)), abs=0.05)


@pytest.mark.parametrize("method", ["cubic", "tikhonov", "tv"])
def test_a_wrong_thickness_is_a_remark_of_every_method(scan, truth, method):
    wrong = invsr.reconstruct(scan, method=method, reference=truth.grid, slice_thickness=7.0)
    assert any("thinner" in line for line in wrong.remarks())
    right = invsr.reconstruct(scan, method=method, reference=truth.grid)
    assert not any("neighbouring slices" in line for line in right.remarks())


# Several scans --------------------------------------------------------------------------------------


def halves(truth):
    """Two scans, each with a mask of a part of the head, that share the middle."""
    one, other = (invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.005, seed=axis) for axis in (2, 0))
    first, second = torch.zeros_like(one.data), torch.zeros_like(other.data)
    first[:, :, :, :26], second[:, :, :, 12:] = 1, 1
    return (one, other), (one.with_data(first), other.with_data(second))


@pytest.mark.parametrize("swapped", [False, True])
def test_gains_count_what_both_scans_show_inside_their_masks(truth, swapped, recwarn):
    scans, masks = (pair[::-1] if swapped else pair for pair in halves(truth))
    found = invsr.reconstruct(scans, masks=masks, method="tv", reference=truth.grid)
    assert not [one for one in recwarn if issubclass(one.category, InvsrWarning)]
    assert found.motion.scans[1].gain == pytest.approx(1, abs=0.03)
    assert found.gain == pytest.approx(1, abs=0.01) and 0.7 < found.chi2 < 1.3
    inside = found.problem.seen
    assert float((found.x - truth.data)[inside].abs().mean()) < 0.05


def test_the_gain_of_half_a_mask_is_one(truth, scan):
    (_, _), (mask, _) = halves(truth)
    found = invsr.reconstruct(scan, masks=mask, method="tv", reference=truth.grid)
    assert found.gain == pytest.approx(1, abs=0.01)
    assert not any("intensities" in line for line in found.remarks())


def test_scans_that_share_nothing_keep_their_intensities(truth):
    scans, (first, second) = halves(truth)
    first = replace(first, data=first.data * (torch.arange(40) < 14).float()[:, None])
    second = replace(second, data=second.data * (torch.arange(40) > 26).float()[:, None])
    with pytest.warns(InvsrWarning, match="next to nothing"):
        found = invsr.reconstruct(scans, masks=(first, second), method="cubic", reference=truth.grid)
    assert found.motion.scans[1].gain == 1.0


def test_the_gaps_between_slices_are_inside_of_a_mask(truth):
    scan = invsr.simulate(truth, slice_thickness=2.0, gap=4.0, axis=2, noise=0.005, slice_profile="boxcar")
    mask = scan.with_data(torch.ones_like(scan.data))
    found = invsr.reconstruct(scan, masks=mask, slice_profile="boxcar", method="tv", reference=truth.grid)
    first, last = scan.grid.to_world([[0, 0, 0], [0, 0, scan.grid.shape[2] - 1]])[:, 2]
    depth = truth.grid.points()[0, 0, :, 2]
    assert bool(found.problem.seen[..., (depth >= first) & (depth <= last)].all())


@pytest.mark.parametrize("fault", ["shift", "offset", "contrast"])
def test_scans_that_do_not_match_are_named_with_their_fit(truth, fault):
    one, other = (invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.005, seed=axis) for axis in (2, 0))
    if fault == "shift":
        affine = other.grid.affine.copy()
        affine[1, 3] += 2
        other = replace(other, grid=Grid(other.grid.shape, affine))
    elif fault == "offset":
        other = other.with_data(other.data + 0.5)
    else:
        other = other.with_data(other.data.abs().sqrt())
    other = replace(other, name="other.nii")
    found = invsr.reconstruct((one, other), method="tikhonov", reference=truth.grid)
    (line,) = [text for text in found.remarks() if "do not fit one volume" in text]
    assert "other.nii" in line and "--motion stack" in line
    assert math.isfinite(found.chi2) and np.isfinite(found.x.numpy()).all()


def test_scans_that_match_earn_no_remark(truth):
    pair = [invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.005, seed=axis) for axis in (2, 0)]
    found = invsr.reconstruct(pair, method="tikhonov", reference=truth.grid)
    assert found.remarks() == []


def test_intensities_that_are_worlds_apart_are_refused(truth):
    one, other = (invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.005, seed=axis) for axis in (2, 0))
    for factor in (1e-38, 1e6):
        with pytest.raises(InvsrError, match="scale one of them"):
            invsr.register((one, other.with_data(other.data * factor)))


def test_noise_above_all_intensities_is_refused(scan):
    with pytest.raises(InvsrError, match="where the largest intensity is"):
        Scan(scan, noise=1.1 * float(scan.data.abs().max()))
