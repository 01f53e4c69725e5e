"""The command line as a user meets it: files in, a file out, or one line that says what is wrong."""

import gzip
import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import invsr
from invsr.app.arguments import repeat_options
from invsr.models import engines
from invsr.models.networks import UNet
from invsr.testing.phantoms import centred_grid, shapes

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def phantom():
    grid = centred_grid((40, 36, 32), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=40.0), grid, "phantom.nii.gz")


@pytest.fixture
def scan(tmp_path, phantom):
    path = tmp_path / "scan.nii.gz"
    invsr.save(invsr.simulate(phantom, slice_thickness=4.0, axis=2, noise=0.02), path)
    return path


def image(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def noise_image(path, affine=AFFINE, shape=(12, 10, 6)):
    return image(path, np.random.default_rng(0).random(shape), affine)


def refused(result, out, *words):
    """Exit code not 0, one line on standard error with these words, no output file and nothing beside it."""
    code, _, err = result
    assert code != 0
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("invsr: error: ")
    for word in words:
        assert word in lines[0], lines[0]
    assert not out.exists()
    if out.parent.is_dir():
        assert not list(out.parent.glob(".invsr*"))


# The main job ---------------------------------------------------------------------------------------


def test_simulate_reconstruct_evaluate(run, tmp_path, phantom):
    high, low = tmp_path / "high.nii.gz", tmp_path / "low.nii.gz"
    invsr.save(phantom, high)
    code, out, _ = run(
        "simulate", high, "-o", low, "--slice-thickness", "3", "--gap", "1", "--axis", "k", "--noise", ".02"
    )
    assert code == 0 and "3 mm" in out
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


# Bad input ------------------------------------------------------------------------------------------


def bad_files(folder):
    """Name -> (file, words that its error names)."""
    rng = np.random.default_rng(0)
    good = noise_image(folder / "good.nii.gz")
    cut = folder / "cut.nii.gz"
    cut.write_bytes(good.read_bytes()[:900])
    text = folder / "text.nii.gz"
    text.write_text("not an image")
    zipped = folder / "zipped.nii.gz"
    zipped.write_bytes(gzip.compress(b"not an image" * 100))
    empty = folder / "empty.nii.gz"
    empty.write_bytes(b"")
    singular, sheared = AFFINE.copy(), AFFINE.copy()
    singular[:3, 1] = singular[:3, 0]
    sheared[0, 2] = 1.0
    zero, negative = folder / "zero.nii", folder / "negative.nii"
    for path, value in ((zero, 0.0), (negative, -4.0)):
        noise_image(path)
        raw = bytearray(path.read_bytes())
        raw[88:92] = np.float32(value).tobytes()  # pixdim[3]
        path.write_bytes(raw)
    return {
        "missing": (folder / "missing.nii.gz", "cannot be opened"),
        "folder": (folder, "folder"),
        "not a NIfTI": (zipped, "NIfTI"),
        "truncated": (cut, "damaged or cut short"),
        "text": (text, "gzip"),
        "empty": (empty, "0 bytes"),
        "2-D": (image(folder / "flat.nii.gz", rng.random((8, 8))), "2-D"),
        "one slice": (image(folder / "one.nii.gz", rng.random((8, 8, 1))), "single slice"),
        "all NaN": (image(folder / "nan.nii.gz", np.full((8, 8, 4), np.nan)), "finite"),
        "constant": (image(folder / "constant.nii.gz", np.full((8, 8, 4), 7.0)), "every voxel is 7"),
        "zero spacing": (zero, "above zero"),
        "negative spacing": (negative, "above zero"),
        "singular": (noise_image(folder / "singular.nii.gz", singular), "singular"),
        "sheared": (noise_image(folder / "sheared.nii.gz", sheared), "sheared"),
        "4-D": (image(folder / "four.nii.gz", rng.random((8, 8, 4, 3))), "--volume"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "folder",
        "not a NIfTI",
        "truncated",
        "text",
        "empty",
        "2-D",
        "one slice",
        "all NaN",
        "constant",
        "zero spacing",
        "negative spacing",
        "singular",
        "sheared",
        "4-D",
    ],
)
def test_bad_scan(run, tmp_path, case):
    path, words = bad_files(tmp_path)[case]
    out = tmp_path / "result" / "out.nii.gz"
    out.parent.mkdir()
    refused(run("reconstruct", path, "-o", out), out, words, path.name)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--slice-thickness", "0"], "slice thickness"),
        (["--slice-thickness", "-4"], "slice thickness"),
        (["--slice-thickness", "nan"], "slice thickness"),
        (["--slice-thickness", "4", "4"], "2 values of slice thickness for 1 scans"),
        (["--slice-profile", "triangle"], "triangle"),
        (["--in-plane", "cubic"], "in-plane"),
        (["--method", "magic"], "magic"),
        (["--spacing", "1x1"], "--spacing"),
        (["--spacing", "0"], "spacing"),
        (["--spacing", "0.01"], "4000 voxels along axis i"),
        (["--spacing", "0.03"], "GiB"),
        (["--noise", "-1"], "noise"),
        (["--noise-model", "poisson"], "poisson"),
        (["--lam", "none"], "--lam"),
        (["--device", "abacus"], "abacus"),
        (["--device", "meta"], "device 'meta' cannot be used"),
    ],
)
def test_bad_option(run, tmp_path, scan, options, words):
    out = tmp_path / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", out, *options), out, words)


