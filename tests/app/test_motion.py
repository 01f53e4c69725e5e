"""Motion of several scans: registered, estimated on the way, kept in files."""

import numpy as np
import pytest
import torch
from moving import scan_of
from scan_files import refused

import invsr
from invsr.examples import example


@pytest.fixture
def stacks(tmp_path, phantom):
    paths = []
    for n, axis in enumerate((2, 0)):
        path = tmp_path / f"stack{n}.nii.gz"
        invsr.save(invsr.simulate(phantom, slice_thickness=4.0, axis=axis, noise=0.01, seed=n), path)
        paths.append(path)
    return paths


def test_motion_is_registered_and_used(run, tmp_path, stacks):
    code, text, err = run("register", *stacks, "-o", tmp_path / "m.json", "--slice-thickness", 4, 4)
    assert code == 0, err
    assert "stack1.nii.gz: moved 0.0" in text
    assert sorted(p.name for p in tmp_path.glob("m*")) == ["m-1.tfm", "m-2.tfm", "m.json"]
    out = tmp_path / "out.nii.gz"
    code, text, err = run(
        "reconstruct",
        *stacks,
        "-o",
        out,
        "--transforms",
        tmp_path / "m.json",
        "--method",
        "tikhonov",
        "--slice-thickness",
        4,
        4,
    )
    assert code == 0, err
    assert out.exists() and "stack1.nii.gz: moved 0.0" in text


def test_estimated_motion_is_kept_beside_the_result(run, tmp_path, stacks):
    out = tmp_path / "out.nii.gz"
    code, _, err = run(
        "reconstruct", *stacks, "-o", out, "--motion", "stack", "--method", "tikhonov", "--slice-thickness", 4, 4
    )
    assert code == 0, err
    found = sorted(p.name for p in tmp_path.glob("out*"))
    assert found == ["out.nii.gz", "out_motion-1.tfm", "out_motion-2.tfm", "out_motion.json"]


def test_packages_that_turned_are_noted(run, tmp_path):
    """As in Python: once, on the grid that is asked for, and not where the data are to be kept as they are."""
    truth = example(48)
    motion = torch.zeros(12, 6, dtype=torch.float64)
    motion[1::2] = torch.tensor([np.deg2rad(3), 0, 0, 0, 0, 1.5])
    path, out = tmp_path / "moved.nii.gz", tmp_path / "out.nii.gz"
    invsr.save(scan_of(truth, motion=motion), path)
    words = ("reconstruct", path, "-o", out, "--method", "cubic", "--spacing", 2)
    code, text, err = run(*words)
    assert code == 0, err
    note = "moved.nii.gz: packages of slices that were acquired by turns moved against each other by"
    assert (text + err).count(note) == 1
    out.unlink()
    code, text, err = run(*words, "--faults", "keep")
    assert code == 0 and note not in text + err


def test_motion_that_cannot_be(run, tmp_path, stacks):
    out = tmp_path / "out.nii.gz"
    refused(run("reconstruct", stacks[0], "-o", out, "--motion", "slice"), out, "give at least two")
    refused(run("reconstruct", *stacks, "-o", out, "--motion", "voxel"), out, "unknown motion 'voxel'")
    missing = tmp_path / "none.json"
    refused(run("reconstruct", *stacks, "-o", out, "--transforms", missing), out, "none.json", "no such file")
    both = ("--transforms", missing, "--motion", "stack")
    refused(run("reconstruct", *stacks, "-o", out, *both), out, "either given or estimated")
    refused(run("register", stacks[0], "-o", missing), missing, "give at least two")
    refused(run("register", *stacks, "-o", tmp_path / "m.txt"), tmp_path / "m.txt", ".json")
