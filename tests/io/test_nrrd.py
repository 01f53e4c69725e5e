"""NRRD files are read as NIfTI files are: the same volume written both ways lies at the same place."""

import gzip

import nibabel as nib
import numpy as np
import pytest

import invsr
from invsr.errors import InvsrError, InvsrWarning

nrrd = pytest.importorskip("nrrd")

SHAPE = (6, 7, 5)
DATA = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
# From voxels to right, anterior, superior: oblique, thick slices; permuted and flipped.
AFFINES = {
    "oblique": nib.affines.from_matvec(TURN @ np.diag([0.8, 0.9, 4.0]), [-20, 11, 33]),
    "permuted": nib.affines.from_matvec([[0, 0, -4.0], [1.0, 0, 0], [0, -1.5, 0]], [7, -8, 9]),
}
SIGNS = {"right-anterior-superior": [1, 1, 1], "LPS": [-1, -1, 1], "left-anterior-superior": [-1, 1, 1]}


def fields(affine=AFFINES["oblique"], space="LPS", **others):
    """Of a header."""
    signs = np.array(SIGNS[space])
    return {
        "space": space,
        "space directions": (signs[:, None] * affine[:3, :3]).T,
        "space origin": signs * affine[:3, 3],
        "kinds": ["domain"] * 3,
        **others,
    }


def write(path, data=DATA, **header):
    nrrd.write(str(path), data, {name: value for name, value in header.items() if value is not None})
    return path


@pytest.mark.parametrize("space", SIGNS)
@pytest.mark.parametrize("affine", AFFINES)
def test_voxels_lie_where_those_of_the_nifti_file_do(tmp_path, affine, space):
    nib.Nifti1Image(DATA, AFFINES[affine]).to_filename(tmp_path / "x.nii")
    expected = invsr.load(tmp_path / "x.nii")
    volume = invsr.load(write(tmp_path / "x.nrrd", **fields(AFFINES[affine], space)))
    np.testing.assert_allclose(volume.grid.affine, nib.load(tmp_path / "x.nii").affine, atol=1e-6)
    np.testing.assert_allclose(volume.grid.affine, expected.grid.affine, atol=1e-6)
    np.testing.assert_array_equal(volume.numpy(), expected.numpy())
    assert volume.name == "x.nrrd"


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u4", ">f4", "<f8"])
def test_encodings_types_and_detached_voxels(tmp_path, encoding, ending, dtype):
    data = (DATA % 200).astype(dtype)
    path = write(tmp_path / f"x{ending}", data, encoding=encoding, **fields())
    assert (len(list(tmp_path.iterdir())) == 2) == (ending == ".nhdr")
    np.testing.assert_array_equal(invsr.load(path).numpy(), data.astype(np.float32))


@pytest.mark.parametrize("skip, before", [("byte skip: 5", b"12345"), ("byte skip: -1", b"123")])
@pytest.mark.parametrize("lines", [0, 2])
def test_what_stands_before_the_voxels_is_skipped(tmp_path, skip, before, lines):
    path = write(tmp_path / "x.nhdr", encoding="raw", **fields())
    path.write_text(path.read_text().rstrip() + f"\n{skip}\nline skip: {lines}\n")
    raw = (tmp_path / "x.raw").read_bytes()
    (tmp_path / "x.raw").write_bytes(b"a line\n" * lines + before + raw)
    np.testing.assert_array_equal(invsr.load(path).numpy(), DATA)


@pytest.mark.parametrize("unit, scale", [("mm", 1), ("cm", 10), ("µm", 1e-3), ("um", 1e-3), ("m", 1e3)])
def test_units(tmp_path, unit, scale):
    affine = np.diag([1, 1, 1, scale]) @ AFFINES["oblique"] / scale
    path = write(tmp_path / "x.nrrd", **fields(affine))
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(header + f'\nspace units: "{unit}" "{unit}" "{unit}"\n\n'.encode() + voxels)
    np.testing.assert_allclose(invsr.load(path).grid.affine, AFFINES["oblique"], atol=1e-5)