def test_reference_and_scans_must_overlap(run, tmp_path, scan):
    away = AFFINE.copy()
    away[:3, 3] = 500
    other, out = noise_image(tmp_path / "other.nii.gz", away), tmp_path / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", out, "--reference", other), out, "does not overlap", "scan.nii.gz")
    refused(run("reconstruct", scan, other, "-o", out), out, "does not overlap any other scan", "scan.nii.gz")


def test_mask_on_another_grid_or_empty(run, tmp_path, scan):
    out = tmp_path / "out.nii.gz"
    other = noise_image(tmp_path / "mask.nii.gz")
    refused(run("reconstruct", scan, "-o", out, "--mask", other), out, "mask.nii.gz", "lies on")
    grid = invsr.load(scan).grid
    empty = image(tmp_path / "empty_mask.nii.gz", np.zeros(grid.shape), grid.affine)
    refused(run("reconstruct", scan, "-o", out, "--mask", empty), out, "empty")


def test_output_that_cannot_be_written(run, tmp_path, scan, monkeypatch):
    missing = tmp_path / "nowhere" / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", missing), missing, "nowhere", "does not exist")
    wrong = tmp_path / "out.png"
    refused(run("reconstruct", scan, "-o", wrong), wrong, ".nii")


def test_full_disk_leaves_nothing(tmp_path, scan):
    out = tmp_path / "result" / "out.nii"
    out.parent.mkdir()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731  # the file gets no larger
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from invsr.app.command_line import main; main()",
            "reconstruct",
            scan,
            "-o",
            out,
            "--method",
            "cubic",
        ],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("invsr: error: ") and len(done.stderr.splitlines()) == 1
    assert list(out.parent.iterdir()) == []


def test_too_few_voxels_for_a_noise_estimate(run, tmp_path):
    out = tmp_path / "out.nii.gz"
    tiny = noise_image(tmp_path / "tiny.nii.gz", shape=(4, 4, 3))
    refused(run("reconstruct", tiny, "-o", out), out, "tiny.nii.gz", "--noise")
    assert run("reconstruct", tiny, "-o", out, "--noise", "0.1")[0] == 0


def test_evaluate_needs_one_grid(run, tmp_path, scan):
    code, _, err = run("evaluate", scan, "--truth", noise_image(tmp_path / "other.nii.gz"))
    assert code == 1 and "--reference" in err and len(err.splitlines()) == 1


def test_simulate_refuses(run, tmp_path, scan):
    out = tmp_path / "low.nii.gz"
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "-1"), out, "slice thickness")
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "900"), out, "do not fit")
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "8", "--axis", "z"), out, "--axis")


def test_warning_is_one_line(run, tmp_path):
    data = np.random.default_rng(0).random((12, 12, 5))
    data[0, 0, 0] = np.nan
    code, _, err = run("reconstruct", image(tmp_path / "holes.nii.gz", data), "-o", tmp_path / "o.nii", "--quiet")
    assert code == 0
    assert err.splitlines() == [
        line for line in err.splitlines() if line.startswith("invsr: warning: ") and "1 NaN" in line
    ]


def test_posterior_writes_mean_deviation_and_samples(run, scan, tmp_path):
    out = tmp_path / "iso.nii.gz"
    options = ("--method", "posterior", "--samples", 2, "--denoiser", "mri-denoiser-fast", "--spacing", "2")
    code, said, err = run("reconstruct", scan, "-o", out, *options)
    assert code == 0, err
    mean, std, *samples = (
        nib.load(tmp_path / f"iso{what}.nii.gz").get_fdata() for what in ("", "_std", "_sample-1", "_sample-2")
    )
    assert all(str(tmp_path / f"iso_{what}.nii.gz") in said for what in ("std", "sample-1", "sample-2"))
    np.testing.assert_allclose(mean, np.mean(samples, 0), atol=1e-4)
    assert std.shape == mean.shape and std.min() >= 0 and std.max() > 0.01
    refused(run("reconstruct", scan, "-o", tmp_path / "x.nii", *options, "--samples", 1), tmp_path / "x.nii", "samples")


