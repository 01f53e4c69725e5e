"""k-space files: samples lie at their frequencies, images at their place."""

import h5py
import ismrmrd
import nibabel as nib
import numpy as np
import pytest
import torch
from raw_files import (
    FLAT,
    LPS,
    SLAB,
    SMALL,
    TURN,
    another,
    blob_of,
    changed,
    image_of,
    one_line,
    read,
    refused,
    write_mrd,
)

from invsr.errors import InvsrError
from invsr.io.raw import load_raw


def expected(scan):
    """World position of the blob."""
    return LPS * scan.blob


def off(raw, scan):
    """How far the blob lies from its place, voxels."""
    return np.abs((raw.grid.directions.T @ (blob_of(raw) - expected(scan))) / raw.grid.spacing).max()


# Sizes of the readout with oversampling, and without by the reconstructed field of view.
@pytest.mark.parametrize("n, recon", [(48, 48.0), (50, 48.0), (49, 48.98), (54, 32.0), (48, 96.0)])
@pytest.mark.parametrize("lines, across", [(21, 9), (20, 8)])
@pytest.mark.parametrize("scan", [FLAT, SLAB], ids=["slices", "slab"])
def test_a_blob_lies_at_its_place(tmp_path, scan, n, recon, lines, across):
    scan = changed(
        scan, matrix=(n, lines, across if scan.flat else across + 8), recon=recon, view=(96, 63, scan.view[2])
    )
    raw = read(tmp_path, scan)
    size = round(n * recon / 96)
    assert raw.grid.shape == (size, lines, scan.matrix[2])
    thick = scan.slice_spacing or scan.view[2] / scan.matrix[2]
    np.testing.assert_allclose(raw.grid.spacing, [96 / n, 63 / lines, thick], rtol=1e-5)
    assert off(raw, scan) < 0.02
    assert raw.measured.all()
    assert (raw.axes, raw.slice_axis, raw.slice_thickness) == (
        ((0, 1), 2, 4.0) if scan.flat else ((0, 1, 2), None, None)
    )
    np.testing.assert_allclose(image_of(raw)[1], 0.5j * image_of(raw)[0], atol=1e-5)


def test_voxels_at_the_position_of_the_lines(tmp_path):
    raw = read(tmp_path, FLAT)
    for k in range(FLAT.matrix[2]):
        np.testing.assert_allclose(raw.grid.to_world([12, 10, k]), LPS * FLAT.centre_of(k), atol=1e-4)
    raw = another(tmp_path, SLAB)
    np.testing.assert_allclose(raw.grid.to_world([12, 10, 8]), LPS * SLAB.position, atol=1e-4)


def test_cropping_leaves_the_voxels_of_the_middle(tmp_path):
    whole = read(tmp_path, changed(FLAT, recon=96.0))
    half = another(tmp_path, FLAT)
    np.testing.assert_allclose(image_of(half), image_of(whole)[:, 12:36], atol=1e-5)
    np.testing.assert_allclose(half.grid.to_world([0, 3, 1]), whole.grid.to_world([12, 3, 1]), atol=1e-5)
    assert "oversampling" in half.notes[0] and not whole.notes


def test_slices_lie_in_the_order_of_their_positions(tmp_path):
    numbers = [3, 0, 4, 1, 2]
    lines = []
    for k, number in enumerate(numbers):
        for j in range(21):
            line = FLAT.line(j, k)
            line.idx.slice = number
            lines.append(line)
    raw = read(tmp_path, FLAT, lines)
    assert off(raw, FLAT) < 0.02
    backwards = changed(FLAT, directions=TURN * [1, 1, -1])
    lines = [FLAT.line(j, k) for k in range(5) for j in range(21)]
    for line in lines:
        line.slice_dir[:] = backwards.directions[:, 2]
    turned = another(tmp_path, FLAT, lines)
    assert off(turned, FLAT) < 0.02
    np.testing.assert_allclose(image_of(turned), image_of(raw)[..., ::-1], atol=1e-6)


