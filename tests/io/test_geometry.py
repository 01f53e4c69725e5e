"""Headers that contradict themselves: what is redundant is compared, what is used is said, and can be chosen."""

import json

import nibabel as nib
import numpy as np
import pytest

import invsr
from invsr.errors import InvsrError, InvsrWarning

SHAPE = (6, 7, 5)


def turned(angle, spacing=(1.0, 1.0, 5.0)):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    return affine


def moved(affine, *mm):
    affine = affine.copy()
    affine[:3, 3] += mm
    return affine


def write(path, sform=None, qform=None, codes=(1, 1), pixdim=None, dim_info=None):
    image = nib.Nifti1Image(np.random.default_rng(0).random(SHAPE).astype(np.float32), None)
    image.set_qform(qform, codes[1] if qform is not None else 0)
    image.set_sform(sform, codes[0] if sform is not None else 0)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    image.header.set_xyzt_units("mm")
    image.header.set_dim_info(slice=dim_info)
    nib.save(image, path)
    return path


CONTRADICTIONS = {
    "spacing of the slices": (
        {"sform": turned(0, (1, 1, 5)), "qform": turned(0, (1, 1, 3.75))},
        "1x1x5 mm, but qform 1x1x3.75",
    ),
    "isotropic or thick": ({"sform": turned(0, (2, 2, 2)), "qform": turned(0, (1, 1, 5))}, "2x2x2 mm, but qform 1x1x5"),
    "pixdim alone": ({"sform": turned(0, (1, 1, 5)), "pixdim": (1, 1, 1)}, "1x1x5 mm, but pixdim 1x1x1"),
    "handedness": ({"sform": turned(0) @ np.diag([-1, 1, 1, 1]), "qform": turned(0)}, "differ in handedness"),
    "direction": ({"sform": turned(20), "qform": turned(0)}, "20.0 degrees apart"),
    "position": (
        {"sform": moved(turned(20), -90, 12.5, 7), "qform": moved(turned(20), -90, 12.5, 0)},
        "7 mm apart, with the first voxel at -90x12.5x7 and -90x12.5x0 mm: the sform is used",
    ),
    "half a voxel": ({"sform": moved(turned(0), 0.5, 0, 0), "qform": turned(0)}, "0.5 mm apart"),
    "half a voxel of a mouse": (
        {"sform": moved(turned(0, [0.1] * 3), 0.05, 0, 0), "qform": turned(0, [0.1] * 3)},
        "0.05 mm apart",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_the_geometry_is_said(tmp_path, case):
    header, words = CONTRADICTIONS[case]
    path = write(tmp_path / "scan.nii", **header)
    with pytest.warns(InvsrWarning, match=words) as seen:
        volume = invsr.load(path)
    assert len(seen) <= 2 and "--geometry" in str(seen[0].message)
    np.testing.assert_allclose(volume.grid.affine, header["sform"], atol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        {"sform": turned(20), "qform": turned(20)},
        {"qform": turned(20)},
        {"sform": turned(20)},
        {"sform": turned(20), "qform": turned(0), "codes": (4, 1)},  # template space beside the scanner's
        {"sform": turned(0.3), "qform": turned(0)},  # rounding of direction cosines
        {"sform": moved(turned(20), 99, 0, 0), "qform": turned(20), "codes": (2, 1)},  # aligned, beside the scanner's
        {"sform": moved(turned(20), 512.3417, 7, 9), "qform": moved(turned(20), 512.34175, 7, 9)},  # float32
        {"sform": moved(turned(0), 0.05, 0.05, 0.05), "qform": turned(0)},  # offsets rounded to 0.1 mm
    ],
)
def test_what_agrees_says_nothing(tmp_path, header):
    kinds = {"pixdim": (1, 1, 5)} if "qform" not in header else {}
    assert invsr.load(write(tmp_path / "scan.nii", **header, **kinds)).grid.shape == SHAPE


def test_the_geometry_can_be_chosen(tmp_path):
    path = write(tmp_path / "scan.nii", sform=turned(20, (1, 1, 5)), qform=turned(0, (1, 1, 3.75)))
    assert invsr.load(path, geometry="qform").grid.spacing[2] == pytest.approx(3.75)
    assert invsr.load(path, geometry="pixdim").grid.spacing[2] == pytest.approx(3.75)
    assert invsr.load(path, geometry="sform").grid.spacing[2] == pytest.approx(5)
    with pytest.raises(InvsrError, match="unknown geometry 'best'"):
        invsr.load(path, geometry="best")
    alone = write(tmp_path / "alone.nii", qform=turned(0))
    with pytest.raises(InvsrError, match="has no sform"):
        invsr.load(alone, geometry="sform")


@pytest.mark.parametrize("spacing, words", [((1e-3, 1e-3, 1e-3), "units right"), ((1, 150, 1), "field of view")])
def test_sizes_that_no_scan_has_are_questioned(tmp_path, spacing, words):
    with pytest.warns(InvsrWarning, match=words):
        invsr.load(write(tmp_path / "scan.nii", sform=turned(0, spacing), qform=turned(0, spacing)))


# Slices ----------------------------------------------------------------------------------------------


def with_sidecar(folder, spacing=(1, 1, 5), dim_info=None, **entries):
    path = write(folder / "scan.nii", sform=turned(0, spacing), qform=turned(0, spacing), dim_info=dim_info)
    (folder / "scan.json").write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize(
    "stated, taken, words",
    [
        (5000, 5.0, "taken as micrometres"),
        (0.005, 5.0, "taken as metres"),
        (50, None, "ignored"),
        (0.05, None, "ignored"),
        (5, 5.0, None),
        (4, 4.0, None),
        (9, 9.0, None),
    ],
)
def test_a_thickness_that_cannot_be_is_not_believed(tmp_path, stated, taken, words):
    path = with_sidecar(tmp_path, SliceThickness=stated)
    if words is None:
        assert invsr.load(path).slice_thickness == taken
        return
    with pytest.warns(InvsrWarning, match=words):
        assert invsr.load(path).slice_thickness == (taken and pytest.approx(taken))


@pytest.mark.parametrize("how", ["header", "sidecar"])
def test_the_slice_axis_is_what_the_file_says(tmp_path, how):
    # 3 mm slices every 1 mm, pixels of 1.5 mm: the longest edge is no slice axis.
    says = {"dim_info": 2} if how == "header" else {"SliceEncodingDirection": "k"}
    path = with_sidecar(tmp_path, (1.5, 1.5, 1.0), SliceThickness=3.0, SpacingBetweenSlices=1.0, **says)
    with pytest.warns(InvsrWarning, match="stacked along k by the header, but voxels are longest along j"):
        volume = invsr.load(path)
    scan = invsr.Scan(volume)
    assert scan.through_plane == 2 and scan.thickness == 3.0
    assert invsr.Scan(volume, slice_axis=0).through_plane == 0


def test_a_slice_axis_that_cannot_be_is_not_believed(tmp_path):
    path = with_sidecar(tmp_path, (5.0, 1.0, 1.0), dim_info=2)  # turned after the header was written
    with pytest.warns(InvsrWarning, match="i is taken"):
        assert invsr.Scan(invsr.load(path)).through_plane == 0
