"""Radial and spiral k-space files: blobs lie at their place, units are told apart, and what is wrong is one line."""

import dataclasses

import ismrmrd
import nibabel as nib
import numpy as np
import pytest
import torch
from raw_files import LPS, Acquisition, one_line, write_cfl, write_mrd

import invsr
from invsr.errors import InvsrError
from invsr.io.raw import load_raw
from invsr.noncartesian import NonCartesianData
from invsr.operators import kooshball, radial, spiral

TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
FLAT = Acquisition(
    matrix=(32, 27, 3),
    view=(96.0, 81.0, 4.0),
    recon=96.0,
    directions=TURN,
    position=(12.0, -31.0, 22.0),
    blob=(14.5, -26.2, 20.3),
)
SLAB = dataclasses.replace(FLAT, matrix=(24, 20, 16), view=(72.0, 60.0, 48.0), recon=72.0, slice_spacing=None)
SPOKES = radial(30, 64, FLAT.matrix[:2]).numpy()


def shot(scan, points, at, unit=1.0, **head):
    """A line along (readout, 2 or 3) in cycles per field of view, of slice or partition `at`."""
    third = points[:, 2] if points.shape[1] == 3 else at
    data = scan.signal(points[:, 0], points[:, 1], third)
    line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data), np.ascontiguousarray(points / unit, np.float32))
    plain = one_line(data, scan.directions)
    for name in ("read_dir", "phase_dir", "slice_dir"):
        getattr(line, name)[:] = getattr(plain, name)
    line.position[:] = scan.centre_of(at)
    if scan.flat:
        line.idx.slice = at
    for name, value in head.items():
        setattr(line, name, value)
    return line


def shots(scan=FLAT, trajectory=SPOKES, unit=1.0, **head):
    slices = range(scan.matrix[2]) if scan.flat else [0]
    return [shot(scan, points, k, unit, **head) for k in slices for points in trajectory.swapaxes(0, 1)]


def read(tmp_path, lines=None, scan=FLAT, kind="radial", **options):
    path = write_mrd(tmp_path / "scan.h5", shots() if lines is None else lines, scan.header(trajectory=kind))
    return load_raw(path, **options)


def refused(tmp_path, match, lines, scan=FLAT, kind="radial"):
    with pytest.raises(InvsrError, match=match) as caught:
        read(tmp_path, lines, scan, kind)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'scan.h5'}: ") and "\n" not in said


def centre_of(volume):
    weights = volume.numpy().astype(float) ** 2
    return (volume.grid.points() * weights[..., None]).sum((0, 1, 2)) / weights.sum()


def off(raw, scan):
    """How far the blob of the reconstruction lies from its place along axes that are encoded, voxels."""
    found = invsr.reconstruct_raw(raw, method="tikhonov", noise=0.01, lam=1e-3, maps=uniform(raw), **thin(raw))
    away = raw.grid.directions.T @ (centre_of(found.volume) - LPS * scan.blob) / raw.grid.spacing
    return np.abs(away[list(raw.axes)]).max()


def uniform(raw):
    """The coils of `Acquisition`."""
    coils = torch.tensor([1.0, 0.5j]) / np.sqrt(1.25)
    return coils[:, None, None, None].expand(-1, *raw.grid.shape).contiguous()


def thin(raw):
    return {"spacing": raw.grid.spacing.tolist()}


@pytest.mark.parametrize("unit", [1.0, np.array(FLAT.matrix[:2])], ids=["per field of view", "per voxel"])
@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_a_blob_lies_at_its_place(tmp_path, kind, unit):
    trajectory = SPOKES if kind == "radial" else spiral(10, 300, FLAT.matrix[:2]).numpy()
    raw = read(tmp_path, shots(trajectory=trajectory, unit=unit), kind=kind)
    assert isinstance(raw, NonCartesianData) and raw.grid.shape == FLAT.matrix
    np.testing.assert_allclose(raw.trajectory, trajectory, atol=1e-5)
    assert (raw.axes, raw.slice_axis, raw.slice_thickness) == ((0, 1), 2, 4.0)
    np.testing.assert_allclose(raw.grid.spacing, [3, 3, 6], rtol=1e-5)
    assert off(raw, FLAT) < 0.02