def test_bootstrap_writes_a_deviation_beside_any_method(run, scan, tmp_path):
    options = ("--samples", 2, "--uncertainty", "bootstrap", "--spacing", "2")
    code, _, err = run("reconstruct", scan, "-o", tmp_path / "iso.nii.gz", "--method", "cubic", *options)
    assert code == 0, err
    std = nib.load(tmp_path / "iso_std.nii.gz").get_fdata()
    assert std.min() >= 0 and std.max() > 0.01 and not (tmp_path / "iso_sample-1.nii.gz").exists()
    replicas = ("--samples", 2, "--uncertainty", "replicas", "--spacing", "2", "--report", tmp_path / "report")
    code, _, err = run("reconstruct", scan, "-o", tmp_path / "b.nii.gz", "--method", "cubic", *replicas)
    assert code == 0 and not (tmp_path / "b_std.nii.gz").exists(), err
    noise = nib.load(tmp_path / "b_noise.nii.gz").get_fdata()
    assert 0 < noise.max() < std.max()  # a part of the error
    assert '"Noise"' in (tmp_path / "report" / "report.html").read_text()
    out = tmp_path / "other.nii"
    refused(run("reconstruct", scan, "-o", out, "--uncertainty", "none"), out, "unknown uncertainty")
    refused(run("reconstruct", scan, "-o", out, "--method", "posterior", *options), out, "bootstrap")


def test_info_names_the_machine_and_what_runs_the_networks(run, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("INVSR_ENGINE", raising=False)
    times = iter([10.0, 8.0, 10.0, 20.0])
    monkeypatch.setattr(engines, "_measured", {})

    def measured(network, ways):
        return {str(way): next(times) if type(network) is UNet else 10.0 for way in ways}

    monkeypatch.setattr(engines, "_measure", measured)
    monkeypatch.setattr(engines, "multiplies_bfloat16", lambda device: False)
    for installed, words, way in [
        (None, [], "torch float32, no other is here"),
        ("2026.4", [], "openvino float32, the fastest, measured"),
        ("2026.4", ["--measure"], "torch float32, the fastest, measured"),
        ("2026.4", [], "torch float32, the fastest, measured"),
    ]:
        monkeypatch.setattr(engines.compiled, "version", lambda installed=installed: installed)
        code, out, err = run("info", *words)
        assert (code, err) == (0, "")
        lines = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith("cpu"))
        assert lines["invsr"] == invsr.__version__ and lines["PyTorch"] == torch.__version__
        assert lines["OpenVINO"] == (installed or "not installed: pip install 'invsr[fast]'")
        assert lines["threads"] == str(torch.get_num_threads()) and "GiB free" in lines["memory"]
        runs = [line for line in out.splitlines() if line.startswith("cpu")]
        assert f"(UNet): {way}" in runs[0] and "mri-denoiser-gs (GradientStep): torch float32" in runs[1]
    monkeypatch.setenv("INVSR_ENGINE", "abacus")
    code, _, err = run("info")
    assert code == 1 and "INVSR_ENGINE is 'abacus': use torch or openvino" in err


def test_models_are_listed_and_have_cards(run):
    code, out, err = run("models")
    assert code == 0, err
    for name in ("mri-denoiser", "mri-denoiser-fast", "mri-denoiser-gs"):
        assert sum(line.split()[0] == name for line in out.splitlines()) == 1
        code, card, err = run("models", name)
        assert code == 0 and card.startswith(f"# {name}\n") and "Not for diagnosis" in card, err
    code, _, err = run("models", "nothing")
    assert code != 0 and "mri-denoiser-fast" in err


# Several scans and their motion ---------------------------------------------------------------------


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


def test_benchmark_prints_a_row_for_each_volume_and_method(run, tmp_path):
    grid = centred_grid((24, 24, 24))
    for n in (1, 2):
        invsr.save(invsr.Volume(shapes(grid, size=22.0, seed=n, n_samples=32), grid), tmp_path / f"{n}.nii.gz")
    code, out, err = run("benchmark", tmp_path / "1.nii.gz", tmp_path / "2.nii.gz", "--method", "tv", "--noise", "0.01")
    rows = [line.split(" | ") for line in out.splitlines() if ".nii.gz" in line]
    assert code == 0, err
    assert [(row[0][2:], row[1]) for row in rows] == [(f"{n}.nii.gz", m) for n in (1, 2) for m in ("cubic", "tv")]
    assert rows[0][4] == "+0.00" and float(rows[1][4]) > 0.5 and float(rows[3][4]) > 0.5
    assert 0.6 < float(rows[1][6]) < 1.2


