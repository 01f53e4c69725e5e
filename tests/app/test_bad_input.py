"""Files, options and words that are none: one line that says what is wrong, and nothing written."""

import gzip

import numpy as np
import pytest
from scan_files import AFFINE, image, noise_image, refused

import invsr


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


def test_too_few_voxels_for_a_noise_estimate(run, tmp_path):
    out = tmp_path / "out.nii.gz"
    tiny = noise_image(tmp_path / "tiny.nii.gz", shape=(4, 4, 3))
    refused(run("reconstruct", tiny, "-o", out), out, "tiny.nii.gz", "--noise")
    assert run("reconstruct", tiny, "-o", out, "--noise", "0.1")[0] == 0


def test_evaluate_needs_one_grid(run, tmp_path, scan):
    code, _, err = run("evaluate", scan, "--truth", noise_image(tmp_path / "other.nii.gz"))
    assert code == 1 and "--reference" in err and len(err.splitlines()) == 1


def test_evaluate_says_why_a_figure_is_not_a_number(run, tmp_path):
    small = image(tmp_path / "small.nii.gz", np.random.default_rng(0).random((30, 8, 30)))
    code, out, err = run("evaluate", small, "--truth", small)
    assert code == 0 and out.count("nan") == 3
    for name, window in (("SSIM", "11x11x11"), ("MS-SSIM", "11x11x11"), ("VIF", "41x41")):
        assert f"invsr: warning: {name} is NaN: " in err and f"below its window of {window}" in err
    code, _, err = run("evaluate", small, "--truth", image(tmp_path / "zero.nii.gz", np.zeros((30, 8, 30))))
    assert code == 1 and "zero.nii.gz: has no voxel above 0" in err


def test_simulate_refuses(run, tmp_path, scan):
    out = tmp_path / "low.nii.gz"
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "-1"), out, "slice thickness")
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "900"), out, "do not fit")
    refused(run("simulate", scan, "-o", out, "--slice-thickness", "8", "--axis", "z"), out, "--axis")


@pytest.mark.parametrize("noise", ["-0.1", "nan", "inf"])
def test_noise_that_is_no_share_of_the_peak_is_named_as_it_was_given(run, tmp_path, scan, noise):
    out = tmp_path / "low.nii.gz"
    command = ("simulate", scan, "-o", out, "--slice-thickness", "8", "--noise", noise)
    refused(run(*command), out, f"noise is {float(noise):g}", "share of the peak")


def test_negative_intensities_that_rician_noise_would_turn_over_are_said(run, tmp_path):
    data = np.random.default_rng(0).normal(0, 100, (12, 12, 12))
    high = image(tmp_path / "signed.nii.gz", data)
    command = ("simulate", high, "-o", tmp_path / "low.nii.gz", "--slice-thickness", "4", "--noise", "0.02")
    assert run(*command)[::2] == (0, "")
    code, _, err = run(*command, "--noise-model", "rician")
    assert code == 0 and f"signed.nii.gz: intensities down to {data.min():.4g} are no magnitudes" in err


def test_warning_is_one_line(run, tmp_path):
    data = np.random.default_rng(0).random((12, 12, 5))
    data[0, 0, 0] = np.nan
    code, _, err = run("reconstruct", image(tmp_path / "holes.nii.gz", data), "-o", tmp_path / "o.nii", "--quiet")
    assert code == 0
    assert err.splitlines() == [
        line for line in err.splitlines() if line.startswith("invsr: warning: ") and "1 NaN" in line
    ]


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


def test_an_axis_that_no_scan_has_is_refused_at_once(run, tmp_path):
    affine = np.diag([1.0, 150.0, 4.0, 1.0])
    out = tmp_path / "o.nii"
    code, _, err = run("reconstruct", noise_image(tmp_path / "long.nii.gz", affine, (12, 48, 6)), "-o", out)
    assert code == 1 and "7200 voxels along axis j" in err and not out.exists()
