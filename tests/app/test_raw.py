"""`invsr reconstruct RAW.h5`: k-space in, magnitude, phase and report out."""

import json

import ismrmrd
import nibabel
import numpy as np
import pytest
import raw_files
import torch

import invsr
from invsr.operators import radial, random_mask
from invsr.testing.kspace import simulate_kspace, simulate_noncartesian
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """k-space of a phantom as an array without positions, its coil maps beside it."""
    folder = tmp_path_factory.mktemp("kspace")
    grid = centred_grid((32, 32, 32), 1.5)
    mask = random_mask((1, 32, 32), 2.0, 0.4, torch.Generator().manual_seed(0), axes=(1, 2))
    truth = invsr.Volume(shapes(grid, n_samples=16, size=32.0), grid)
    raw, maps, _ = simulate_kspace(truth, n_coils=3, mask=mask, noise=0.01)
    np.save(folder / "samples.npy", raw.samples[0].numpy())
    np.save(folder / "maps.npy", maps.numpy())
    return folder / "samples.npy"


def test_magnitude_phase_complex_and_report(run, samples, tmp_path):
    out, report = tmp_path / "out.nii.gz", tmp_path / "report"
    words = ("--raw-spacing", "1.5", "--phase", "--complex", "--report", report, "--method", "tv", "--spacing", "1.2")
    words += ("--lam", "0.001", "--max-iter", "10")
    code, said, err = run("reconstruct", samples, "-o", out, "--coil-maps", samples.parent / "maps.npy", *words)
    assert code == 0, err
    assert "tv" in said and "chi2" in said
    magnitude, phase, both = (nibabel.load(tmp_path / f"out{part}.nii.gz") for part in ("", "_phase", "_complex"))
    assert magnitude.shape == (40, 40, 40) and both.get_data_dtype() == np.complex64
    turned = np.asarray(magnitude.dataobj) * np.exp(1j * np.asarray(phase.dataobj))
    np.testing.assert_allclose(np.asarray(both.dataobj), turned, atol=1e-4)
    assert np.abs(np.asarray(both.dataobj).imag).max() > 0.01  # a sign of the phase that is wrong would be seen
    page, record = (report / "report.html").read_text(), json.loads((report / "report.json").read_text())
    assert "Zero-filled, result, phase" in page and "3.9-fold" in page
    assert record["kspace"]["coils"] == 3 and record["kspace"]["matrix"] == [40, 40, 40]
    assert record["kspace"]["share"] == pytest.approx(0.5 * 0.8**3, rel=0.1)


def test_noise_map(run, samples, tmp_path):
    out = tmp_path / "out.nii.gz"
    words = ("--raw-spacing", "1.5", "--method", "tikhonov", "--uncertainty", "replicas", "--samples", "3")
    maps = ("--coil-maps", samples.parent / "maps.npy", "--noise", "0.01")
    code, _, err = run("reconstruct", samples, "-o", out, *maps, *words, "--report", tmp_path / "report")
    assert code == 0, err
    noise = np.asarray(nibabel.load(tmp_path / "out_noise.nii.gz").dataobj)
    assert noise.shape == (32, 32, 32) and noise.min() > 0 and noise.max() < 0.04
    assert '"Noise"' in (tmp_path / "report" / "report.html").read_text()


def test_spokes_with_a_trajectory_beside_them(run, tmp_path):
    grid = centred_grid((32, 32, 2), 1.5)
    truth = invsr.Volume(shapes(grid, n_samples=16, size=32.0), grid)
    raw, _, _ = simulate_noncartesian(truth, radial(24, 64, 32), n_coils=3, noise=0.01)
    np.save(tmp_path / "samples.npy", raw.samples[0].numpy())
    np.save(tmp_path / "spokes.npy", raw.trajectory.numpy())
    out, report = tmp_path / "out.nii.gz", tmp_path / "report"
    words = ("--raw-spacing", "1.5", "--trajectory", tmp_path / "spokes.npy", "--method", "tv")
    code, said, err = run("reconstruct", tmp_path / "samples.npy", "-o", out, "--report", report, *words)
    assert code == 0, err
    assert "chi2" in said and nibabel.load(out).shape == (32, 32, 2)
    record = json.loads((report / "report.json").read_text())["kspace"]
    assert record["measured"] == 64 * 24 * 2 and 0.3 < record["share"] < 0.9
    assert "Where k-space was measured" in (report / "report.html").read_text()
    again = tmp_path / "spokes.nii.gz"
    (tmp_path / "spokes.npy").rename(again)
    code, _, err = run("reconstruct", tmp_path / "samples.npy", "-o", again, *words[:3], again)
    assert code != 0 and "one of the inputs" in err


