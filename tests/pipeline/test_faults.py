"""Faults of slices: found, corrected and named; scans without any are left as they are."""

import re
import warnings

import numpy as np
import pytest
import scipy.stats
import torch

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.examples import example
from invsr.inspection.single_slices import corrupt_slices, darker_slices
from invsr.inspection.slices import (
    LEAST_GAIN,
    LEAST_SHIFT,
    Alternation,
    chance,
    empty_slices,
    is_certain,
    package_gain,
    package_shift,
    padded_ends,
    shifted,
    spikes,
)
from invsr.pipeline.preparation import scans_of
from invsr.testing.metrics import evaluate


@pytest.fixture(scope="module")
def truth():
    return example(64)


@pytest.fixture(scope="module", params=[2, 0], ids=["k", "i"])
def scan(request, truth):
    return invsr.simulate(truth, slice_thickness=4, slice_profile="boxcar", axis=request.param, noise=0.01)


def changed(scan, change):
    """The scan with `change` of its slices, shape (i, j, slices)."""
    axis = scan.grid.through_plane
    slices = change(scan.data[0, 0].movedim(axis, -1).clone())
    return scan.with_data(slices.movedim(-1, axis)[None, None].contiguous())


def odd(slices):
    return torch.arange(slices.shape[2]) % 2 == 1


def darker(slices):
    return torch.where(odd(slices), 0.85 * slices, slices)


def moved(slices):
    return shifted(slices, torch.tensor([1.8, -0.5])[:, None] * odd(slices))


def spiked(slices):
    slices[30, 40, 9], slices[20, 25, 5] = 1e6, 4000
    return slices


def empty(slices):
    slices[..., 7] = 0
    return slices


def one_darker(slices):
    slices[..., 8] *= 0.65
    return slices


def swapped(slices):
    slices[..., 8] = slices[..., 3]
    return slices


FAULTS = {
    "darker": (darker, r"every other slice is darker by 1[3-7].*brightened"),
    "moved": (moved, r"every other slice lies 1.[6-9].* mm away in its plane .*moved back"),
    "spiked": (spiked, r"2 spiked voxels, the first at"),
    "empty": (empty, r"1 empty slice .number 7.: left out"),
    "one darker": (one_darker, r"slice 8 is darker than those on both sides by 3[2-8]%: brightened"),
    "swapped": (swapped, r"1 slice .number 8. unlike those on both sides, which are alike: left out"),
}


def scored(volume, truth, **options):
    """The PSNR of a reconstruction, and the reconstruction."""
    options |= {"method": "tikhonov", "slice_profile": "boxcar", "reference": truth.grid}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvsrWarning)  # spikes that are kept
        result = invsr.reconstruct(volume, **options)
    return evaluate(result.volume.numpy(), truth.numpy(), quick=True)["psnr"], result


@pytest.fixture(scope="module")
def clean(scan, truth):
    psnr, result = scored(scan, truth)
    assert not result.notes
    return psnr


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_corrected_and_named(scan, truth, clean, kind):
    change, words = FAULTS[kind]
    bad = changed(scan, change)
    mended, result = scored(bad, truth)
    assert clean - mended < {"empty": 1.5, "swapped": 1.5, "moved": 0.7}.get(kind, 0.1)
    assert mended - scored(bad, truth, faults="keep")[0] > 0.8
    (note,) = result.notes
    assert re.search(words, note), note
    assert "--faults keep" in note and note in result.remarks()
    assert 0.7 < result.chi2 < 1.3


def test_all_at_once(scan):
    bad = changed(scan, lambda slices: spiked(empty(darker(moved(slices)))))
    (found,) = scans_of(bad)
    assert len(found.notes) == 4 and found.empty_slices == (7,)
    assert scans_of(found)[0].data.equal(found.data)  # once is enough
    kept = found.used.movedim(2 + found.through_plane, -1)
    assert not kept[..., 7].any() and kept[..., [*range(7), *range(8, kept.shape[-1])]].all()


def test_a_spike_at_its_place_along_the_files_axes(scan):
    bad = changed(scan, spiked)
    (found,) = scans_of(bad)
    at = [20, 25, 5] if scan.grid.through_plane == 2 else [5, 20, 25]
    assert f"the first at ({at[0]}, {at[1]}, {at[2]})" in found.notes[0]
    untouched = (bad.data - found.data) == 0
    assert int((~untouched).sum()) == 2


