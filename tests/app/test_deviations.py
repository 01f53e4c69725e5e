"""Deviations and samples are written beside the volume."""

import nibabel as nib
import numpy as np
from scan_files import refused


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
    for kind in ("bootstrap", "replicas"):
        refused(run("reconstruct", scan, "-o", out, "--uncertainty", kind, "--samples", 0), out, "n_samples is 0")