def test_thicknesses_give_slice_thickness_and_axis(tmp_path):
    path = write(tmp_path / "x.nrrd", **fields(thicknesses=[np.nan, np.nan, 3.0]))
    volume = invsr.load(path)
    assert (volume.slice_thickness, volume.slice_axis) == (3.0, 2)
    path = write(tmp_path / "all.nrrd", **fields(AFFINES["permuted"], thicknesses=[1.0, 1.5, 3.5]))
    volume = invsr.load(path)
    assert (volume.slice_thickness, volume.slice_axis) == (3.5, None)
    (tmp_path / "x.json").write_text('{"SliceThickness": 3.6}')
    assert invsr.load(tmp_path / "x.nrrd").slice_thickness == 3.6
    path = write(tmp_path / "metres.nrrd", **fields(thicknesses=[np.nan, np.nan, 500.0]))
    with pytest.warns(InvsrWarning, match="is 500 mm, but slices are 4 mm apart: ignored"):
        assert invsr.load(path).slice_thickness is None


def test_spacings_alone_are_used_with_a_warning(tmp_path):
    path = write(tmp_path / "x.nrrd", spacings=[1.0, 2.0, 3.0])
    with pytest.warns(InvsrWarning, match="x.nrrd: the header does not say how the patient lies"):
        volume = invsr.load(path)
    np.testing.assert_array_equal(volume.grid.affine, np.diag([-1, 2, 3, 1]))
    with pytest.warns(InvsrWarning, match="no space origin: the first voxel is taken to lie at 0"):
        invsr.load(write(tmp_path / "y.nrrd", **fields(**{"space origin": None})))


def sheared():
    shear = np.eye(3)
    shear[0, 2] = 0.2
    return {"space directions": shear}


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nan_voxels_become_zero_with_a_warning(tmp_path, encoding):
    data = DATA + np.float32([np.nan, 0, np.inf, 0, 0])
    with pytest.warns(InvsrWarning, match="x.nrrd: 42 NaN and 42 infinite of 210 voxels replaced by 0"):
        volume = invsr.load(write(tmp_path / "x.nrrd", data, **fields(encoding=encoding)))
    np.testing.assert_array_equal(volume.numpy(), np.where(np.isfinite(data), data, 0))


