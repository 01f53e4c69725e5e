"""Every file of the package is written whole or not at all."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import invsr
from invsr.grid import Grid
from invsr.io import save
from invsr.io.files import check_folder, check_writable, make_folder, whole_file, write_whole
from invsr.models.networks import DnCNN
from invsr.models.weights import save_weights
from invsr.motion import Motion, ScanMotion, save_motion
from invsr.training.loop import save_checkpoint

GRID = Grid((4, 5, 6), np.eye(4))


def a_volume(path):
    save(invsr.Volume(torch.ones(1, 1, *GRID.shape), GRID), path)


def some_weights(path):
    save_weights(DnCNN(channels=2, depth=2), path, {})


def a_motion(path):
    save_motion(Motion(np.zeros(3), (ScanMotion("scan", GRID, np.zeros((6, 6)), np.ones(6)),)), path)


def a_checkpoint(path):
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    save_checkpoint(fabric, path, {"step": 3})


WRITERS = {
    "scan.nii.gz": a_volume,
    "notes.txt": lambda path: write_whole(path, "some words"),
    "weights.safetensors": some_weights,
    "motion.json": a_motion,
    "weights.ckpt": a_checkpoint,
}


@pytest.fixture(params=WRITERS)
def writer(request, tmp_path):
    return WRITERS[request.param], tmp_path / request.param


@pytest.mark.parametrize("older", [False, True])
def test_on_a_full_disk_an_older_file_stays_and_no_other_is_left(writer, monkeypatch, older):
    write, path = writer
    if older:
        path.write_bytes(b"older")
    before = sorted(os.listdir(path.parent))

    def fails(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(invsr.InvsrError, match="could not be written .No space left on device.: free some space") as e:
        write(path)
    assert str(e.value).startswith(f"{path}: ")
    assert sorted(os.listdir(path.parent)) == before
    assert not older or path.read_bytes() == b"older"


def test_a_new_file_replaces_an_older_one(writer):
    write, path = writer
    path.write_bytes(b"older")
    write(path)
    assert path.read_bytes() != b"older"
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]


def test_a_folder_is_checked_without_a_trace(tmp_path):
    check_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(invsr.InvsrError, match="no folder can be made there"):
            check_folder(path)
    assert os.listdir(tmp_path) == ["file"]
    make_folder(tmp_path / "a" / "b")
    check_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a") == ["b"] and os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_leaves_nothing(tmp_path, error):
    path = tmp_path / "notes.txt"
    with pytest.raises(error), whole_file(path) as part:
        part.write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_what_killed_processes_left_is_removed_a_day_later(tmp_path):
    day = 86400
    names = {
        ".invsr-0123456789abcdef.nii.gz": (1.1, False),
        ".invsr-0123456789abcdee.nii.gz": (0.9, True),  # another process may be writing it
        ".invsr-notes.txt": (9, True),
        "scan.nii.gz": (9, True),
    }
    now = time.time()
    for name, (days, _) in names.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - days * day,) * 2)
    write_whole(tmp_path / "new.txt", "some words")
    assert set(os.listdir(tmp_path)) == {"new.txt", *(name for name, (_, stays) in names.items() if stays)}


def test_a_signal_while_a_part_is_removed_leaves_none(tmp_path, monkeypatch):
    unlink, signals = Path.unlink, [KeyboardInterrupt]

    def interrupted(path, *more, **how):
        if signals:
            raise signals.pop()
        unlink(path, *more, **how)

    monkeypatch.setattr(Path, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_writable(tmp_path / "scan.nii")
    assert os.listdir(tmp_path) == []
