"""The command line as a user meets it: files in, a file out."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_files import image, noise_image, refused

import invsr
from invsr.app.arguments import repeat_options


def test_simulate_reconstruct_evaluate(run, tmp_path, phantom):
    high, low = tmp_path / "high.nii.gz", tmp_path / "low.nii.gz"
    invsr.save(phantom, high)
    code, out, _ = run(
        "simulate", high, "-o", low, "--slice-thickness", "3", "--gap", "1", "--axis", "k", "--noise", ".02"
    )
    assert code == 0 and "slices of 3 mm" in out and "reconstruct with --slice-thickness 3" in out
    assert invsr.load(low).grid.shape == (40, 36, 8)
    scores = {}
    for method in ("cubic", "tikhonov", "tv"):
        result = tmp_path / f"{method}.nii.gz"
        code, out, err = run(
            "reconstruct", low, "-o", result, "--reference", high, "--method", method, "--slice-thickness", "3"
        )
        assert code == 0 and "chi2" in out, err
        code, out, _ = run("evaluate", result, "--truth", high, "--json")
        assert code == 0
        scores[method] = json.loads(out)["psnr"]
    assert scores["tv"] > max(scores["cubic"], scores["tikhonov"]) + 0.3


def test_output_covers_the_field_of_view_and_keeps_intensities(run, tmp_path, scan):
    out = tmp_path / "out.nii.gz"
    report = tmp_path / "report"
    code, said, _ = run("reconstruct", scan, "-o", out, "--report", report)
    assert code == 0
    before, after = invsr.load(scan), invsr.load(out)
    assert after.grid == before.grid.refine(1.0)
    assert abs(float(after.data.mean() / before.data.mean()) - 1) < 0.01
    record = json.loads((report / "report.json").read_text())
    assert record["status"] == "converged" and 0.7 < record["chi2"] < 1.3
    assert f"chi2 {record['chi2']:.3f}" in said
    assert record["sha256"]["scan.nii.gz"] and "--report" in record["command"]
    assert (report / "report.html").stat().st_size > 10_000


def test_same_command_same_file(run, tmp_path, scan):
    for name in ("a.nii", "b.nii"):
        assert run("reconstruct", scan, "-o", tmp_path / name, "--quiet") == (0, "", "")
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_sidecar_sets_the_thickness(run, tmp_path, scan):
    out = tmp_path / "out.nii"
    run("reconstruct", scan, "-o", out, "--quiet")
    plain = out.read_bytes()
    (tmp_path / "scan.json").write_text('{"SliceThickness": 2.5}')
    run("reconstruct", scan, "-o", out, "--quiet")
    told = out.read_bytes()
    run("reconstruct", scan, "-o", out, "--quiet", "--slice-thickness", "2.5")
    assert told == out.read_bytes() != plain


def test_two_scans_and_masks(run, tmp_path, phantom):
    paths, masks = [], []
    for n, axis in enumerate((2, 0)):
        simulated = invsr.simulate(phantom, slice_thickness=4.0, axis=axis, noise=0.02, seed=n)
        paths.append(tmp_path / f"scan{n}.nii.gz")
        masks.append(tmp_path / f"mask{n}.nii.gz")
        invsr.save(simulated, paths[-1])
        invsr.save(simulated.with_data(torch.ones_like(simulated.data)), masks[-1])
    high = tmp_path / "high.nii.gz"
    invsr.save(phantom, high)
    errors = []
    for count in (1, 2):
        out = tmp_path / "out.nii.gz"
        code, _, err = run(
            "reconstruct",
            *paths[:count],
            "-o",
            out,
            "--reference",
            high,
            "--mask",
            *masks[:count],
            "--slice-thickness",
            *["4"] * count,
        )
        assert code == 0, err
        errors.append(float((invsr.load(out).data - phantom.data).square().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_progress_is_written_only_to_a_terminal(scan, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "invsr", "reconstruct", scan, "-o", tmp_path / "o.nii"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""


def test_interrupted(run, tmp_path, scan, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("invsr.pipeline.run"), "reconstruct", stopped)
    code, _, err = run("reconstruct", scan, "-o", tmp_path / "out.nii")
    assert code == 130 and err == "invsr: error: interrupted: no unfinished file is left\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_standard_output_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "invsr", "models"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "invsr: error: standard output could not be written (No space left on device): "
        "free some space or write elsewhere\n"
    )


def test_options_that_take_several_values_are_repeated():
    assert repeat_options(["reconstruct", "a", "b", "-o", "o", "--mask", "m", "n"])[-4:] == [
        "--mask",
        "m",
        "--mask",
        "n",
    ]
    words = ["reconstruct", "--mask", "m", "a", "b", "-o", "o"]
    assert repeat_options(words) == words
    words = ["reconstruct", "--slice-thickness", "3", "3.3", "a", "b", "--quiet", "c"]
    assert repeat_options(words) == words[:3] + ["--slice-thickness"] + words[3:]


def test_scores_that_are_not_finite_are_null_in_json(run, tmp_path):
    path = noise_image(tmp_path / "a.nii.gz", np.eye(4), (12, 12, 12))
    mask = image(tmp_path / "m.nii.gz", np.ones((12, 12, 12)), np.eye(4))
    code, out, err = run("evaluate", path, "--truth", path, "--mask", mask, "--json")
    assert code == 0, err

    def refuse(word):
        raise ValueError(word)

    assert json.loads(out, parse_constant=refuse)["psnr"] is None


def test_register_simulate_and_evaluate_take_the_geometry_that_is_asked_for(run, tmp_path, phantom):
    """An sform of 1 mm and a qform of 2 mm between slices."""
    path = tmp_path / "high.nii"
    volume = nib.Nifti1Image(phantom.numpy(), np.eye(4))
    volume.set_qform(np.diag([1.0, 1, 2, 1]), 1)
    volume.set_sform(np.eye(4), 1, update_affine=False)
    nib.save(volume, path)
    low = tmp_path / "low.nii"
    code, text, err = run("simulate", path, "-o", low, "--slice-thickness", "4", "--geometry", "qform")
    assert code == 0 and "warning" not in err and "40x36x16" in text
    code, text, err = run("evaluate", path, "--truth", path, "--geometry", "pixdim")
    assert code == 0 and "--geometry decides" not in err
    refused(
        run("simulate", path, "-o", tmp_path / "o.nii", "--slice-thickness", "4", "--geometry", "x"),
        tmp_path / "o.nii",
        "unknown geometry",
    )
    other = tmp_path / "other.nii"
    other.write_bytes(path.read_bytes())
    out = tmp_path / "m.json"
    for axis, shape in (("i", 40), ("k", 32)):
        code, _, err = run(
            "register",
            path,
            other,
            "-o",
            out,
            "--slice-axis",
            axis,
            "--geometry",
            "qform",
            "--slice-thickness",
            "2",
            "--spacing",
            "4",
        )
        assert code == 0 and "sform" not in err, err
        first = json.loads(out.read_text())["scans"][0]
        assert len(first["motion"]) == shape and first["affine"][2][2] == 2
