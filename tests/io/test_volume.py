"""Volume and NIfTI: round trips, what is repaired with a warning, what is refused and how, whole files or none."""

import builtins
import errno
import gzip
import json
import os
import stat
import tracemalloc
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

import invsr.io.nifti
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.files import check_writable
from invsr.io.nifti import load, save
from invsr.volume import Volume, require_signal

SHAPE = (5, 6, 4)


def affine_of(name):
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes = {
        "upright": np.eye(3),
        "oblique": turn @ turn[:, [2, 0, 1]][[2, 0, 1]],
        "flipped": np.diag([-1, 1, -1]),
        "permuted": np.eye(3)[:, [2, 0, 1]],
        "all three": turn[:, [1, 2, 0]] * [1, -1, 1],
    }[name]
    affine = np.eye(4)
    affine[:3, :3] = axes * [0.9, 1.1, 4.5]
    affine[:3, 3] = [-80.5, 12.25, 33]
    return affine


ORIENTATIONS = ("upright", "oblique", "flipped", "permuted", "all three")


def voxels(shape=SHAPE, dtype=np.float32, seed=0):
    return (100 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def write(path, data=None, affine=None, kind=nib.Nifti1Image, **header):
    """A file straight from nibabel; `header` holds raw header fields."""
    data = voxels() if data is None else data
    image = kind(data, affine_of("oblique") if affine is None else affine, dtype=data.dtype)
    image.to_filename(path)
    if header:
        patch(path, image.header_class, **header)
    return path


def patch(path, header_class, **fields):
    """Overwrite header fields of a file as they are, without nibabel's checks."""
    reader = gzip.open if str(path).endswith(".gz") else open
    with reader(path, "rb") as file:
        content = bytearray(file.read())
    header = header_class(bytes(content[: header_class.template_dtype.itemsize]), check=False)
    for key, value in fields.items():
        header[key] = value
    content[: len(header.binaryblock)] = header.binaryblock
    with reader(path, "wb") as file:
        file.write(content)


def volume_of(shape=SHAPE, orientation="oblique", **fields):
    data = torch.from_numpy(voxels(shape))[None, None]
    return Volume(data, Grid(shape, affine_of(orientation)), **fields)


def refuses(message, function, *arguments, **keywords):
    with pytest.raises(InvsrError, match=message) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_quietly(path, **keywords):
    # Recorded, not raised: an exception inside nibabel would pass for a damaged file.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return load(path, **keywords)
        finally:
            assert [str(warning.message) for warning in caught] == []


def load_with_warning(message, path):
    with pytest.warns(InvsrWarning, match=message) as caught:
        volume = load(path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    return volume


# Volume ---------------------------------------------------------------------------------------------


def test_data_are_kept_as_float32_and_replaced():
    grid = Grid(SHAPE, np.eye(4))
    volume = Volume(torch.ones(1, 1, *SHAPE, dtype=torch.int16), grid, "scan.nii", 5.0, 6.0, 4)
    assert volume.data.dtype == torch.float32
    other = volume.with_data(torch.zeros(1, 1, *SHAPE, dtype=torch.float64))
    assert other.data.dtype == torch.float32 and other.data.sum() == 0 and volume.data.sum() > 0
    assert (other.name, other.slice_thickness, other.slice_spacing, other.form_code) == ("scan.nii", 5.0, 6.0, 4)
    assert volume.to("meta").data.device.type == "meta" and volume.to("cpu").grid is grid


def test_another_grid_forgets_the_slices():
    fine = Grid((2, 2, 2), np.eye(4))
    moved = volume_of(slice_thickness=5.0, slice_spacing=6.0).with_data(torch.zeros(1, 1, 2, 2, 2), fine)
    assert moved.grid is fine and moved.slice_thickness is None and moved.slice_spacing is None


def test_numpy_gives_three_axes_even_of_a_traced_tensor():
    volume = Volume(torch.rand(1, 1, *SHAPE, requires_grad=True), Grid(SHAPE, np.eye(4)))
    assert volume.data.requires_grad and volume.numpy().shape == SHAPE


def test_data_must_fit_the_grid_and_be_real():
    grid = Grid(SHAPE, np.eye(4))
    refuses(r"a.nii: data of shape \(5, 6, 4\) do not fit Grid\(5x6x4", Volume, torch.zeros(SHAPE), grid, "a.nii")
    refuses("complex", Volume, torch.zeros(1, 1, *SHAPE, dtype=torch.complex64), grid)
    refuses("do not fit", volume_of().with_data, torch.zeros(1, 1, 2, 2, 2))


def test_signal_is_required_where_it_matters():
    volume = volume_of(name="scan.nii")
    require_signal(volume)
    refuses("scan.nii: every voxel is 3", require_signal, volume.with_data(0 * volume.data + 3))


# Reading --------------------------------------------------------------------------------------------


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
    refuses(rf"x\.nii.*: holds {n} volumes: choose one from 0 with index= \(command line: --volume N\)", load, path)
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
    monkeypatch.setattr(invsr.io.nifti, "BLOCK", 64 * 64 * 4)
    load(path)
    tracemalloc.start()
    volume = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(volume.numpy(), data / 2)
    # The file's own int16 and the float32 result, and room for a few blocks; float64 alone would be 8 bytes.
    assert peak < 7.5 * data.size


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_memory_is_taken_only_for_voxels_that_a_file_can_hold(tmp_path, name):
    path = write(tmp_path / name, voxels(), dim=[3, 32767, 32767, 2, 1, 1, 1, 1])
    tracemalloc.start()
    with pytest.raises(InvsrError, match=f"{name}: is damaged or cut short .the header is of [0-9]{{10}} bytes, the"):
        load(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1e7


def bad_header(message, **fields):
    return lambda folder: write(folder / "x.nii.gz", **fields), message


def bad_bytes(content, message, name="x.nii.gz"):
    def make(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make, message


def cut(keep, name):
    """A file that ends after a share of its bytes."""

    def make(folder):
        path = write(folder / name, voxels((20, 20, 20)))
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
        return path

    return make, "damaged or cut short"


def bit_flip(folder):
    path = write(folder / "x.nii.gz", voxels((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    return path


def pair_without_image(folder):
    write(folder / "x.img", kind=nib.Nifti1Pair)
    (folder / "x.img").unlink()
    return folder / "x.hdr"


def other_format(folder):
    nib.MGHImage(voxels(), np.eye(4)).to_filename(folder / "x.mgz")
    (folder / "x.mgz").rename(folder / "x.nii.gz")
    return folder / "x.nii.gz"


def analyze(folder):
    nib.AnalyzeImage(voxels(), np.eye(4)).to_filename(folder / "x.img")
    return folder / "x.img"


def sheared(folder):
    affine = affine_of("oblique")
    affine[:3, 1] += 0.1 * affine[:3, 0]
    return write(folder / "x.nii", affine=affine)


def pixdim(*spacing):
    return [1, *spacing, 1, 1, 1, 1]


BAD = {
    "missing": (lambda folder: folder / "x.nii.gz", "cannot be opened .*No such file"),
    "folder": (lambda folder: folder, "is a folder"),
    "empty": bad_bytes(b"", "is empty"),
    "empty gzip": bad_bytes(gzip.compress(b""), "not a NIfTI"),
    "text": bad_bytes(b"hello\n" * 200, "not gzip-compressed but named in .gz"),
    "text .nii": bad_bytes(b"hello\n" * 200, "not a NIfTI", "x.nii"),
    "text .nii.gz": bad_bytes(gzip.compress(b"hello\n" * 200), "not a NIfTI"),
    "wrong ending": bad_bytes(gzip.compress(bytes(500)), "is gzip-compressed but its name does not end", "x.nii"),
    "no ending": bad_bytes(bytes(500), "not a NIfTI", "x"),
    "dicom": bad_bytes(bytes(128) + b"DICM" + bytes(500), "DICOM .*dcm2niix", "x.dcm"),
    "mgz": (other_format, "not a NIfTI"),
    "analyze": (analyze, "Analyze 7.5"),
    "pair without image": (pair_without_image, r"x\.img, the voxels, is missing"),
    "cut gz": cut(0.5, "x.nii.gz"),
    "cut gz early": cut(0.002, "x.nii.gz"),
    "cut gz late": cut(0.9999, "x.nii.gz"),
    "cut nii": cut(0.5, "x.nii"),
    "bit flip": (bit_flip, "damaged"),
    "2-D": (lambda folder: write(folder / "x.nii", voxels((5, 6)), np.eye(4)), "is a 2-D image of size 5x6"),
    "zero size": bad_header("size 5x0x4", dim=[3, 5, 0, 4, 1, 1, 1, 1]),
    "no volumes": bad_header("size 5x6x4x0", dim=[4, 5, 6, 4, 0, 1, 1, 1]),
    "negative size": bad_header("size 5x-6x4", dim=[3, 5, -6, 4, 1, 1, 1, 1]),
    "huge": bad_header("memory|damaged", dim=[3, *[32767] * 3, 1, 1, 1, 1]),
    "huger": (
        lambda folder: write(folder / "x.nii", kind=nib.Nifti2Image, dim=[3, *[2**40] * 3, 1, 1, 1, 1]),
        "memory|damaged",
    ),
    "zero spacing": bad_header("spacing 1x0x3", pixdim=pixdim(1, 0, 3)),
    "negative spacing": bad_header("spacing 1x2x-3", pixdim=pixdim(1, 2, -3)),
    "nan spacing": bad_header("spacing 1x2xnan", pixdim=pixdim(1, 2, np.nan)),
    "zero column": bad_header("spacing", srow_x=0, srow_y=0, srow_z=0, sform_code=1),
    "singular": bad_header("singular", srow_x=[1, 0, 0, 0], srow_y=[1, 0, 0, 0], srow_z=[0, 1, 1, 0]),
    "sheared": (sheared, "sheared"),
    "nan affine": bad_header("not a finite 4x4", srow_y=np.nan),
    "bad quaternion": bad_header("damaged", sform_code=0, qform_code=1, quatern_b=0.9, quatern_c=0.9),
    "unknown type": bad_header("damaged", datatype=77),
    "complex": (lambda folder: write(folder / "x.nii", voxels().astype(np.complex64)), "complex .*magnitude"),
    "rgb": (lambda folder: write(folder / "x.nii", np.zeros(SHAPE, "u1,u1,u1").astype(RGB)), "RGB .*one channel"),
    "all nan": (lambda folder: write(folder / "x.nii", voxels() * np.nan), "none of its 120 voxels is a finite number"),
}
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize("case", BAD)
def test_refuses_with_one_line_that_names_the_file(tmp_path, case, caplog):
    make, message = BAD[case]
    path = make(tmp_path)
    caplog.set_level(0, "nibabel.global")
    said = refuses(message, load_quietly, path)
    assert said.startswith(f"{path}: ")
    assert not caplog.records


def test_unreadable_file(tmp_path, monkeypatch):
    path = write(tmp_path / "x.nii")
    path.chmod(0)
    if os.access(path, os.R_OK):  # an administrator may read everything

        def denied(*arguments, **keywords):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(builtins, "open", denied)
    refuses("x.nii: cannot be opened .Permission denied.: check the path and permissions", load, path)


# Sidecar --------------------------------------------------------------------------------------------


def with_sidecar(folder, content, name="sub-1.acq_T2w", **fields):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return write(folder / f"{name}.nii.gz", **fields)


def test_slice_thickness_and_spacing_come_from_the_sidecar(tmp_path):
    volume = load_quietly(with_sidecar(tmp_path, {"SliceThickness": 4, "SpacingBetweenSlices": 4.52, "EchoTime": 0.1}))
    assert (volume.slice_thickness, volume.slice_spacing) == (4.0, 4.52)
    volume = load_quietly(with_sidecar(tmp_path, {"SliceThickness": None}))
    assert (volume.slice_thickness, volume.slice_spacing) == (None, None)


def test_a_spacing_that_disagrees_with_the_affine_is_warned_of(tmp_path):
    path = with_sidecar(tmp_path, {"SpacingBetweenSlices": 5})
    volume = load_with_warning("T2w.json: SpacingBetweenSlices is 5 mm but the affine's is 4.5 mm", path)
    assert volume.slice_spacing == 5 and volume.grid.spacing[2] == pytest.approx(4.5)


@pytest.mark.parametrize("value", [0, -5, "5", True, [5], float("nan"), float("inf"), 10**400])
def test_values_that_are_no_length_are_ignored_with_a_warning(tmp_path, value):
    path = with_sidecar(tmp_path, {"SliceThickness": value, "SpacingBetweenSlices": 4.5})
    volume = load_with_warning("T2w.json: SliceThickness is .*, not a length in mm above zero: ignored", path)
    assert (volume.slice_thickness, volume.slice_spacing) == (None, 4.5)


def test_slice_times_come_from_the_sidecar(tmp_path):
    n = load_quietly(write(tmp_path / "plain.nii.gz")).grid.shape[2]
    times = [0.1 * k for k in range(n)]
    assert load_quietly(with_sidecar(tmp_path, {"SliceTiming": times})).slice_times == tuple(times)
    turned = with_sidecar(tmp_path, {"SliceTiming": times, "SliceEncodingDirection": "k-"})
    assert load_quietly(turned).slice_times == tuple(times[::-1])
    for wrong in (times[1:], "fast", [None] * n, [True] * n):
        path = with_sidecar(tmp_path, {"SliceTiming": wrong})
        volume = load_with_warning(f"SliceTiming is not one number for each of {n} slices: ignored", path)
        assert volume.slice_times is None


def test_a_sidecar_that_is_no_object_is_ignored_with_a_warning(tmp_path):
    assert load_with_warning("not a JSON object", with_sidecar(tmp_path, [1, 2])).slice_thickness is None


@pytest.mark.parametrize("content", ["", "{'SliceThickness': 4}", '{"SliceThickness": 4,\n', "[" * 100_000])
def test_a_sidecar_that_is_no_json_is_refused(tmp_path, content):
    path = with_sidecar(tmp_path, content)
    assert refuses("cannot be read as JSON", load, path).startswith(str(path)[:-7] + ".json: ")


# Writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_round_trip(tmp_path, orientation, ending):
    volume = volume_of(orientation=orientation, form_code=4)
    path = tmp_path / f"x{ending}"
    save(volume, path)
    back = load_quietly(path)
    np.testing.assert_array_equal(back.numpy(), volume.numpy())
    assert back.grid == volume.grid and back.form_code == 4
    image = nib.load(path)
    assert type(image) is nib.Nifti1Image and image.get_data_dtype() == np.float32
    assert image.header.get_xyzt_units()[0] == "mm"
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 4
        np.testing.assert_allclose(matrix, volume.grid.affine, atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), volume.grid.spacing, rtol=1e-6)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("shape", [(1, 6, 4), (5, 6, 1), (1, 1, 1)])
def test_round_trip_of_singleton_axes(tmp_path, shape):
    save(volume_of(shape), tmp_path / "x.nii")
    assert load_quietly(tmp_path / "x.nii").grid == volume_of(shape).grid


def test_dimensions_too_large_for_nifti1_become_nifti2(tmp_path):
    for n, kind in ((32767, nib.Nifti1Image), (32768, nib.Nifti2Image)):
        volume = volume_of((n, 1, 1))
        save(volume, tmp_path / "x.nii")
        assert type(nib.load(tmp_path / "x.nii")) is kind
        found = load_with_warning("a field of view of", tmp_path / "x.nii")
        np.testing.assert_array_equal(found.numpy(), volume.numpy())


def test_saving_replaces_and_keeps_the_usual_permissions(tmp_path):
    path = str(tmp_path / "x.nii.gz")
    for seed in range(2):
        save(volume_of().with_data(torch.full((1, 1, *SHAPE), float(seed))), path)
    assert load(path).data.min() == 1
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(tmp_path / "plain").st_mode)


def test_same_volume_same_bytes(tmp_path):
    for name in "ab":
        save(volume_of(), tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def bad_targets(folder):
    (folder / "taken.nii").mkdir()
    (folder / "file").touch()
    return {
        folder / "x.img": "must end in .nii or .nii.gz",
        folder / "x": "must end in .nii or .nii.gz",
        folder / "x.nii.bz2": "must end in .nii or .nii.gz",
        folder / "none" / "x.nii": "folder .*none does not exist",
        folder / "file" / "x.nii": "folder .*file does not exist",
        folder / "taken.nii": "not a regular file",
        folder / ("x" * 300 + ".nii"): "File name too long",
    }


@pytest.mark.parametrize("write_to", [check_writable, lambda path: save(volume_of(), path)], ids=["check", "save"])
def test_targets_that_cannot_be_written_are_refused(tmp_path, write_to):
    targets = bad_targets(tmp_path)
    for path, message in targets.items():
        assert refuses(message, write_to, path).startswith(f"{path}: ")
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.nii"]


@pytest.mark.parametrize("write_to", [check_writable, lambda path: save(volume_of(), path)], ids=["check", "save"])
def test_a_folder_without_permission_is_refused(tmp_path, write_to, monkeypatch):
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):  # an administrator may write everywhere

        def denied(*arguments, **keywords):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", denied)
    refuses(r"x.nii: the folder is not writable \(Permission denied\): choose another", write_to, tmp_path / "x.nii")
    monkeypatch.undo()
    tmp_path.chmod(0o755)
    assert os.listdir(tmp_path) == []


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "x.nii")
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda *arguments: False)  # an administrator may write everywhere
    refuses("exists and is write-protected", check_writable, path)
    assert os.listdir(tmp_path) == ["x.nii"]


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "x.nii.gz")
    assert os.listdir(tmp_path) == []
    path = write(tmp_path / "x.nii.gz")
    before = path.read_bytes()
    check_writable(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.nii.gz"]


def test_names_without_a_folder_are_in_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable("x.nii")
    save(volume_of(), "x.nii")
    assert os.listdir(tmp_path) == ["x.nii"] and load("x.nii").grid == volume_of().grid


def writer_that_fails(error):
    def to_filename(self, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise error

    return to_filename


@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch, older):
    path = tmp_path / "x.nii.gz"
    if older:
        save(volume_of(), path)
    before = path.read_bytes() if older else None
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(nib.Nifti1Image, "to_filename", writer_that_fails(full))
    said = refuses("No space left on device.: free some space", save, volume_of(), path)
    assert said.startswith(f"{path}: could not be written")
    assert os.listdir(tmp_path) == (["x.nii.gz"] if older else [])
    assert not older or path.read_bytes() == before


def test_the_file_appears_by_a_rename(tmp_path, monkeypatch):
    def fails(source, target):
        assert load(source).grid == volume_of().grid
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fails)
    refuses("Input/output error", save, volume_of(), tmp_path / "x.nii.gz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_operating_system_refusing_more_bytes(tmp_path, ending):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    volume = volume_of((64, 64, 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        refuses("could not be written .File too large", save, volume, tmp_path / f"x{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(nib.Nifti1Image, "to_filename", writer_that_fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(volume_of(), tmp_path / "x.nii")
    assert os.listdir(tmp_path) == []


def test_sidecars_are_inherited_within_a_dataset_and_nowhere_else(tmp_path):
    folder = tmp_path / "sub-1" / "ses-2" / "anat"
    folder.mkdir(parents=True)
    path = with_sidecar(folder, {"SpacingBetweenSlices": 4.5}, "sub-1_ses-2_acq-ax_T2w")
    (tmp_path / "T2w.json").write_text(json.dumps({"SliceThickness": 3, "SliceEncodingDirection": "k"}))
    (tmp_path / "acq-ax_T2w.json").write_text(json.dumps({"SliceThickness": 3.5}))
    (tmp_path / "acq-sag_T2w.json").write_text(json.dumps({"SliceThickness": 1}))
    (tmp_path / "FLAIR.json").write_text(json.dumps({"SliceThickness": 1}))
    (tmp_path / "sub-1" / "sub-1_T2w.json").write_text(json.dumps({"SliceThickness": 4}))
    assert load_quietly(path).slice_thickness is None
    (tmp_path / "dataset_description.json").write_text("{}")
    volume = load_quietly(path)
    assert (volume.slice_thickness, volume.slice_spacing, volume.slice_axis) == (4, 4.5, 2)
    (tmp_path / "sub-1" / "sub-1_T2w.json").unlink()
    assert load_quietly(path).slice_thickness == 3.5
    (tmp_path / "acq-ax_T2w.json").write_text("[]")
    assert load_with_warning("acq-ax_T2w.json: is not a JSON object", path).slice_thickness == 3
