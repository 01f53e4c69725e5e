"""k-space files: samples lie at their frequencies, images at their place, and what is wrong is said in one line."""

import h5py
import ismrmrd
import nibabel as nib
import numpy as np
import pytest
import torch
from raw_files import FLAT, LPS, SLAB, SMALL, TURN, another, blob_of, changed, image_of, one_line, read, write_mrd

from invsr.errors import InvsrError
from invsr.io.raw import load_raw


def expected(scan):
    """World position of the blob."""
    return LPS * scan.blob


def off(raw, scan):
    """How far the blob lies from its place, voxels."""
    return np.abs((raw.grid.directions.T @ (blob_of(raw) - expected(scan))) / raw.grid.spacing).max()


def refused(tmp_path, match, lines=None, scan=SMALL, xml=None, **options):
    path = write_mrd(tmp_path / "scan.h5", scan.lines() if lines is None else lines, xml or scan.header(**options))
    with pytest.raises(InvsrError, match=match) as caught:
        load_raw(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and said.count(str(path)) == 1 and "\n" not in said and ": " in said
    return said


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


def with_first(change):
    """Lines of a small scan, the first of which is changed."""
    lines = SMALL.lines()
    change(lines[0])
    return lines


def put(**values):
    def change(line):
        for name, value in values.items():
            if name.startswith("idx_"):
                setattr(line.idx, name[4:], value)
            elif name.endswith(("_dir", "position")):
                getattr(line, name)[:] = value
            else:
                setattr(line, name, value)

    return change


@pytest.mark.parametrize(
    "change, match",
    [
        (
            put(idx_kspace_encode_step_1=6),
            "line 0 has the encoding step 6 along axis 1, outside of the 6 around step 3",
        ),
        (put(idx_kspace_encode_step_2=1), "header encodes one partition"),
        (put(center_sample=3), "line 0 has 16 samples around sample 3"),
        (put(discard_pre=9, discard_post=9), "line 0 has 16 samples"),
        (put(encoding_space_ref=1), "have 2 encodings"),
        (put(read_dir=[0, 1, 0]), "not parallel"),
        (lambda line: line.resize(20, 2), "line 0 has 20 samples around sample 8"),
        (lambda line: (line.resize(8, 2), put(center_sample=4)(line)), "line 0 has 8 samples around sample 4"),
        (lambda line: line.resize(16, 3), "line 1 is of 2 coils and line 0 of 3"),
        (lambda line: line.data.__setitem__((0, 3), np.nan), "line 0 holds samples that are NaN"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(tmp_path, change, match):
    refused(tmp_path, match, with_first(change))


@pytest.mark.parametrize(
    "places, match",
    [
        ([0, 1, 3], "6 to 12 mm apart, not evenly spaced"),
        ([0, 0, 1], "lie at the same place"),
        ([0, 1, 2], "shifted against each other"),
    ],
)
def test_slices_that_no_grid_holds_are_refused(tmp_path, places, match):
    scan = changed(SMALL, matrix=(16, 6, 3))
    lines = []
    for number, place in enumerate(places):
        for line in (scan.line(j, place) for j in range(6)):
            line.idx.slice = number
            if match.startswith("shifted"):
                line.position[:] = np.array(line.position) + place * TURN[:, 1]
            lines.append(line)
    refused(tmp_path, match, lines, scan=scan)


def test_scans_of_other_kinds_are_refused(tmp_path):
    for n, (match, scan, options) in enumerate(
        [
            ("trajectory is radial: Cartesian k-space is read", SMALL, {"trajectory": "radial"}),
            ("trajectory is epi", SMALL, {"trajectory": "epi"}),
        ]
    ):
        (tmp_path / str(n)).mkdir()
        refused(tmp_path / str(n), match, scan=scan, **options)
    slab = changed(SMALL, slice_spacing=None)
    lines = slab.lines()
    for line in lines[:6]:
        line.idx.slice = 1
    refused(tmp_path, "holds 2 slabs", lines, scan=slab)


def test_nothing_to_reconstruct_is_refused(tmp_path):
    lines = SMALL.lines(flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    refused(tmp_path, r"holds no imaging lines \(12 noise\)", lines)


@pytest.mark.parametrize(
    "xml, match",
    [
        (b"no XML", "is not the XML of ISMRMRD"),
        (b"<a/>", "is not the XML of ISMRMRD"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "defines entities"),
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, xml, match):
    refused(tmp_path, match, xml=xml)


def test_numbers_that_are_none_are_refused(tmp_path):
    xml = SMALL.header().toXML().replace("<x>16</x>", "<x>many</x>").encode()
    refused(tmp_path, "is not the XML of ISMRMRD", xml=xml)
    (tmp_path / "x").mkdir()
    xml = SMALL.header().toXML().replace("<y>18.0</y>", "<y>0</y>").encode()
    refused(tmp_path / "x", "field of view of 32x0x4, not all above zero", xml=xml)


def test_elements_that_the_schema_does_not_know_are_passed_over(tmp_path):
    xml = SMALL.header().toXML().replace("<encoding>", "<news>1</news><encoding>", 1).encode()
    assert load_raw(write_mrd(tmp_path / "x.mrd", SMALL.lines(), xml)).n_coils == 2


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    xml = SMALL.header().toXML().replace("<y>6</y>", "<y>1000000000</y>").replace("<center>3<", "<center>500000000<")
    refused(tmp_path, "holds k-space of 8x1000000000x2 by 2 coils: reading takes", xml=xml.encode())
    with h5py.File(tmp_path / "many.h5", "w") as file, h5py.File(tmp_path / "scan.h5") as scan:
        scan.copy("dataset/xml", file.create_group("dataset"))
        file["dataset"].create_dataset("data", (10**12,), scan["dataset/data"].dtype, chunks=(1000,))
    with pytest.raises(InvsrError, match="holds 1000000000000 lines: reading takes"):
        load_raw(tmp_path / "many.h5")
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("kspace", (10**6, 10**6, 10**6), np.complex64, chunks=(1, 100, 100))
    with pytest.raises(InvsrError, match="holds k-space of shape 1000000x1000000x1000000: reading takes"):
        load_raw(tmp_path / "large.h5", spacing=1)


def test_the_length_of_a_line_is_checked_before_memory_is_taken(tmp_path):
    path = write_mrd(tmp_path / "scan.h5", SMALL.lines(), SMALL.header())
    with h5py.File(path) as file:
        kind = file["dataset/data"].id.get_type()
        chunk = file["dataset/data"].id.read_direct_chunk((3,))[1]
        at = kind.get_member_offset(kind.get_member_index(b"data"))
    content = path.read_bytes()
    assert content.count(chunk) == 1
    path.write_bytes(content.replace(chunk, chunk[:at] + b"\xff\xff\xff\xf0" + chunk[at + 4 :]))
    with pytest.raises(InvsrError, match="line 3 holds 4043309055 numbers and its header says 64"):
        load_raw(path)


def test_lines_that_are_compressed_are_read(tmp_path):
    path = write_mrd(tmp_path / "scan.h5", SMALL.lines(), SMALL.header())
    with h5py.File(path) as file, h5py.File(tmp_path / "small.h5", "w") as other:
        file.copy("dataset/xml", other.create_group("dataset"))
        values = file["dataset/data"]
        other["dataset"].create_dataset("data", data=values[:], dtype=values.dtype, chunks=(4,), compression="gzip")
    np.testing.assert_array_equal(load_raw(tmp_path / "small.h5").samples, load_raw(path).samples)


def test_lines_without_a_header_and_files_of_other_things_are_refused(tmp_path):
    with pytest.raises(InvsrError, match=r"no header \(xml\)"):
        load_raw(write_mrd(tmp_path / "a.h5", SMALL.lines(), None))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(InvsrError, match="holds weights: neither lines of ISMRMRD"):
        load_raw(tmp_path / "b.h5")
    write_mrd(tmp_path / "c.h5", SMALL.lines(), SMALL.header())
    with pytest.raises(InvsrError, match="holds 2 sets of lines"):
        load_raw(write_mrd(tmp_path / "c.h5", SMALL.lines(), SMALL.header(), "other"))
    (tmp_path / "d.h5").write_text("These are notes.\n" * 100)
    with pytest.raises(InvsrError, match="is not an HDF5 file"):
        load_raw(tmp_path / "d.h5")
    with pytest.raises(InvsrError, match="cannot be opened"):
        load_raw(tmp_path / "e.h5")
    with pytest.raises(InvsrError, match="no file of k-space"):
        load_raw(tmp_path / "e.dat")


@pytest.mark.parametrize("damage", ["cut", "holes"])
def test_a_damaged_file_is_one_line_or_the_same_data(tmp_path, damage):
    path = write_mrd(tmp_path / "scan.h5", SMALL.lines(), SMALL.header())
    content = path.read_bytes()
    whole = load_raw(path).samples
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(60):
        if damage == "cut":
            path.write_bytes(content[: rng.integers(len(content))])
        else:
            at, size = rng.integers(len(content)), rng.integers(1, 40)
            path.write_bytes(content[:at] + rng.bytes(size) + content[at + size :])
        try:
            raw = load_raw(path)
        except InvsrError as error:
            refusals += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert damage == "holes" and raw.samples.shape[1] == whole.shape[1]
    assert refusals == 60 if damage == "cut" else refusals > 3


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import sys

    path = write_mrd(tmp_path / "scan.h5", SMALL.lines(), SMALL.header())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InvsrError, match=r'takes the package h5py: pip install "invsr\[raw\]"'):
        load_raw(path)