BAD = {
    "4-D": (
        np.zeros((*SHAPE, 2)),
        {"kinds": ["domain"] * 3 + ["list"]},
        r"is of 6x7x5x2 \(.*list\), .*save one volume",
    ),
    "vector": (DATA[:3], {"kinds": ["vector", "domain", "domain"]}, r"is of 3x7x5 \(vector, .*no single volume"),
    "2-D": (DATA[0], {}, "is of 7x5, no single volume"),
    "no geometry": (DATA, {}, "neither space directions nor spacings"),
    "no space": (DATA, fields(space="LPS") | {"space": None, "space dimension": 3}, "names no space, .*LPS or RAS"),
    "scanner": (DATA, fields() | {"space": "scanner-xyz"}, "its space is 'scanner-xyz', which does not say"),
    "sheared": (DATA, fields() | sheared(), "sheared"),
    "no direction": (DATA, fields() | {"space directions": np.array([[1, 0, 0], [np.nan] * 3, [0, 0, 1]])}, "finite"),
    "unit": (DATA, fields(**{"space units": ["inch"] * 3}), "space units are inch, inch, inch: known .* are mm"),
    "bzip2": (DATA, fields(encoding="bzip2"), "is encoded by bzip2: save it raw or by gzip"),
    "text": (DATA, fields(encoding="ascii"), "is encoded by ascii: save it raw or by gzip"),
    "nan": (np.full(SHAPE, np.nan), fields(), "none of its 210 voxels is a finite number"),
    "far": (DATA, fields() | {"space origin": [1e20, 0, 0]}, "which no scan has"),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses_with_one_line_that_names_the_file(tmp_path, case):
    data, header, message = BAD[case]
    with pytest.raises(InvsrError, match=f"^{tmp_path / 'x.nrrd'}: .*{message}"):
        invsr.load(write(tmp_path / "x.nrrd", data, **header))


CHANGES = {
    "empty header": (lambda content: b"NRRD0005\n\n", r"damaged \(no dimension, type, encoding, sizes\)"),
    "another format": (lambda content: b"hello\n" * 100, "is not an NRRD file"),
    "version": (lambda content: content.replace(b"NRRD000", b"NRRD009"), "header is damaged .*version"),
    "cut": (lambda content: content[:-100], "is damaged or cut short"),
    "checksum": (lambda content: content[:-6] + b"xxxxxx", "is damaged or cut short"),
    "bit": (lambda content: content[:-100] + bytes([content[-100] ^ 4]) + content[-99:], "is damaged or cut short"),
    "no endian": (lambda content: content.replace(b"endian", b"ending"), r"damaged \(no endian\)"),
    "type": (lambda content: content.replace(b"int16", b"block"), "voxels of type block"),
    "huge": (lambda content: content.replace(b"6 7 5", b"30000 30000 9"), "the header is of 16200000000 bytes"),
    "negative": (lambda content: content.replace(b"6 7 5", b"-6 7 -5"), "the size -6x7x-5, which holds no voxels"),
    "no number": (lambda content: content.replace(b"6 7 5", b"6 x 5"), "damaged"),
    "not finite": (lambda content: content.replace(b"space origin: (", b"space origin: (inf"), "finite|damaged"),
    "twice": (lambda content: content.replace(b"kinds", b"sizes"), "header is damaged .*Duplicate"),
    "many files": (lambda content: content.replace(b"\n\n", b"\ndata file: LIST\na.raw\n"), "lie in several files"),
    "numbered": (lambda content: content.replace(b"\n\n", b"\ndata file: %d.raw 1 5 1\n\n"), "lie in several files"),
    "gone": (lambda content: content.replace(b"\n\n", b"\ndata file: gone.raw\n\n"), "gone.raw: cannot be opened"),
    "device": (lambda content: content.replace(b"\n\n", b"\ndata file: /dev/zero\n\n"), "is a pipe or a device"),
    "skip": (lambda content: content.replace(b"\n\n", b"\nbyte skip: -7\n\n"), "skips 0 lines and -7 bytes"),
    "skip all": (lambda content: content.replace(b"\n\n", b"\nline skip: 999999999\n\n"), "damaged or cut short"),
    "endless": (lambda content: b"NRRD0005\n" + b"#" * 3 * 2**20, "damaged"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_damaged_files(tmp_path, case):
    change, message = CHANGES[case]
    path = write(tmp_path / "x.nrrd", **fields())
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(InvsrError, match=message) as caught:
        invsr.load(path)
    assert "\n" not in str(caught.value)


def test_a_stream_that_unpacks_to_more_is_not_read_for_ever(tmp_path, monkeypatch):
    path = write(tmp_path / "x.nrrd", **fields())
    header = path.read_bytes().split(b"\n\n", 1)[0]
    path.write_bytes(header + b"\n\n" + gzip.compress(DATA.tobytes(order="F") + bytes(2**22)))
    monkeypatch.setattr(invsr.io.nrrd, "LARGEST_REST", 2)
    with pytest.warns(InvsrWarning, match="holds more than the 6x7x5 voxels of its header"):
        np.testing.assert_array_equal(invsr.load(path).numpy(), DATA)


@pytest.mark.parametrize(("place", "kind"), [(3, "list"), (0, "scalar")])
def test_a_fourth_axis_of_one_volume_is_left_out(tmp_path, place, kind):
    """As 3D Slicer writes a sequence of one volume."""
    header = fields(AFFINES["permuted"], thicknesses=[1.0, 1.0, 3.5])
    values = {"space directions": [np.nan] * 3, "kinds": kind, "thicknesses": np.nan}
    for name, value in values.items():
        header[name] = [*header[name][:place], value, *header[name][place:]]
    header["space directions"] = np.array(header["space directions"])
    volume = invsr.load(write(tmp_path / "x.nrrd", np.expand_dims(DATA, place), **header))
    np.testing.assert_array_equal(volume.numpy(), DATA)
    np.testing.assert_allclose(volume.grid.affine, AFFINES["permuted"], atol=1e-6)
    assert volume.grid == invsr.load(write(tmp_path / "y.nrrd", **fields(AFFINES["permuted"]))).grid


def test_there_is_one_volume_and_one_geometry(tmp_path):
    path = write(tmp_path / "x.nrrd", **fields())
    np.testing.assert_array_equal(invsr.load(path, 0).numpy(), DATA)
    with pytest.raises(InvsrError, match="x.nrrd: has no volume 1: it holds 1"):
        invsr.load(path, 1)
    with pytest.raises(InvsrError, match="a nrrd file has one geometry"):
        invsr.load(path, geometry="qform")
