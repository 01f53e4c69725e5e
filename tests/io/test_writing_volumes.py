"""Volumes come back as they were written, whole files or none."""

import errno
import os
import stat

import nibabel as nib
import numpy as np
import pytest
import torch
from volume_files import ORIENTATIONS, SHAPE, load_quietly, load_with_warning, refuses, volume_of, write

from invsr.io.files import check_writable
from invsr.io.nifti import load, save


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