def test_one_slice_is_as_thick_as_the_header_says(tmp_path):
    scan = changed(FLAT, matrix=(48, 21, 1), blob=FLAT.position)
    raw = read(tmp_path, scan)
    assert raw.grid.shape == (24, 21, 1) and raw.grid.spacing[2] == pytest.approx(4.0)
    np.testing.assert_allclose(raw.grid.to_world([12, 10, 0]), LPS * scan.position, atol=1e-4)


@pytest.mark.parametrize("first, stop", [(15, None), (0, 35)])
@pytest.mark.parametrize("turned", [None, "stored", "turned"])
def test_partial_echoes_keep_their_oversampling(tmp_path, first, stop, turned):
    lines = [FLAT.line(j, k, first=first, stop=stop) for k in range(5) for j in range(21)]
    if turned:
        for n, line in enumerate(lines):
            if n % 2:
                line.data[:] = line.data[:, ::-1].copy()
                line.setFlag(ismrmrd.ACQ_IS_REVERSE)
                line.center_sample = (
                    line.number_of_samples - 1 - line.center_sample if turned == "stored" else line.center_sample
                )
    raw = read(tmp_path, FLAT, lines)
    assert raw.grid.shape == (48, 21, 5)
    measured = np.zeros(48, bool)
    measured[first:stop] = True
    assert (raw.measured.numpy() == measured[:, None, None]).all()
    full = another(tmp_path, changed(FLAT, recon=96.0))
    np.testing.assert_allclose(
        raw.samples.numpy()[..., measured, :, :], full.samples.numpy()[..., measured, :, :], atol=1e-6
    )
    assert "partial (" in raw.notes[0]


@pytest.mark.parametrize("n", [48, 49])
def test_reversed_lines_are_turned_round(tmp_path, n):
    scan = changed(FLAT, matrix=(n, 21, 5))
    lines = scan.lines()
    for line in lines[::2]:
        line.data[:] = line.data[:, ::-1].copy()
        line.setFlag(ismrmrd.ACQ_IS_REVERSE)
    assert off(read(tmp_path, scan, lines), scan) < 0.02


def test_discarded_samples_do_not_count(tmp_path):
    lines = []
    for line in FLAT.lines():
        noise = np.full((2, 3), 9 + 9j, np.complex64)
        data = np.concatenate([noise, line.data, noise[:, :2]], 1)
        head = {"discard_pre": 3, "discard_post": 2, "center_sample": 24 + 3, "position": line.position}
        idx = {"kspace_encode_step_1": line.idx.kspace_encode_step_1, "slice": line.idx.slice}
        lines.append(one_line(data, TURN, idx=idx, **head))
    raw = read(tmp_path, FLAT, lines)
    np.testing.assert_allclose(raw.samples, another(tmp_path, FLAT).samples, atol=1e-6)


def test_samples_are_discarded_in_the_order_in_which_they_were_measured(tmp_path):
    lines = FLAT.lines(discard_pre=4, discard_post=2)
    lines[0].setFlag(ismrmrd.ACQ_IS_REVERSE)
    raw = read(tmp_path, FLAT, lines)
    np.testing.assert_array_equal(np.flatnonzero(raw.counts[:, 0, 0]), np.arange(2, 44))


def test_discarded_samples_within_a_readout_were_not_measured(tmp_path):
    raw = read(tmp_path, FLAT, FLAT.lines(discard_pre=4, discard_post=2))
    np.testing.assert_array_equal(np.flatnonzero(raw.counts[:, 0, 0]), np.arange(4, 46))


def test_a_centre_left_at_zero_of_a_full_readout(tmp_path):
    assert off(read(tmp_path, FLAT, FLAT.lines(center_sample=0)), FLAT) < 0.02