def test_the_matrix_beside_a_trajectory_is_stated_or_said(run, samples, tmp_path):
    np.save(tmp_path / "samples.npy", np.random.default_rng(0).normal(size=(1, 48, 20, 2)).view(complex))
    np.save(tmp_path / "spokes.npy", radial(20, 48, 24).numpy())
    out = tmp_path / "out.nii.gz"
    words = ("--trajectory", tmp_path / "spokes.npy", "--raw-spacing", "2x2x5", "--method", "tikhonov", "--noise", "1")
    code, _, err = run("reconstruct", tmp_path / "samples.npy", "-o", out, *words)
    assert code == 0 and "note: field of view 48x48 mm, matrix 24x24" in err, err
    code, _, err = run("reconstruct", tmp_path / "samples.npy", "-o", out, *words, "--raw-matrix", "30x26")
    assert code == 0 and "field of view" not in err, err
    assert nibabel.load(out).shape == (30, 26, 1) and nibabel.load(out).header.get_zooms()[:2] == (2, 2)
    for matrix, message in (("wide", "--raw-matrix wide: give voxels"), ("30x26x9", "as many sizes")):
        code, _, err = run("reconstruct", tmp_path / "samples.npy", "-o", out, *words, "--raw-matrix", matrix)
        assert code == 1 and message in err and err.count("\n") == 1, err
    code, _, err = run("reconstruct", samples, "-o", out, "--raw-spacing", "1.5", "--raw-matrix", "32x32")
    assert code == 1 and "--raw-matrix) is chosen for a trajectory only" in err and err.count("\n") == 1, err


def test_spokes_of_ismrmrd_from_file_to_volume(run, tmp_path):
    scan = raw_files.Acquisition(matrix=(32, 27, 1), view=(96.0, 81.0, 4.0), recon=96.0, position=(12.0, -9.0, 4.0))
    scan.blob = (14.0, -12.0, 4.0)
    lines = []
    for points in radial(30, 64, (32, 27)).numpy().swapaxes(0, 1):
        plain = raw_files.one_line(scan.signal(*points.T, 0), scan.directions, position=scan.position)
        line = ismrmrd.Acquisition.from_array(plain.data, np.ascontiguousarray(points))
        for name in ("read_dir", "phase_dir", "slice_dir", "position"):
            getattr(line, name)[:] = getattr(plain, name)
        lines.append(line)
    path = raw_files.write_mrd(tmp_path / "raw.h5", lines, scan.header(trajectory="radial"))
    out = tmp_path / "out.nii.gz"
    code, _, err = run("reconstruct", path, "-o", out, "--method", "tikhonov", "--noise", "0.001")
    assert code == 0, err
    found = invsr.load(out)
    weight = found.numpy().astype(float) ** 2
    centre = (found.grid.points() * weight[..., None]).sum((0, 1, 2)) / weight.sum()
    assert np.abs(centre - np.array(scan.blob) * raw_files.LPS).max() < 0.3


def test_positions_are_those_of_the_raw_file(run, tmp_path):
    scan = raw_files.Acquisition(
        matrix=(48, 20, 8), position=(12.0, -9.0, 4.0), blob=(14.0, -12.0, 8.0), slice_spacing=4.0
    )
    path = raw_files.write_mrd(tmp_path / "raw.h5", scan.lines(), scan.header())
    code, _, err = run("reconstruct", path, "-o", tmp_path / "out.nii.gz", "--method", "tikhonov", "--noise", "0.001")
    assert code == 0, err
    found = invsr.load(tmp_path / "out.nii.gz")
    weights = found.numpy().astype(float) ** 2
    centre = (found.grid.points() * weights[..., None]).sum((0, 1, 2)) / weights.sum()
    assert np.abs(centre - np.array(scan.blob) * raw_files.LPS).max() < 0.1 * found.grid.spacing.min()


@pytest.mark.parametrize(
    "words, message",
    [
        (("--motion", "stack"), "--motion: k-space data have no use for it"),
        (("--reference", "grid.nii.gz"), "--reference"),
        (("--noise", "1", "2"), "--noise: k-space is one file"),
        (("--slice-thickness", "auto"), "give it in mm"),
        (("--raw-spacing", "wide"), "--raw-spacing wide"),
        (("--method", "cubic"), "interpolates images"),
        ((), "--raw-spacing"),
    ],
)
def test_refuses(run, samples, tmp_path, words, message):
    if words and "--raw-spacing" not in words:
        words = (*words, "--raw-spacing", "1.5")
    code, _, err = run("reconstruct", samples, "-o", tmp_path / "out.nii.gz", *words)
    assert code == 1 and message in err and err.count("\n") == 1, err
    assert not list(tmp_path.iterdir())


def test_images_have_no_coils(run, tmp_path):
    grid = centred_grid((16, 16, 16), 1.0)
    invsr.save(invsr.Volume(shapes(grid, n_samples=8, size=16.0), grid), tmp_path / "scan.nii.gz")
    code, _, err = run("reconstruct", tmp_path / "scan.nii.gz", "-o", tmp_path / "out.nii.gz", "--phase")
    assert code == 1 and "--phase: images have no use for it, only k-space" in err
