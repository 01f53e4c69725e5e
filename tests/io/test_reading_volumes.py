"""NIfTI files are read as they are meant; small faults are repaired, larger ones with a warning."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch
from volume_files import ORIENTATIONS, SHAPE, affine_of, load_quietly, load_with_warning, patch, refuses, voxels, write

import invsr.io.intensities
from invsr.grid import Grid
from invsr.io.nifti import load


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_reads_what_nibabel_wrote(tmp_path, orientation, ending, kind):
    path = write(tmp_path / f"a.b{ending}", affine=affine_of(orientation), kind=kind)
    volume = load_quietly(path)
    np.testing.assert_array_equal(volume.numpy(), voxels())
    assert volume.data.shape == (1, 1, *SHAPE) and volume.data.dtype == torch.float32 and volume.data.is_contiguous()
    assert volume.grid == Grid(SHAPE, affine_of(orientation))
    assert volume.name == path.name and volume.slice_thickness is None and volume.slice_spacing is None


@pytest.mark.parametrize("named", ["x.hdr", "x.img"])
def test_reads_pairs(tmp_path, named):
    write(tmp_path / "x.img", kind=nib.Nifti1Pair)
    np.testing.assert_array_equal(load_quietly(tmp_path / named).numpy(), voxels())


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", ">i2", ">f4"])
def test_reads_integer_and_float_types(tmp_path, dtype):
    data = np.abs(voxels()) if np.dtype(dtype).kind == "u" else voxels()
    data = data.astype(dtype)
    np.testing.assert_array_equal(load_quietly(write(tmp_path / "x.nii.gz", data)).numpy(), data.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_applies_slope_and_intercept(tmp_path, dtype):
    data = np.abs(voxels(dtype=dtype))
    path = write(tmp_path / "x.nii", data, scl_slope=0.37, scl_inter=-1024)
    expected = data.astype(np.float64) * np.float32(0.37) - 1024
    np.testing.assert_allclose(load_quietly(path).numpy(), expected, rtol=1e-6)
    # A slope of 0 means that there is none.
    np.testing.assert_array_equal(load_quietly(write(path, data, scl_slope=0, scl_inter=5)).numpy(), data)


def test_large_integers_are_scaled_before_they_are_rounded(tmp_path):
    data = np.int32(2**30) + np.arange(120, dtype=np.int32).reshape(SHAPE)
    path = write(tmp_path / "x.nii", data, scl_slope=1, scl_inter=-(2.0**30))
    np.testing.assert_array_equal(load_quietly(path).numpy(), np.arange(120).reshape(SHAPE))


def test_negative_values_stay(tmp_path):
    assert load_quietly(write(tmp_path / "x.nii.gz")).data.min() == voxels().min() < 0


@pytest.mark.parametrize(("code", "factor"), [(0, 1), (1, 1e-3), (2, 1), (3, 1e3), (8 + 1, 1e-3), (16 + 3, 1e3)])
def test_units_become_millimetres(tmp_path, code, factor):
    affine = affine_of("oblique")
    affine[:3] *= factor
    path = write(tmp_path / "x.nii.gz", affine=affine, xyzt_units=code)
    assert load_quietly(path).grid == Grid(SHAPE, affine_of("oblique"))


def test_sform_goes_before_qform(tmp_path):
    image = nib.Nifti1Image(voxels(), None)
    image.header.set_qform(affine_of("flipped"), 1)
    image.to_filename(tmp_path / "q.nii")
    image.header.set_sform(affine_of("permuted"), 4)
    image.to_filename(tmp_path / "s.nii")
    q, s = load_quietly(tmp_path / "q.nii"), load_quietly(tmp_path / "s.nii")
    assert q.grid == Grid(SHAPE, affine_of("flipped")) and q.form_code == 1
    assert s.grid == Grid(SHAPE, affine_of("permuted")) and s.form_code == 4


def test_unset_orientation_is_assumed_with_a_warning(tmp_path):
    path = write(tmp_path / "x.nii", affine=np.diag([1, 2, 3, 1]), sform_code=0, qform_code=0)
    volume = load_with_warning("x.nii: the header has neither sform nor qform", path)
    np.testing.assert_allclose(volume.grid.affine, nib.load(path).affine)
    np.testing.assert_allclose(volume.grid.spacing, [1, 2, 3])


@pytest.mark.parametrize("fields", [{"sform_code": 77}, {"pixdim": [0, 0.9, 1.1, 4.5, 0, 0, 0, 0]}, {"bitpix": 3}])
def test_small_faults_of_the_header_are_repaired_without_a_word(tmp_path, fields, caplog):
    path = write(tmp_path / "x.nii.gz", **fields)
    patch(path, nib.Nifti1Header, qform_code=1)
    caplog.set_level(0, "nibabel.global")
    assert load_quietly(path).grid.shape == SHAPE
    assert not caplog.records


@pytest.mark.parametrize("shape", [(1, 6, 4), (5, 1, 4), (5, 6, 1), (1, 1, 1)])
def test_singleton_axes(tmp_path, shape):
    path = write(tmp_path / "x.nii.gz", voxels(shape))
    volume = load_quietly(path)
    assert volume.grid.shape == shape
    np.testing.assert_array_equal(volume.numpy(), voxels(shape))


@pytest.mark.parametrize("shape", [(*SHAPE, 1), (*SHAPE, 1, 1)])
def test_trailing_singleton_axes_are_dropped(tmp_path, shape):
    path = write(tmp_path / "x.nii", voxels(shape))
    assert nib.load(path).shape == shape
    np.testing.assert_array_equal(load_quietly(path).numpy(), voxels(shape).reshape(SHAPE))
    load_quietly(path, index=0)
    refuses("no volume 1: it holds 1,", load, path, index=1)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("extra", [(3,), (1, 3), (3, 2)])
def test_a_volume_of_a_series_is_chosen_by_index(tmp_path, extra, ending):
    data = voxels((*SHAPE, *extra), np.int16)
    path = write(tmp_path / f"x{ending}", data, scl_slope=2, scl_inter=1)
    each = data.reshape(*SHAPE, -1, order="F")
    n = each.shape[-1]
    for index in range(n):
        np.testing.assert_array_equal(load_quietly(path, index=index).numpy(), 2.0 * each[..., index] + 1)
    refuses(rf"x\.nii.*: holds {n} volumes: choose one from 0 with index= .*--volume N\) or save one as", load, path)
    for index in (-1, n):
        refuses(f"no volume {index}: it holds {n}, counted from 0", load, path, index=index)


def test_nan_and_infinity_become_zero_with_one_warning(tmp_path):
    data = voxels()
    data[0, 0, :3], data[1, 1, 1], data[2, 2, 2] = np.nan, np.inf, -np.inf
    path = write(tmp_path / "x.nii.gz", data)
    volume = load_with_warning("x.nii.gz: 3 NaN and 2 infinite of 120 voxels replaced by 0", path)
    np.testing.assert_array_equal(volume.numpy(), np.where(np.isfinite(data), data, 0))


def test_float64_beyond_float32_counts_as_infinite(tmp_path):
    data = voxels(dtype=np.float64)
    data[0, 0, 0] = 1e300
    assert load_with_warning("0 NaN and 1 infinite", write(tmp_path / "x.nii", data)).data[0, 0, 0, 0, 0] == 0


def test_blocks_bound_memory_and_do_not_show(tmp_path, monkeypatch):
    data = voxels((64, 64, 65), np.int16)
    data[3, 3, 64] = 32767
    path = write(tmp_path / "x.nii.gz", data, scl_slope=0.5)
    monkeypatch.setattr(invsr.io.intensities, "BLOCK", 64 * 64 * 4)
    load(path)
    tracemalloc.start()
    volume = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(volume.numpy(), data / 2)
    # The file's own int16 and the float32 result, and room for a few blocks; float64 alone would be 8 bytes.
    assert peak < 7.5 * data.size