def test_partial_fourier_counts_from_the_centre_of_the_header(tmp_path):
    lines = [one for one in SLAB.lines() if one.idx.kspace_encode_step_1 >= 6 and one.idx.kspace_encode_step_2 >= 3]
    for one in lines:
        one.idx.kspace_encode_step_1 -= 6
        one.idx.kspace_encode_step_2 -= 3
    raw = read(tmp_path, SLAB, lines, centres=(4, 5))
    measured = np.zeros((21, 16), bool)
    measured[6:, 3:] = True
    assert (raw.measured.numpy() == measured).all()
    np.testing.assert_allclose(raw.samples, another(tmp_path, SLAB).samples * torch.from_numpy(measured), atol=1e-6)


def test_averages_become_their_mean(tmp_path):
    lines = SMALL.lines()
    again = [SMALL.line(2, 1) for _ in range(2)]
    for n, line in enumerate(again, 1):
        line.data[:] *= 1 + 3 * n
        line.idx.average = n
    raw = read(tmp_path, SMALL, lines + again)
    plain = another(tmp_path, SMALL)
    assert (raw.counts[:, 2, 1] == 3).all() and raw.counts.sum() == plain.counts.sum() + 2 * 8
    np.testing.assert_allclose(raw.samples[..., 2, 1], plain.samples[..., 2, 1] * 4, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(raw.samples[..., 3, 1], plain.samples[..., 3, 1], rtol=1e-5)


@pytest.mark.parametrize("bandwidth", [None, 0.79])
def test_noise_is_brought_to_the_bandwidth_of_the_data(tmp_path, bandwidth):
    values = np.random.default_rng(0).normal(size=(2, 2, 4000)).view(np.complex128).astype(np.complex64)
    noise = [one_line(one, np.eye(3), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], sample_time_us=10.0) for one in values]
    raw = read(tmp_path, SMALL, noise + SMALL.lines(), noise_bandwidth=bandwidth)
    # Half the bandwidth of the data: half its variance.
    variance = 2 / (bandwidth or 1) * np.var(values)
    assert raw.noise.shape == (2, 4000) and np.var(raw.noise.numpy()) == pytest.approx(variance, rel=1e-4)
    assert not any("bandwidth" in note for note in raw.notes)


def test_cropping_keeps_the_variance_of_noise(tmp_path):
    rng = np.random.default_rng(1)
    lines = changed(FLAT, coils=(1.0,)).lines()
    for line in lines:
        line.data[:] = rng.normal(size=(1, 96)).astype(np.float32).view(np.complex64)
    assert np.var(read(tmp_path, FLAT, lines).samples.numpy()) == pytest.approx(2, rel=0.06)


def test_other_lines_are_left_out(tmp_path):
    other = []
    for flag in ("NAVIGATION_DATA", "PHASECORR_DATA", "DUMMYSCAN_DATA", "HPFEEDBACK_DATA", "PHASE_STABILIZATION"):
        line = SMALL.line(1, 0, flags=[getattr(ismrmrd, f"ACQ_IS_{flag}")])
        line.data[:] = 100
        other.append(line)
    raw = read(tmp_path, SMALL, other + SMALL.lines())
    np.testing.assert_array_equal(raw.samples, another(tmp_path, SMALL).samples)
    assert "2 navigator, 1 phase-correction, 1 feedback, 1 dummy" in raw.notes[0]


@pytest.mark.parametrize("scan", [changed(FLAT, matrix=(48, 20, 5)), SLAB], ids=["slices", "slab"])
def test_calibration_lines_are_kept_apart_unless_they_are_data(tmp_path, scan):
    centre = scan.matrix[2] // 2
    calibration = []
    for k in range(scan.matrix[2]) if scan.flat else range(centre - 2, centre + 4):
        # Of the first slice a line is missing.
        for j in range(6, 14) if k else range(7, 14):
            line = scan.line(j, k, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])
            line.data[:] *= 2
            calibration.append(line)
    both = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING]
    n = scan.matrix[1]
    imaging = [scan.line(j, k, flags=both if j == 10 else []) for k in range(scan.matrix[2]) for j in range(0, n, 2)]
    raw = read(tmp_path, scan, calibration * 2 + imaging)
    assert (raw.measured.any(0).any(1).numpy() == (np.arange(n) % 2 == 0)).all() and raw.counts.max() == 1
    full = another(tmp_path, scan).samples[0]
    j, k = (slice(7, 14), slice(None)) if scan.flat else (slice(6, 14), slice(centre - 2, centre + 3))
    np.testing.assert_allclose(raw.calibration, 2 * full[:, :, j, k], atol=1e-5)
    assert raw.calibration.shape[2] // 2 == 10 - j.start


