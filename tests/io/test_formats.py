"""What is not a NIfTI file is called what it is, with a remedy, in one line that names the file."""

import bz2
import gzip
import lzma
import os
import re
import zipfile

import nibabel as nib
import numpy as np
import pytest

import invsr
from invsr.errors import InvsrError
from invsr.models.registry import holds_solver
from invsr.models.weights import load_weights
from invsr.motion import load_motion
from invsr.operators.profiles import read_profile

DATA = np.random.default_rng(0).random((6, 7, 5)).astype(np.float32)


@pytest.fixture
def nifti(tmp_path):
    """The bytes of a NIfTI file."""
    nib.Nifti1Image(DATA, np.eye(4)).to_filename(tmp_path / "ok.nii")
    return (tmp_path / "ok.nii").read_bytes()


def zipped(nifti, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ok.nii", nifti)


def half_a_pair(gone, kind=nib.Nifti1Pair):
    def make(nifti, path):
        kind(DATA, np.eye(4)).to_filename(path)
        path.with_suffix(gone).unlink(missing_ok=True)

    return make


def cifti(nifti, path):
    axes = nib.cifti2.ScalarAxis(["a"]), nib.cifti2.BrainModelAxis.from_mask(np.ones((3, 3, 3)), affine=np.eye(4))
    nib.Cifti2Image(np.zeros((1, 27)), nib.Cifti2Header.from_axes(axes)).to_filename(path)


def sform(*row):
    """The first row of the sform replaced."""

    def make(nifti, path):
        path.write_bytes(nifti[:280] + np.array(row, np.float32).tobytes() + nifti[296:])

    return make


def content(change):
    return lambda nifti, path: path.write_bytes(change(nifti))


# What is written, and what is said of it, by the file's name.
CASES = {
    "a.hdr": (half_a_pair(".img"), "is the header of a pair, and a.img, the voxels, is missing: put it beside"),
    "a.img": (half_a_pair(".hdr"), "is the voxels of a pair, and a.hdr, the header, is missing: put it beside"),
    "b.hdr": (half_a_pair("", nib.AnalyzeImage), "is Analyze 7.5, .* does not say how the patient lies: convert"),
    "b.img": (half_a_pair("", nib.AnalyzeImage), "is Analyze 7.5, .* does not say how the patient lies: convert"),
    "a.nii.bz2": (content(bz2.compress), "is compressed by bzip2, .*: unpack it"),
    "a.nii.gz": (content(bz2.compress), "is compressed by bzip2, .*: unpack it"),
    "b.nii.gz": (content(lzma.compress), "is compressed by xz, .*: unpack it"),
    "c.nii.gz": (zipped, "is a zip archive, .*: unpack it"),
    "d.nii.gz": (content(bytes), "is not gzip-compressed but named in .gz: remove .gz"),
    "a.nii.zst": (content(lambda nifti: b"\x28\xb5\x2f\xfd" + nifti), "is compressed by zstd, .*: unpack it"),
    "a.nii": (content(gzip.compress), "is gzip-compressed but its name does not end in .gz: rename it"),
    "b.nii": (content(lambda nifti: bytes(128) + b"DICM" + nifti), "is a DICOM file, .*dcm2niix"),
    "c.dcm": (content(bytes), "is a DICOM file, .*dcm2niix"),
    "a.mnc": (content(lambda nifti: b"CDF\x01" + nifti), "is a MINC file, .*mnc2nii"),
    "b.mnc": (content(lambda nifti: b"\x89HDF\r\n\x1a\n" + nifti), "is an HDF5 file .*mnc2nii"),
    "a+orig.BRIK": (content(bytes), "is one of AFNI's two files, .*3dAFNItoNIFTI"),
    "a+orig.HEAD": (content(bytes), "is one of AFNI's two files, .*3dAFNItoNIFTI"),
    "a.surf.gii": (content(lambda nifti: b"<?xml version"), "is an XML file .*: name a NIfTI file"),
    "a.dscalar.nii": (cifti, "is a CIFTI file .*: name a NIfTI scan"),
    "wide.nii": (sform(1e20, 0, 0, 0), r"gives voxels of 1e\+20x1x1 mm .*, which no scan has: repair its affine"),
    "thin.nii": (sform(1e-20, 0, 0, 0), "gives voxels of 1e-20x1x1 mm .*, which no scan has: repair its affine"),
    "far.nii": (sform(1, 0, 0, 1e20), r"the origin 1e\+20x0x0 mm, which no scan has: repair its affine"),
    "denormal.nii": (sform(1e-40, 0, 0, 0), "voxel"),
    "link.nii": (lambda nifti, path: path.symlink_to("gone.nii"), "it is a link to gone.nii, which is missing"),
    "loop.nii": (lambda nifti, path: path.symlink_to("loop.nii"), "cannot be opened .*: "),
    "folder.nii": (lambda nifti, path: path.mkdir(), "is a folder: name one NIfTI file"),
    "pipe.nii": (lambda nifti, path: os.mkfifo(path), "is a pipe or a device, .*: copy the scan into a file"),
    "pipe.mgz": (lambda nifti, path: os.mkfifo(path), "is a pipe or a device, .*: copy the scan into a file"),
    "n" * 300 + ".nii": (lambda nifti, path: None, "cannot be opened .File name too long.: check the path"),
    "n" * 300 + ".mgz": (lambda nifti, path: None, "cannot be opened .File name too long.: check the path"),
}


@pytest.mark.filterwarnings("ignore::invsr.errors.InvsrWarning")
@pytest.mark.parametrize("name", CASES, ids=lambda name: name[-20:])
def test_says_what_a_file_is_and_what_to_do(tmp_path, nifti, name):
    make, message = CASES[name]
    make(nifti, tmp_path / name)
    with pytest.raises(InvsrError, match=f"^{re.escape(str(tmp_path / name))}: .*{message}") as caught:
        invsr.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_device_is_not_read():
    with pytest.raises(InvsrError, match="/dev/zero: is a pipe or a device"):
        invsr.load("/dev/zero")


@pytest.mark.parametrize("name", ["a\0b.nii", "\ud800.nii"])
def test_a_path_that_the_system_cannot_have(tmp_path, name):
    with pytest.raises(InvsrError, match="is no file name .*: check the path"):
        invsr.load(tmp_path / name)


def test_a_name_that_leaves_no_room_for_its_sidecar_is_read(tmp_path, nifti):
    path = tmp_path / ("n" * 251 + ".nii")
    path.write_bytes(nifti)
    np.testing.assert_array_equal(invsr.load(path).numpy(), DATA)


@pytest.mark.parametrize("size", [0, 7, 2**31 - 1])
def test_damaged_extension_blocks_do_not_matter(tmp_path, size, recwarn):
    image = nib.Nifti1Image(DATA, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    image.to_filename(tmp_path / "x.nii")
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[352:356] = size.to_bytes(4, "little")
    (tmp_path / "x.nii").write_bytes(content)
    np.testing.assert_array_equal(invsr.load(tmp_path / "x.nii").numpy(), DATA)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["n" * 300, "pipe", "folder"])
@pytest.mark.parametrize(
    "read", [read_profile, load_motion, load_weights, holds_solver], ids=lambda read: read.__name__
)
def test_other_inputs_are_regular_files(tmp_path, read, name):
    path = tmp_path / f"{name}.safetensors"
    if name == "pipe":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    if read is holds_solver:
        assert not read(path)
        return
    with pytest.raises(InvsrError, match=re.escape(f"{name}.safetensors")):
        read(path)