def test_data_can_be_kept(scan):
    bad = changed(scan, darker)
    assert scans_of(bad, faults="keep")[0].volume is bad
    with pytest.raises(InvsrError, match="unknown faults 'no': use auto or keep"):
        scans_of(bad, faults="no")


def test_a_mask_moves_with_the_slices_that_are_moved_back(scan):
    """It was drawn on the slices as they were: left there, it pulled the estimated motion of packages."""
    found = changed(scan, moved)
    inside = found.data > 0.2 * found.data.max()
    (corrected,) = scans_of([found], masks=found.with_data(inside.float()))
    assert any("in its plane" in note for note in corrected.notes)
    right = scan.data > 0.2 * scan.data.max()
    wrong = float((inside != right).float().mean())
    assert float(((corrected.mask.data != 0) != right).float().mean()) < 0.5 * wrong


def test_packages_of_several_scans_are_left_to_the_estimate_of_motion(scan):
    bad = changed(scan, moved)
    assert all(not one.notes for one in scans_of([bad, scan]))
    assert "darker" in scans_of([changed(scan, darker), scan])[0].notes[0]


@pytest.mark.parametrize("shape", [(3, 3, 2), (20, 20, 1), (20, 20, 6), (2, 2, 40)])
def test_little_data_show_no_fault(shape):
    slices = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 1
    for found, least in ((package_gain(slices), LEAST_GAIN), (package_shift(slices), LEAST_SHIFT)):
        assert not is_certain(found, least)
    zero = torch.zeros(shape)
    for few in (slices, zero):
        assert not spikes(few).any() and empty_slices(few) == []
        if shape[2] > 1:
            assert corrupt_slices(few) == [] and darker_slices(few) == {}


def test_slices_at_the_ends_may_be_empty():
    slices = torch.rand(20, 20, 9, generator=torch.Generator().manual_seed(0)) + 1
    slices[..., [0, 1, 8]] = 0
    assert empty_slices(slices) == []
    slices[..., [4, 5]] = 0.01
    assert empty_slices(slices) == [4, 5]


@pytest.mark.parametrize(("value", "axis"), [(0.0, 2), (7.0, 0)])
def test_padding_at_the_ends_is_not_data(value, axis):
    def padded(slices):
        slices[..., :2], slices[..., -1] = value, value
        return slices

    truth = example(48)
    bad = changed(invsr.simulate(truth, slice_thickness=4, axis=axis, noise=0.01), padded)
    found, kept = (
        invsr.reconstruct(bad, faults=how, method="tikhonov", reference=truth.grid) for how in ("auto", "keep")
    )
    (note,) = found.notes
    assert "3 slices (number 0, 1, 11) at the ends hold one value: taken as not measured" in note
    assert len(scans_of(scans_of(bad)[0])[0].notes) == 1  # once is enough

    def error(result, where):
        off = np.moveaxis(result.volume.numpy() - truth.numpy(), axis, -1)[..., where]
        return np.sqrt((off**2).mean())

    next_to_it = [*range(8, 12), *range(40, 44)]
    assert error(found, next_to_it) < 0.85 * error(kept, next_to_it)
    assert error(found, slice(16, 36)) < 1.02 * error(kept, slice(16, 36))
    assert not np.moveaxis(found.volume.numpy(), axis, -1)[..., [*range(7), 45, 46, 47]].any()
    assert found.volume.grid == truth.grid and 0.6 < found.chi2 < 1.3


def test_nothing_above_a_head_is_data():
    """Anatomy that ends by itself: the last slices of it show less and less."""
    slices = torch.zeros(40, 40, 9)
    for k, half in enumerate((20, 18, 16, 13, 9, 5)):
        slices[20 - half : 20 + half, 20 - half : 20 + half, k] = 1 + 0.1 * torch.rand(2 * half, 2 * half)
    assert padded_ends(slices) == []
    assert padded_ends(slices[..., [0, 1, 2, 6, 7, 8]]) == [3, 4, 5]
    assert padded_ends(slices[..., [8, 0, 1, 8, 2, 3, 4, 5]]) == [0]  # a lost slice in the middle is another fault
    assert padded_ends(torch.zeros(40, 40, 4)) == []


