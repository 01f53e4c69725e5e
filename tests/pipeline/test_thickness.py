"""The slice thickness that data show: taken where it is asked for, questioned where the stated one cannot be."""

import dataclasses
import warnings

import pytest
import torch

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.examples import example
from invsr.pipeline.preparation import scans_of
from invsr.pipeline.scan import Scan


@pytest.fixture(scope="module")
def truth():
    return example(96)


@pytest.fixture(scope="module")
def stated(truth):
    return invsr.simulate(truth, slice_thickness=4, axis=2, noise=0.01)


@pytest.fixture(scope="module")
def samples(truth):
    """Every fourth slice, which nobody says of how thick it is."""
    affine = truth.grid.affine.copy()
    affine[:, 2] *= 4
    data = truth.data[..., ::4].contiguous()
    data = data + 0.01 * float(data.max()) * torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    return invsr.Volume(data, invsr.Grid(data.shape[2:], affine), "samples", slice_axis=2)


def alone(volume, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InvsrWarning)
        (scan,) = scans_of(volume, **options)
    return scan


def test_auto_estimates_it(stated):
    scan = alone(stated, slice_thickness="auto")
    assert scan.thickness == pytest.approx(4, rel=0.2)
    (note,) = scan.notes
    assert f"taken as {scan.thickness:.3g} mm thick" in note


def test_a_stated_thickness_that_can_be_is_taken(stated):
    assert alone(stated).thickness == 4 and not alone(stated).notes


def test_one_that_cannot_be_is_questioned(stated):
    with pytest.warns(InvsrWarning, match="7.9 mm is stated, the data look like"):
        (scan,) = scans_of(stated, slice_thickness=7.9)
    assert scan.thickness == 7.9


def test_the_spacing_is_questioned_where_slices_that_overlap_much_are_seen_and_none_is_stated(truth):
    thick = invsr.simulate(truth, slice_thickness=8, gap=-5, axis=2, noise=0.01)
    with pytest.warns(InvsrWarning, match="thickness 3 mm is taken, the spacing, for none is stated, the data look"):
        (scan,) = scans_of(dataclasses.replace(thick, slice_thickness=None))
    assert scan.thickness == 3
    assert alone(thick).thickness == 8


def test_samples_are_recognised_where_no_thickness_is_stated(samples):
    scan = alone(samples)
    assert scan.thickness < 2
    assert "the data show samples of" in scan.notes[0] and "--slice-thickness 4" in scan.notes[0]
    with pytest.warns(InvsrWarning, match="4 mm is stated"):
        assert scans_of(samples, slice_thickness=4.0)[0].thickness == 4


def test_averages_are_taken_as_wide_as_their_spacing(truth, stated):
    unsaid = invsr.Volume(stated.data, stated.grid, "unsaid", slice_axis=2)
    assert alone(unsaid).thickness == 4 and not alone(unsaid).notes


def test_a_scan_is_taken_at_its_word(samples):
    assert alone(Scan(samples)).thickness == pytest.approx(4)
    with pytest.raises(InvsrError, match="slice_thickness given beside a Scan"):
        scans_of(Scan(samples), slice_thickness="auto")


def test_each_of_several_scans_has_its_own(stated, samples):
    first, second = scans_of([stated, samples], slice_thickness=["auto", 1.0], zero_filling="keep", faults="keep")
    assert "the data show slices of" in first.notes[0] and second.thickness == 1 and not second.notes


def test_data_outside_the_mask_do_not_count(truth, stated):
    generator = torch.Generator().manual_seed(0)
    spoiled, inside = stated.data.clone(), torch.ones_like(stated.data)
    inside[..., 60:, :, :] = 0
    spoiled[..., 60:, :, :] = float(spoiled.max()) * torch.rand(spoiled[..., 60:, :, :].shape, generator=generator)
    mask = invsr.Volume(inside, stated.grid, "mask")
    scan = alone(stated.with_data(spoiled), slice_thickness="auto", masks=mask, faults="keep", zero_filling="keep")
    assert scan.thickness == pytest.approx(4, rel=0.25)


def test_where_the_data_show_none_a_number_is_asked_for(stated):
    with pytest.raises(InvsrError, match="do not show how thick its slices are.*give the slice thickness in mm"):
        scans_of(invsr.simulate(example(32), slice_thickness=4), slice_thickness="auto")
    with pytest.raises(InvsrError, match="slice thickness 'thick': give it in mm, or auto"):
        scans_of(stated, slice_thickness="thick")


def test_slices_that_moved_are_not_taken_for_samples(samples):
    slices = samples.data[0, 0].clone()
    slices[..., 1::2] = slices[..., 1::2].roll(3, 0)
    found = scans_of(samples.with_data(slices[None, None]))[0]
    assert found.thickness == pytest.approx(4) and "moved back" in found.notes[0]