def with_voxels(mm):
    return dataclasses.replace(FLAT, view=(32 * mm, 27 * mm, 4.0), recon=32 * mm)


SIZES = np.array(FLAT.matrix[:2])


@pytest.mark.parametrize(
    "mm, unit, name",
    [
        (3.0, 96.0, "cycles per mm"),
        (1.2, 32 * 1.2, "cycles per mm"),
        (1.1, 32 * 1.1, "cycles per mm"),
        (0.8, 32 * 0.8, "cycles per mm"),
        (3.0, 9.6, "cycles per cm"),
        (3.0, 32 / (2 * np.pi), "radian per voxel"),
    ],
)
def test_a_unit_in_which_the_trajectory_fills_k_space_is_taken_and_said(tmp_path, mm, unit, name):
    raw = read(tmp_path, shots(unit=unit * SIZES / 32), with_voxels(mm))
    np.testing.assert_allclose(raw.trajectory, SPOKES, atol=1e-4)
    assert len(raw.notes) == 1 and f"is taken as {name}: it covers 100% of the encoded k-space" in raw.notes[0]


@pytest.mark.parametrize(
    "mm, share, words",
    [
        (1.0, 1.0, None),  # both are the same reading
        (1.05, 1.0, None),
        (3.0, 0.95, None),
        (3.0, 0.8, "is taken as cycles per voxel: it covers 80% of the encoded k-space; if that is wrong"),
        (1.05, 0.94, "cycles per voxel: it covers 94% of the encoded k-space (as cycles per mm 99%); if that is wrong"),
    ],
)
def test_cycles_per_voxel_that_leave_a_doubt_are_said(tmp_path, mm, share, words):
    raw = read(tmp_path, shots(trajectory=share * SPOKES, unit=SIZES), with_voxels(mm))
    np.testing.assert_allclose(raw.trajectory, share * SPOKES, atol=1e-4)
    assert len(raw.notes) == (words is not None) and all(words in note for note in raw.notes)


def test_a_stack_of_spokes_lies_at_its_place(tmp_path):
    spokes = radial(24, 48, SLAB.matrix[:2]).numpy()
    lines = []
    for step in range(16):
        for points in spokes.swapaxes(0, 1):
            three = np.concatenate([points, np.full((len(points), 1), step - 8)], 1)
            line = shot(SLAB, three, 0)
            flat = ismrmrd.Acquisition.from_array(line.data, np.ascontiguousarray(points, np.float32))
            for name in ("read_dir", "phase_dir", "slice_dir", "position"):
                getattr(flat, name)[:] = getattr(line, name)
            flat.idx.kspace_encode_step_2 = step
            lines.append(flat)
    raw = read(tmp_path, lines, SLAB)
    assert raw.axes == (0, 1, 2) and raw.n_shots == 24 * 16
    assert off(raw, SLAB) < 0.02


def test_spokes_in_space_lie_at_their_place(tmp_path):
    ball = kooshball(600, 48, SLAB.matrix).numpy()
    raw = read(tmp_path, shots(SLAB, ball, np.array(SLAB.matrix)), SLAB)
    assert raw.axes == (0, 1, 2) and raw.slice_axis is None
    assert off(raw, SLAB) < 0.02


def test_noise_scans_and_discarded_samples(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 2, 4000)).view(np.complex128).astype(np.complex64)
    noise = [one_line(one, np.eye(3), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT]) for one in values]
    whole = read(tmp_path, noise + shots(sample_time_us=5.0))
    assert whole.noise.shape == (2, 4000)
    (tmp_path / "cut").mkdir()
    cut = read(tmp_path / "cut", shots(discard_pre=3, discard_post=2))
    np.testing.assert_array_equal(cut.samples, whole.samples[:, :, 3:-2])
    np.testing.assert_array_equal(cut.trajectory, whole.trajectory[3:-2])


