"""Files made to do harm are refused by one line, and take no memory for what they only claim to hold."""

import gzip
import json
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save

import invsr
from invsr.errors import InvsrError, InvsrWarning
from invsr.io import bounds
from invsr.models.networks import DnCNN
from invsr.models.registry import holds_solver
from invsr.models.weights import LARGEST_HEADER, describe, load_weights
from invsr.motion import load_motion
from invsr.numerics import memory
from invsr.operators.profiles import read_profile

MIB = 2**20
DEEP = "[" * 100_000 + "]" * 100_000


def peak_of(work):
    """Largest memory that Python and numpy took meanwhile, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(work, *words, most=64 * MIB):
    """One line of error with these words, at the cost of little memory."""

    def run():
        with pytest.raises(InvsrError) as error:
            work()
        assert "\n" not in str(error.value)
        for word in words:
            assert word in str(error.value), error.value

    assert peak_of(run) < most


def header_of(shape, dtype=np.uint8, offset=352):
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms((1, 1, 4))
    header.set_sform(np.diag([1.0, 1, 4, 1]), 1)
    header["vox_offset"], header["magic"] = offset, b"n+1"
    return header.binaryblock


# Volumes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2000, 32767])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxels_that_the_file_cannot_hold_take_no_memory(tmp_path, side, ending):
    content = header_of((side,) * 3) + bytes(MIB)
    path = tmp_path / f"claims{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    refused(lambda: invsr.load(path), path.name, "the file holds")


def test_voxels_that_the_memory_cannot_hold_are_refused_with_what_is_free(tmp_path, monkeypatch):
    """A file with a hole has any size on the disk's paper."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**30)
    path = tmp_path / "large.nii"
    path.write_bytes(header_of((1000, 1000, 300)))
    os.truncate(path, 352 + 3 * 10**8)
    refused(lambda: invsr.load(path), "1000x1000x300 voxels", "1.1 GiB of memory and 1.0 GiB are free")
    monkeypatch.setattr(memory, "free_memory", lambda device: 100)
    small = tmp_path / "small.nii.gz"
    small.write_bytes(gzip.compress(header_of((4, 5, 6)) + bytes(4 + 120)))
    refused(lambda: invsr.load(small), "4x5x6 voxels", "are free")


@pytest.mark.parametrize("more", [0, 3, 300])
def test_a_gzip_stream_is_not_read_far_beyond_its_voxels(tmp_path, monkeypatch, more):
    monkeypatch.setattr("invsr.io.nifti.LARGEST_REST", 4 * MIB)
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header_of((4, 5, 6)) + bytes(4) + bytes([7]) * 120 + bytes(more * MIB), 1))
    read = []
    reading = gzip.GzipFile.read

    def counted(self, size=-1):
        found = reading(self, size)
        read.append(len(found))
        return found

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    volumes = []
    if more > 4:
        with pytest.warns(InvsrWarning, match="holds more than the 4x5x6 voxels of its header"):
            assert peak_of(lambda: volumes.append(invsr.load(path))) < 16 * MIB
    else:
        volumes.append(invsr.load(path))
    assert (volumes[0].numpy() == 7).all()
    assert sum(read) < min(more, 4) * MIB + 10_000


def test_a_header_extension_of_2_gb_is_not_read(tmp_path):
    path = tmp_path / "extension.nii.gz"
    claim = bytes([1, 0, 0, 0]) + struct.pack("<2i", 2**31 - 16, 6)
    content = header_of((4, 5, 6), offset=20 * MIB) + claim
    path.write_bytes(gzip.compress(content.ljust(20 * MIB, b"x") + bytes([7]) * 120, 1))
    volumes = []
    assert peak_of(lambda: volumes.append(invsr.load(path))) < 8 * MIB
    assert (volumes[0].numpy() == 7).all()


@pytest.mark.parametrize("shape", [(2000, 2000, 2000, 1), (2**31 - 1,) * 4, (-4, 5, 6, 1)])
@pytest.mark.parametrize("ending", [".mgh", ".mgz"])
def test_freesurfer_files_are_held_to_their_size(tmp_path, shape, ending):
    content = struct.pack(">6i", 1, *shape, 3) + bytes(MIB)
    path = tmp_path / f"claims{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".mgz" else content)
    refused(lambda: invsr.load(path), path.name)


# Text -----------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([1.0, 1, 4, 1])), path)
    return path


READERS = {
    "sidecar": ("scan.json", lambda path: invsr.load(path.with_suffix(".nii"))),
    "motion": ("motion.json", load_motion),
    "profile": ("profile.txt", read_profile),
}