def test_an_empty_slice_is_found_where_most_of_a_large_slice_is_air():
    slices = torch.zeros(450, 440, 7)
    slices[:150, :150] = 1  # an eighth of the slice
    slices[..., 3] = 0
    assert empty_slices(slices) == [3]


def test_what_all_slices_share_is_no_fault_of_single_ones(scan):
    """Slices that lie elsewhere by turns are unlike those on both sides, every one of them."""
    data = changed(scan, moved).data[0, 0].movedim(scan.grid.through_plane, -1)
    assert corrupt_slices(data) == []
    assert darker_slices(torch.where(odd(data), 0.5 * data, data)) == {}


def test_the_slice_between_two_that_mirror_each_other_is_no_fault(scan):
    slices = scan.data[0, 0].movedim(scan.grid.through_plane, -1)
    # As a sagittal scan's about the midline: those on both sides of slice 8 are the same.
    mirrored = slices[..., [*range(9), *reversed(range(8))]]
    assert corrupt_slices(mirrored) == []
    mirrored[..., 4] = slices[..., 12]
    assert corrupt_slices(mirrored) == [4]


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_far_apart_are_no_faults_of_each_other(axis):
    sparse = invsr.simulate(example(80), slice_thickness=2, gap=8, axis=axis, noise=0.01)
    assert corrupt_slices(sparse.data[0, 0].movedim(axis, -1)) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvsrWarning)
        assert not scans_of(sparse)[0].notes


def test_slices_move_towards_higher_indices():
    slices = torch.zeros(16, 12, 3)
    slices[5, 6] = 1
    found = shifted(slices, torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -3.0]]))
    assert [np.unravel_index(int(found[..., k].argmax()), (16, 12)) for k in range(3)] == [(5, 6), (7, 6), (5, 3)]
    torch.testing.assert_close(found.sum((0, 1)), torch.ones(3))


def test_large_slices_are_registered_at_half_their_resolution(monkeypatch, scan):
    from invsr.inspection import slices as module

    data = changed(scan, moved).data[0, 0].movedim(scan.grid.through_plane, -1)
    whole = package_shift(data)
    monkeypatch.setattr(module, "MOST_PIXELS", 40)
    monkeypatch.setattr(module, "MOST_CHANCE", 1.0)  # at half the resolution of so few pixels nothing is certain
    assert package_shift(data).difference == pytest.approx(whole.difference, abs=0.5)


def test_what_is_certain_is_large_and_no_accident_along_one_axis():
    assert is_certain(Alternation((0.1, -0.5), (0.5, 1e-6)), LEAST_SHIFT)
    for shift, chances in (((0.1, 0.1), (1e-6, 1e-6)), ((0.5, 0.1), (0.5, 1e-6))):
        assert not is_certain(Alternation(shift, chances), LEAST_SHIFT)


@pytest.mark.parametrize("noise", [0, 0.01])
def test_twelve_slices_of_a_clean_head_did_not_move(noise):
    """The median of ten values, of both signs, lies at 30 of its errors: most of them happen to be alike."""
    whole = example()
    part = invsr.Volume.from_array(whole.data[0, 0, 60:124, 80:144, 50:98].numpy(), spacing=1.0)
    options = {"slice_thickness": 4, "slice_profile": "boxcar", "axis": 2}
    (found,) = scans_of(invsr.simulate(part, noise=noise, **options))
    assert found.grid.shape[2] == 12 and not found.notes
    (found,) = scans_of(changed(invsr.simulate(whole, noise=0.01, **options), moved))
    assert re.search(FAULTS["moved"][1], found.notes[0])


def test_the_chance_is_that_of_a_t_test_but_for_outliers():
    values = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    expected = scipy.stats.ttest_1samp(values.double().numpy(), 0, axis=1).pvalue
    np.testing.assert_allclose([chance(one) for one in values], expected, rtol=1e-6)
    # With the ends drawn in, accidents are as frequent as it says, give or take what 2000 tries can tell.
    values = torch.randn(2000, 12, generator=torch.Generator().manual_seed(0))
    assert 0.04 < np.mean([chance(one) < 0.05 for one in values]) < 0.075
    values = torch.linspace(0.9, 1.1, 12)
    assert chance(torch.cat([values, -30 * torch.ones(1)])) < 1e-6
    assert chance(torch.ones(12)) < 1e-9 and chance(torch.zeros(12)) == 1
