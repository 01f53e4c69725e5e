"""NIfTI files that cannot be used are refused by one line that names the file."""

import builtins
import errno
import gzip
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from volume_files import SHAPE, affine_of, load_quietly, refuses, voxels, write

from invsr.errors import InvsrError
from invsr.io.nifti import load


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