@pytest.mark.parametrize("reader", READERS)
def test_text_without_end_is_not_read(tmp_path, scan, reader):
    name, read = READERS[reader]
    path = tmp_path / name
    path.write_bytes(b"1 1\n")
    os.truncate(path, 2**33)
    refused(lambda: read(path), name, "longer than")


@pytest.mark.parametrize("reader", ["sidecar", "motion"])
@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "1" * 10**6, '{"centre": ' + "9" * 10**6 + "}"])
def test_json_that_is_too_deep_or_has_endless_numbers_is_refused(tmp_path, scan, reader, text):
    name, read = READERS[reader]
    (tmp_path / name).write_text(text)
    refused(lambda: read(tmp_path / name), name)


def test_text_of_the_largest_size_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "LARGEST_TEXT", 4)
    path = tmp_path / "text"
    path.write_text("1234")
    assert bounds.read_text(path) == "1234"
    path.write_text("12345")
    with pytest.raises(ValueError, match="longer than 4 bytes"):
        bounds.read_text(path)


# Weights and checkpoints ----------------------------------------------------------------------------


def packed(header, data=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape, *offsets):
    return {"__metadata__": {"invsr": "{}"}, "w": {"dtype": "F16", "shape": shape, "data_offsets": offsets}}


WEIGHTS = {
    "header of 100 MB": struct.pack("<Q", 10**8) + b"{" + bytes(1000),
    "header of 2^64": b"\xff" * 8 + b"{}",
    "cut short": struct.pack("<Q", 1000) + b"{}",
    "three bytes": b"abc",
    "offsets outside": packed(tensor([1000], 0, 2000), bytes(10)),
    "offsets backwards": packed(tensor([4], 8, 0), bytes(8)),
    "an enormous shape": packed(tensor([2**40, 2**40], 0, 8), bytes(8)),
    "an infinite shape": packed(tensor([2**63, 2**63], 0, 8), bytes(8)),
    "a deep header": packed(DEEP.encode()),
    "a deep description": packed({"__metadata__": {"invsr": DEEP}}),
    "a header that is a list": packed(b"[]"),
    "metadata that is a number": packed({"__metadata__": 3}),
    "pickled": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_hostile_weights_are_refused(tmp_path, name):
    path = tmp_path / "w.safetensors"
    path.write_bytes(WEIGHTS[name])
    refused(lambda: load_weights(path), str(path), "not a weights file")
    assert not holds_solver(path)


def test_a_network_far_larger_than_the_weights_for_it_is_not_made(tmp_path, monkeypatch):
    made = []

    class Watched(DnCNN):
        def __init__(self, **config):
            super().__init__(**config)
            made.append(next(self.parameters()).device.type)

    monkeypatch.setattr("invsr.models.architectures.DnCNN", Watched)
    path = tmp_path / "w.safetensors"
    about = {"architecture": "DnCNN", "config": {"channels": 2000, "depth": 20}}
    path.write_bytes(save({"w": torch.zeros(4).half()}, {"invsr": json.dumps(about)}))
    refused(lambda: load_weights(path), "the file has 4")
    assert made == ["meta"]


def test_weights_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    network, path = DnCNN(channels=2, depth=2), tmp_path / "w.safetensors"
    path.write_bytes(save(network.state_dict(), {"invsr": json.dumps(describe(network))}))
    assert load_weights(path)[0].config == network.config
    monkeypatch.setattr(memory, "free_memory", lambda device: path.stat().st_size)
    refused(lambda: load_weights(path), "weights", "are free")
    assert 100 * path.stat().st_size < LARGEST_HEADER


def test_a_checkpoint_that_is_compressed_is_not_unpacked(tmp_path):
    """Torch stores what it writes; a compressed part may unpack to a thousand times its size."""
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    from invsr.training.loop import _resume

    plain, path = tmp_path / "plain.ckpt", tmp_path / "w.ckpt"
    torch.save({"recipe": "{}", "x": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    assert path.stat().st_size < plain.stat().st_size / 10
    refused(lambda: _resume(fabric, path, {"recipe": "{}"}), str(path), "delete it")
    state = {"recipe": "{}", "x": torch.ones(10**6)}
    _resume(fabric, plain, state)
    assert not state["x"].any()


# What could run code --------------------------------------------------------------------------------


def test_nothing_is_unpickled():
    """Every reading of torch's or numpy's files in the package says that it takes no objects."""
    lines = [
        (path.name, line)
        for path in Path(invsr.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(
            call in line for call in ("torch.load(", "np.load(", "fabric.load(", "pickle.load", "yaml.load", "eval(")
        )
    ]
    safe = ("weights_only=True", "allow_pickle=False", ".eval()", "eval_str", "pickle.dumps(")
    unsafe = [(name, line.strip()) for name, line in lines if not any(word in line for word in safe)]
    assert lines and not unsafe
