"""What is done with scans before they are used: zero-filling is taken back, copies are named."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from zero_filled import measured_sd, zero_filled

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.examples import example
from invsr.operators.sampling import Sampling
from invsr.pipeline.joint import JointTV
from invsr.pipeline.preparation import as_coarse_as, scans_of
from invsr.pipeline.scan import Scan
from invsr.volume import Volume

SHARE = (0.6, 0.7)


def scan_of(noise=10.0, share=SHARE, **options):
    data = example().numpy()
    data = data * (1000 / np.percentile(data[data > 0], 99.9))
    slices = data.reshape(*data.shape[:2], -1, 4).mean(3)
    return Volume.from_array(zero_filled(slices, share, noise, **options), spacing=(1, 1, 4), name="scan")


@pytest.fixture(scope="module")
def filled():
    return scan_of()


def test_zero_filled_pixels_become_the_measured_ones(filled):
    (found,) = scans_of(filled)
    assert found.grid.extent == pytest.approx(filled.grid.extent)
    np.testing.assert_allclose(found.grid.centre, filled.grid.centre, atol=1e-9)
    assert found.grid.spacing[:2] == pytest.approx([1 / 0.6, 1 / 0.7], rel=0.05)
    assert found.grid.shape[2] == filled.grid.shape[2] and found.through_plane == 2
    assert float(found.data.mean()) == pytest.approx(float(filled.data.mean()), rel=1e-3)
    assert "124x160 pixels from a measured matrix of" in found.notes[0]
    assert scans_of(found)[0] is found  # once is enough


def test_nothing_that_was_measured_is_lost():
    filled = scan_of(magnitude=False)
    (found,) = scans_of(filled)
    again = Sampling(found.grid, filled.grid, ["kspace", "kspace", "none"])(found.data)
    assert float((again - filled.data).abs().max()) < 0.01 < 0.01 * measured_sd(SHARE, 10.0)


@pytest.mark.parametrize("noise", [10.0, 30.0])
@pytest.mark.parametrize(
    ("share", "kind"),
    [((0.5, 0.5), {}), ((0.7, 1.0), {}), ((0.6, 0.7), {"ellipse": True}), ((0.6, 0.7), {"magnitude": False})],
)
def test_the_noise_level_is_that_of_a_pixel(noise, share, kind):
    (found,) = scans_of(scan_of(noise, share, **kind), faults="keep")
    assert found.sigma() == pytest.approx(measured_sd(share, noise, kind.get("ellipse", False)), rel=0.15)


def test_zero_filled_pixels_can_be_kept(filled):
    (found,) = scans_of(filled, zero_filling="keep")
    assert found.volume is filled and not found.notes
    with pytest.raises(InvsrError, match="unknown zero_filling 'no': use auto or keep"):
        scans_of(filled, zero_filling="no")


def test_a_scan_that_was_measured_as_it_is_stays(filled):
    volume = scan_of(share=(1, 1))
    assert scans_of(volume)[0].volume is volume


def test_masks_and_given_noise_go_along(filled):
    mask = filled.with_data((filled.data > 200).float())
    (found,) = scans_of(filled, masks=mask, noise=7.0)
    assert found.sigma() == 7.0
    assert found.mask.grid == found.grid
    assert float(found.mask.data.mean()) == pytest.approx(float(mask.data.mean()), rel=0.02)
    assert set(found.mask.data.unique().tolist()) == {0.0, 1.0}


@pytest.mark.usefixtures("unmoved")
def test_the_default_spacing_is_what_was_measured(filled):
    result = invsr.reconstruct(filled, method="tikhonov")
    assert result.grid.spacing == pytest.approx([result.problem.grids[0].spacing.min()] * 3)
    assert result.grid.spacing[0] == pytest.approx(1 / 0.7, rel=0.05)
    assert any("zero-filled" in line for line in result.remarks())
    assert 0.7 < result.chi2 < 1.3
    kept = invsr.reconstruct(filled, method="cubic", zero_filling="keep", faults="keep")
    assert kept.grid.spacing == pytest.approx([1.0] * 3) and not kept.notes
    asked = invsr.reconstruct(filled, method="cubic", spacing=1.0, faults="keep")
    assert asked.grid == kept.grid  # the stored pixels, where they were


def test_pixels_no_finer_than_voxels():
    """k-space is cropped in the plane: the field of view, constants and slices stay, white noise falls."""
    grid = invsr.Grid((30, 40, 6), np.diag([0.5, 0.4, 4.0, 1.0]))
    noise = torch.randn(1, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    scan = Scan(invsr.Volume(100 + noise, grid, "s.nii.gz"), noise=1.0)
    coarse = as_coarse_as(scan, 1.0)
    assert coarse.grid.shape == (15, 16, 6) and coarse.through_plane == 2
    np.testing.assert_allclose(coarse.grid.extent, grid.extent)
    np.testing.assert_allclose(coarse.grid.centre, grid.centre)
    assert float(coarse.data.mean()) == pytest.approx(100, abs=0.1)
    assert float(coarse.data.std()) == pytest.approx(coarse.noise, rel=0.1) and coarse.noise == pytest.approx(0.2**0.5)
    assert as_coarse_as(scan, 0.4) is scan


COPY = "b.nii.gz: has the same voxels in the same place as a.nii.gz: a copy counts as another measurement"


@pytest.fixture
def twice():
    first = replace(invsr.simulate(example(48), slice_thickness=4, noise=0.01, seed=1), name="a.nii.gz")
    return first, replace(first, data=first.data.clone(), name="b.nii.gz")


def warnings_of(run, *args, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", InvsrWarning)
        run(*args, **options)
    return [str(one.message) for one in said if issubclass(one.category, InvsrWarning)]


def test_a_copy_is_no_second_measurement(twice):
    first, copy = twice
    third = invsr.simulate(example(48), slice_thickness=4, axis=0, noise=0.01, seed=2)
    (said,) = warnings_of(invsr.reconstruct, [first, third, copy], method="cubic")
    assert said.startswith(COPY)
    said = warnings_of(
        *(invsr.reconstruct_contrasts, [first, third, copy]), method=JointTV(max_iter=2), motion="none", spacing=2.0
    )
    assert sum(one.startswith(COPY) for one in said) == 1


def test_scans_that_are_alike_are_no_copies(twice):
    """The same slices again, with their own noise; and the same voxels in another place."""
    first, _ = twice
    again = invsr.simulate(example(48), slice_thickness=4, noise=0.01, seed=2)
    affine = first.grid.affine.copy()
    affine[2, 3] += 2
    beside = replace(first, grid=invsr.Grid(first.grid.shape, affine))
    for other in (again, beside):
        assert not warnings_of(invsr.reconstruct, [first, other], method="cubic")