def test_what_is_left_out_is_said(tmp_path):
    weights = np.ones((*SPOKES.shape[:2], 1), np.float32)
    lines = []
    for line, points in zip(shots(), 3 * list(np.concatenate([SPOKES, weights], 2).swapaxes(0, 1)), strict=True):
        other = ismrmrd.Acquisition.from_array(line.data, np.ascontiguousarray(points, np.float32))
        for name in ("read_dir", "phase_dir", "slice_dir", "position"):
            getattr(other, name)[:] = getattr(line, name)
        other.idx.slice = line.idx.slice
        lines.append(other)
    scan = dataclasses.replace(FLAT, recon=48.0)
    raw = read(tmp_path, lines, scan)
    assert "third component" in raw.notes[0] and "96x81 mm is kept, of which the scanner shows 48x81 mm" in raw.notes[1]


def test_lines_that_do_not_fit_are_refused(tmp_path):
    refused(tmp_path, "neither cycles per voxel", shots(trajectory=SPOKES * 2))
    (tmp_path / "between").mkdir()
    refused(tmp_path / "between", "neither cycles per voxel", shots(trajectory=SPOKES * 0.7, unit=SIZES / 2))
    turned = shots()
    turned[-1].traj[:] *= -1
    for n, (match, lines, kind) in enumerate(
        [
            ("trajectory is radial: .*write it into each line", FLAT.lines(), "radial"),
            ("trajectory is epi", shots(), "epi"),
            ("different trajectories", turned, "radial"),
            ("different trajectories", shots()[:-1], "radial"),
            ("64 to 60 samples|60 to 64 samples", shots()[:-1] + shots(trajectory=SPOKES[:60])[-1:], "radial"),
            ("is 0 along an axis", shots(trajectory=SPOKES * [1, 0]), "radial"),
            ("NaN", shots(trajectory=SPOKES * [1, np.nan]), "radial"),
        ]
    ):
        (tmp_path / str(n)).mkdir()
        refused(tmp_path / str(n), match, lines, kind=kind)


def samples_of(trajectory, scan=SLAB):
    """(coils, readout, shots) along (readout, shots, 3)."""
    values = [scan.signal(points[:, 0], points[:, 1], points[:, 2]) for points in trajectory.swapaxes(0, 1)]
    return np.stack(values, -1)


