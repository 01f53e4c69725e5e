"""`--geometry`: every file of a command is placed by it."""

import nibabel as nib
import pytest
from scan_files import misplaced

import invsr


@pytest.fixture
def exam(tmp_path, scan, phantom):
    """A scan and a reference whose sforms are both wrong, and where the reference lies."""
    true = tmp_path / "true.nii.gz"
    invsr.save(phantom, true)
    return misplaced(tmp_path / "misplaced.nii.gz", scan), misplaced(tmp_path / "reference.nii.gz", true), phantom.grid


def test_the_reference_is_placed_as_the_scan_is(run, tmp_path, exam):
    scan, reference, grid = exam
    out = tmp_path / "out.nii.gz"
    words = ("--geometry", "qform", "--method", "cubic")
    code, _, err = run("reconstruct", scan, "-o", out, "--reference", reference, *words)
    assert (code, err) == (0, "")
    assert invsr.load(out).grid == grid


def test_the_reference_of_contrasts_too(run, tmp_path, exam):
    scan, reference, grid = exam
    other = tmp_path / "other.nii.gz"
    volume = nib.load(scan)
    volume = nib.Nifti1Image(volume.get_fdata()[::-1], None, volume.header)
    nib.save(volume, other)
    words = ("--contrasts", "--geometry", "qform", "--method", "tv", "--max-iter", "2", "--motion", "none", "--quiet")
    code, _, err = run("reconstruct", scan, other, "-o", tmp_path / "out", "--reference", reference, *words)
    assert code == 0, err
    assert invsr.load(tmp_path / "out" / other.name).grid == grid


def test_a_reference_of_one_geometry_is_placed_by_it(run, tmp_path, exam, phantom):
    scan, _, grid = exam
    reference, out = tmp_path / "reference.mgz", tmp_path / "out.nii.gz"
    nib.save(nib.MGHImage(phantom.numpy(), grid.affine), reference)
    words = ("--geometry", "qform", "--method", "cubic")
    code, _, err = run("reconstruct", scan, "-o", out, "--reference", reference, *words)
    assert (code, err) == (0, "")
    assert invsr.load(out).grid == grid


def test_a_reference_without_that_geometry_is_named(run, tmp_path, exam, scan):
    volume = nib.load(scan)
    volume.set_qform(None, 0)
    nib.save(volume, reference := tmp_path / "template.nii.gz")
    code, _, err = run(
        "reconstruct", exam[0], "-o", tmp_path / "out.nii.gz", "--reference", reference, "--geometry", "qform"
    )
    assert code == 1 and "template.nii.gz: the header has no qform" in err
