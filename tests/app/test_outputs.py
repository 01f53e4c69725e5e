"""Outputs are written whole or not at all, and never over an input."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from scan_files import noise_image, refused

import invsr


def test_output_that_cannot_be_written(run, tmp_path, scan, monkeypatch):
    missing = tmp_path / "nowhere" / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", missing), missing, "nowhere", "does not exist")
    wrong = tmp_path / "out.png"
    refused(run("reconstruct", scan, "-o", wrong), wrong, ".nii")


def test_full_disk_leaves_nothing(run, tmp_path, scan):
    out = tmp_path / "result" / "out.nii"
    out.parent.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the file gets no larger
    try:
        done = run("reconstruct", scan, "-o", out, "--method", "cubic")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert done[0] == 1
    refused(done, out, "out.nii")
    assert list(out.parent.iterdir()) == []


def test_a_report_that_cannot_be_written_is_told_before_the_work(run, tmp_path, scan):
    (tmp_path / "file").write_text("")
    code, _, err = run("reconstruct", scan, "-o", tmp_path / "o.nii", "--report", tmp_path / "file")
    assert code == 1 and "no folder can be made there" in err and not (tmp_path / "o.nii").exists()


def test_a_report_of_a_run_that_fails_leaves_no_folder(run, tmp_path, scan):
    out, report = tmp_path / "o.nii", tmp_path / "new" / "report"
    refused(run("reconstruct", scan, "-o", out, "--model", "missing.safetensors", "--report", report), out, "missing")
    assert not report.parent.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names of other systems are text")
def test_a_file_name_that_is_no_text_is_shown_escaped(tmp_path):
    noise_image(tmp_path / "scan.nii.gz").rename(tmp_path / "\udcff.nii.gz")
    words = ("reconstruct", "\udcff.nii.gz", "-o", "\udcfe.nii.gz", "--method", "cubic", "--report", "report")
    done = subprocess.run(
        [sys.executable, "-m", "invsr", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert r"wrote \udcfe.nii.gz" in done.stdout and (tmp_path / "\udcfe.nii.gz").exists()
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert r"\udcff.nii.gz" in page
    assert "invsr reconstruct" in page and "__main__" not in page


def test_inputs_are_not_overwritten_and_not_given_twice(run, tmp_path, scan):
    before = scan.read_bytes()
    code, _, err = run("reconstruct", scan, "-o", scan)
    assert code == 1 and "is one of the inputs" in err and scan.read_bytes() == before
    mask = tmp_path / "mask.nii.gz"
    invsr.save(invsr.load(scan).with_data(torch.ones_like(invsr.load(scan).data)), mask)
    code, _, err = run("reconstruct", scan, "-o", mask, "--mask", mask)
    assert code == 1 and "is one of the inputs" in err
    std = scan.rename(tmp_path / "o_std.nii.gz")
    code, _, err = run("reconstruct", std, "-o", tmp_path / "o.nii.gz", "--uncertainty", "bootstrap")
    assert code == 1 and "o_std.nii.gz: is one of the inputs" in err and std.read_bytes() == before
    std.rename(scan)
    refused(run("reconstruct", scan, scan, "-o", tmp_path / "o.nii"), tmp_path / "o.nii", "is given twice")


def test_no_command_overwrites_its_inputs(run, tmp_path, scan):
    other, sidecar = tmp_path / "other.nii.gz", tmp_path / "scan.json"
    other.write_bytes(scan.read_bytes())
    sidecar.write_text("{}")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    there = {path: path.read_bytes() for path in (scan, other, sidecar, weights)}
    training = ("--data", tmp_path, "--out", weights, "--start-from", tmp_path / "." / "w.safetensors")
    for command in (
        ("simulate", scan, "-o", scan, "--slice-thickness", "4"),
        ("register", scan, other, "-o", sidecar),
        ("train", "denoiser", *training),
        ("train", "unrolled", *training),
    ):
        code, _, err = run(*command)
        assert code == 1 and "is one of the inputs" in err and len(err.splitlines()) == 1
    refused(run("register", scan, other, scan, "-o", tmp_path / "m.json"), tmp_path / "m.json", "is given twice")
    assert {path: path.read_bytes() for path in there} == there


def test_what_fails_in_describing_a_result_fails_before_it_is_written(run, tmp_path, scan, monkeypatch):
    def fails(_):
        raise invsr.InvsrError("no correlation")

    monkeypatch.setattr("invsr.pipeline.reconstruction.slice_correlation", fails)
    out = tmp_path / "o.nii"
    refused(run("reconstruct", scan, "-o", out, "--method", "cubic"), out, "no correlation")


def test_an_output_name_that_is_too_long_is_one_line_of_error(run, tmp_path, scan):
    code, _, err = run("reconstruct", scan, "-o", tmp_path / f"{'n' * 300}.nii.gz", "--mask", scan)
    assert code == 1 and "File name too long" in err and len(err.splitlines()) == 1