def test_bart(tmp_path):
    ball = kooshball(600, 48, SLAB.matrix).numpy()
    samples = write_cfl(tmp_path / "scan", samples_of(ball)[:, None])
    trajectory = write_cfl(tmp_path / "traj", ball.transpose(2, 0, 1)[None])
    affine = np.eye(4)
    affine[:3, :3] = (TURN * (np.array(SLAB.view) / SLAB.matrix)) * LPS[:, None]
    affine[:3, 3] = LPS * SLAB.position - affine[:3, :3] @ (np.array(SLAB.matrix) // 2)
    raw = load_raw(samples, affine=affine, trajectory=trajectory, matrix=SLAB.matrix)
    assert off(raw, SLAB) < 0.02
    assert load_raw(samples, spacing=3, trajectory=trajectory).grid.shape == (24, 20, 16)
    flat = ball * [1, 1, 0]
    trajectory = write_cfl(tmp_path / "flat", flat.transpose(2, 0, 1)[None])
    assert load_raw(samples, spacing=3, trajectory=trajectory).axes == (0, 1)


def test_arrays(tmp_path):
    samples, spokes = np.ones((2, 64, 30, 3), np.complex64), SPOKES
    np.savez(tmp_path / "scan.npz", samples=samples, trajectory=spokes, spacing=[3.0, 3.0, 5.0], matrix=[32, 27])
    raw = load_raw(tmp_path / "scan.npz")
    assert raw.grid.shape == (32, 27, 3) and raw.grid.spacing.tolist() == [3, 3, 5] and raw.n_coils == 2
    assert load_raw(tmp_path / "scan.npz", spacing=1, matrix=(40, 40)).grid.shape == (40, 40, 3)
    np.save(tmp_path / "scan.npy", samples[..., 0])
    np.save(tmp_path / "traj.npy", spokes)
    raw = load_raw(tmp_path / "scan.npy", trajectory=tmp_path / "traj.npy", spacing=3)
    assert raw.grid.shape == (32, 28, 1) and raw.axes == (0, 1)


def test_a_field_of_view_that_follows_from_the_trajectory_is_said(tmp_path):
    np.save(tmp_path / "scan.npy", np.ones((2, 64, 30), np.complex64))
    np.save(tmp_path / "traj.npy", SPOKES * 0.8)  # 12.8 of 16 cycles
    options = {"trajectory": tmp_path / "traj.npy", "spacing": (3, 2, 5)}
    raw = load_raw(tmp_path / "scan.npy", **options)
    assert raw.grid.shape == (26, 22, 1) and len(raw.notes) == 1
    assert raw.notes[0].startswith("field of view 78x44 mm, matrix 26x22, as its trajectory reaches 12.8x10.8 cycles")
    stated = load_raw(tmp_path / "scan.npy", matrix=(32, 27), **options)
    assert stated.grid.shape == (32, 27, 1) and not stated.notes


@pytest.mark.parametrize(
    "scale, matrix, words",
    [
        (1 / 32, None, "reaches 0.5x0.42.*in cycles per voxel does: scale it to cycles per field of view"),
        (1 / 32, (32, 27), "cycles per voxel"),
        (np.pi / 16, (32, 27), "radian per voxel"),
        (1 / 16, None, "reaches 1x0.84.*matrix is 2x2, not 4 voxels or more"),
    ],
)
def test_a_trajectory_in_another_unit_is_refused(tmp_path, scale, matrix, words):
    np.save(tmp_path / "scan.npy", np.ones((2, 64, 30), np.complex64))
    np.save(tmp_path / "traj.npy", SPOKES * scale)
    with pytest.raises(InvsrError, match=words) as caught:
        load_raw(tmp_path / "scan.npy", trajectory=tmp_path / "traj.npy", spacing=3, matrix=matrix)
    assert str(caught.value).startswith(f"{tmp_path / 'scan.npy'}: ") and "\n" not in str(caught.value)


def test_files_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 64, 30), np.complex64))
    np.save(tmp_path / "t.npy", SPOKES)
    np.save(tmp_path / "short.npy", SPOKES[:, :20])
    np.save(tmp_path / "complex.npy", SPOKES + 0j)
    np.savez(tmp_path / "z.npz", samples=np.ones((2, 64, 30)), trajectory=SPOKES, spacing=1.0)
    np.savez(tmp_path / "none.npz", samples=np.ones((2, 64, 30)) + 0j, trajectory=SPOKES)
    cfl = write_cfl(tmp_path / "scan", np.ones((2, 3, 4, 5)))
    for words, name, options in [
        ("do not fit a trajectory", "x.npy", {"trajectory": "short.npy", "spacing": 1}),
        ("real numbers are needed", "x.npy", {"trajectory": "complex.npy", "spacing": 1}),
        ("cannot be opened|not exist|no such", "x.npy", {"trajectory": "no.npy", "spacing": 1}),
        ("neither one of numpy's", "x.npy", {"trajectory": "z.npz", "spacing": 1}),
        ("where its voxels lie", "x.npy", {"trajectory": "t.npy"}),
        ("beyond the 5 of 10 voxels", "x.npy", {"trajectory": "t.npy", "spacing": 1, "matrix": (10, 10)}),
        ("as many sizes", "x.npy", {"trajectory": "t.npy", "spacing": 1, "matrix": (40, 40, 40)}),
        ("axes cannot be chosen", "x.npy", {"trajectory": "t.npy", "spacing": 1, "axes": (0, 1)}),
        ("chosen for a trajectory only", "x.npy", {"spacing": 1, "matrix": (40, 40)}),
        ("complex", "z.npz", {}),
        ("where its voxels lie", "none.npz", {}),
        ("1 x readout x shots x coils", "scan.cfl", {"trajectory": cfl, "spacing": 1}),
    ]:
        if "trajectory" in options:
            options["trajectory"] = tmp_path / options["trajectory"]
        with pytest.raises(InvsrError, match=words) as caught:
            load_raw(tmp_path / name, **options)
        assert str(caught.value).startswith(f"{tmp_path}") and "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line_or_data(tmp_path):
    path = write_mrd(tmp_path / "scan.h5", shots(), FLAT.header(trajectory="radial"))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for n in range(60):
        at, size = rng.integers(len(content)), rng.integers(1, 40)
        path.write_bytes(content[:at] + rng.bytes(size) + content[at + size :] if n % 2 else content[:at])
        try:
            raw = load_raw(path)
        except InvsrError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert n % 2 and isinstance(raw, NonCartesianData)