def test_one_of_several_images_is_chosen(tmp_path):
    lines = []
    for contrast in range(2):
        for repetition in range(3):
            for line in SMALL.lines():
                line.data[:] *= 1 + contrast + 10 * repetition
                line.idx.contrast, line.idx.repetition = contrast, repetition
                lines.append(line)
    refused(tmp_path, r"holds 6 images \(2 contrasts, 3 repetitions\): choose one from 0 to 5 with index=", lines)
    path = tmp_path / "scan.h5"
    ratio = load_raw(path, index=4).samples / load_raw(path, index=0).samples
    np.testing.assert_allclose(ratio, 12, rtol=1e-3)
    with pytest.raises(InvsrError, match="has no image 6: it holds 6"):
        load_raw(path, index=6)


def test_calibration_lines_of_the_image_that_was_chosen_or_of_the_first(tmp_path):
    lines = []
    for contrast in range(3):
        for line in SMALL.lines():
            line.idx.contrast = contrast
            lines.append(line)
        for line in SMALL.lines(flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]) if contrast < 2 else []:
            line.idx.contrast = contrast
            line.data[:] *= 1 + contrast
            lines.append(line)
    for line in SMALL.lines(flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION], encoding_space_ref=1):
        line.data[:] *= 9
        lines.append(line)
    images = [read(tmp_path, SMALL, lines, index=0)]
    images += [load_raw(tmp_path / "scan.h5", index=n) for n in (1, 2)]
    for raw, factor in zip(images, (1, 2, 1), strict=True):
        np.testing.assert_allclose(raw.calibration, factor * raw.samples[0], atol=1e-6)
    assert "12 calibration lines that were encoded otherwise" in images[0].notes[0]


def test_an_affine_of_the_caller_replaces_that_of_the_file(tmp_path):
    affine = nib.affines.from_matvec(np.diag([1.0, 2.0, 3.0]), [4, 5, 6])
    lines = SMALL.lines()
    for line in lines:
        line.read_dir[:], line.slice_dir[:], line.position[:] = [0] * 3, [0] * 3, [0] * 3
    said = refused(tmp_path, "which way they run", lines)
    assert said.endswith("give the affine")
    raw = load_raw(tmp_path / "scan.h5", affine=affine, slice_thickness=2.5)
    np.testing.assert_array_equal(raw.grid.affine, affine)
    assert raw.slice_thickness == 2.5


def test_elements_that_the_schema_does_not_know_are_passed_over(tmp_path):
    xml = SMALL.header().toXML().replace("<encoding>", "<news>1</news><encoding>", 1).encode()
    assert load_raw(write_mrd(tmp_path / "x.mrd", SMALL.lines(), xml)).n_coils == 2


def test_lines_that_are_compressed_are_read(tmp_path):
    path = write_mrd(tmp_path / "scan.h5", SMALL.lines(), SMALL.header())
    with h5py.File(path) as file, h5py.File(tmp_path / "small.h5", "w") as other:
        file.copy("dataset/xml", other.create_group("dataset"))
        values = file["dataset/data"]
        other["dataset"].create_dataset("data", data=values[:], dtype=values.dtype, chunks=(4,), compression="gzip")
    np.testing.assert_array_equal(load_raw(tmp_path / "small.h5").samples, load_raw(path).samples)