def test_benchmark_refuses_methods_and_axes_that_are_none(run, tmp_path):
    grid = centred_grid((12, 12, 12))
    invsr.save(invsr.Volume(shapes(grid, size=10.0, n_samples=16), grid), tmp_path / "a.nii.gz")
    code, _, err = run("benchmark", tmp_path / "a.nii.gz", "--method", "best")
    assert code == 1 and "unknown method 'best': use some of cubic" in err
    code, _, err = run("benchmark", tmp_path / "a.nii.gz", "--axis", "x")
    assert code == 1 and "--axis x: use i, j or k" in err


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
    assert r"\udcff.nii.gz" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words, message",
    [
        (["nonsense"], "No such command 'nonsense': see invsr --help"),
        (["reconstruct"], "Missing argument 'SCAN.nii.gz|RAW.h5': see invsr reconstruct --help"),
        (["reconstruct", "a.nii", "-o", "b.nii", "--nonsense"], "No such option: --nonsense"),
        (["simulate", "a.nii", "-o", "b.nii", "--slice-thickness", "thick"], "Invalid value for '--slice-thickness'"),
        (["reconstruct", "a.nii", "-o", "b.nii", "--seed", str(2**64)], "Invalid value for '--seed'"),
        (["train", "denoiser", "--data", ".", "--out", "w.safetensors", "--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_words_that_are_no_command_are_one_line_of_error(run, words, message):
    code, out, err = run(*words)
    assert code == 2 and out == ""
    assert err.startswith(f"invsr: error: {message}") and len(err.splitlines()) == 1


def test_scores_that_are_not_finite_are_null_in_json(run, tmp_path):
    path = noise_image(tmp_path / "a.nii.gz", np.eye(4), (12, 12, 12))
    mask = image(tmp_path / "m.nii.gz", np.ones((12, 12, 12)), np.eye(4))
    code, out, err = run("evaluate", path, "--truth", path, "--mask", mask, "--json")
    assert code == 0, err

    def refuse(word):
        raise ValueError(word)

    assert json.loads(out, parse_constant=refuse)["psnr"] is None


# Options belong to methods ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        (["--method", "tv", "--solver", "pgd"], "method tv does not use the option solver (pgd)"),
        (["--method", "tv", "--denoiser", "nonsense"], "method tv does not use the option denoiser"),
        (["--method", "tv", "--model", "nonsense"], "method tv does not use the option model"),
        (["--method", "unrolled", "--lam", "0.5"], "method unrolled does not use the option lam"),
        (["--method", "cubic", "--max-iter", "1"], "method cubic does not use the option max_iter"),
        (["--method", "tikhonov", "--adapt"], "method tikhonov does not use the option adapt"),
        (["--method", "tv", "--samples", "3"], "method tv does not use the option n_samples"),
        (["--huber", "0.1", "--solver", "hqs"], "no method uses all of the options huber, solver"),
    ],
)
def test_an_option_that_the_method_does_not_use_is_refused(run, tmp_path, scan, options, words):
    out = tmp_path / "out.nii.gz"
    refused(run("reconstruct", scan, "-o", out, *options), out, words)


def test_an_option_implies_its_method(run, tmp_path, scan):
    out = tmp_path / "out.nii.gz"
    code, text, err = run("reconstruct", scan, "-o", out, "--huber", "0.05", "--spacing", "2")
    assert code == 0 and text.startswith("tv: "), err


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
    assert code == 0 and "warning" not in err
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


def test_what_fails_in_describing_a_result_fails_before_it_is_written(run, tmp_path, scan, monkeypatch):
    def fails(_):
        raise invsr.InvsrError("no correlation")

    monkeypatch.setattr("invsr.pipeline.reconstruction.slice_correlation", fails)
    out = tmp_path / "o.nii"
    refused(run("reconstruct", scan, "-o", out, "--method", "cubic"), out, "no correlation")


def test_an_output_name_that_is_too_long_is_one_line_of_error(run, tmp_path, scan):
    code, _, err = run("reconstruct", scan, "-o", tmp_path / f"{'n' * 300}.nii.gz", "--mask", scan)
    assert code == 1 and "File name too long" in err and len(err.splitlines()) == 1


def test_an_axis_that_no_scan_has_is_refused_at_once(run, tmp_path):
    affine = np.diag([1.0, 150.0, 4.0, 1.0])
    out = tmp_path / "o.nii"
    code, _, err = run("reconstruct", noise_image(tmp_path / "long.nii.gz", affine, (12, 48, 6)), "-o", out)
    assert code == 1 and "7200 voxels along axis j" in err and not out.exists()
