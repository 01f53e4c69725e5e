"""fastMRI's files, BART's and arrays: the same samples at the same places, and one line for what is wrong."""

import h5py
import numpy as np
import pytest
import torch
from raw_files import FLAT, another, changed, read, write_cfl

from invsr.errors import InvsrError
from invsr.io.raw import is_raw, load_raw


@pytest.mark.parametrize("damage", ["", "mask", "no header", "partial"])
@pytest.mark.parametrize("coils", [2, None])
def test_fastmri(tmp_path, coils, damage):
    whole = another(tmp_path, changed(FLAT, recon=96.0)).samples[0].numpy().transpose(3, 0, 1, 2).copy()
    half = read(tmp_path, FLAT).samples[0]
    if coils is None:
        whole, half = whole[:, 0], half[:1]
    whole[..., 18:] = 0
    measured = np.arange(21) < 18
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        if damage == "mask":
            file["mask"] = (np.arange(21) % 2).astype(np.float32)
            measured &= np.arange(21) % 2 == 1
        if damage == "partial":
            whole[..., :10, :] = 0
        if damage != "no header":
            file["ismrmrd_header"] = FLAT.header().toXML().encode()
        file["kspace"] = whole
    if damage == "no header":
        with pytest.raises(InvsrError, match="or their affine"):
            load_raw(tmp_path / "scan.h5")
    raw = load_raw(tmp_path / "scan.h5", spacing=(2, 3, 4) if damage == "no header" else None)
    assert raw.n_coils == (coils or 1) and raw.axes == (0, 1) and raw.slice_axis == 2
    np.testing.assert_allclose(raw.grid.spacing, [2, 3, 4])
    np.testing.assert_allclose(raw.grid.centre, 0, atol=1e-9)
    if damage in ("no header", "partial"):
        assert raw.grid.shape == (48, 21, 5)
        rows = np.arange(48) >= (10 if damage == "partial" else 0)
        assert (raw.measured.numpy() == (rows[:, None] & measured)[..., None]).all()
    else:
        assert (raw.measured.numpy() == measured[None, :, None]).all()
        np.testing.assert_allclose(raw.samples[0], half * torch.from_numpy(measured)[:, None], atol=1e-5)
        assert raw.slice_thickness == 4.0 and "oversampling was removed" in raw.notes[0]


@pytest.mark.parametrize(
    "content, match",
    [
        ({"kspace": np.ones((2, 4, 4))}, "its kspace is float64 of shape 2x4x4"),
        ({"kspace": np.ones((4, 4), np.complex64)}, "its kspace is complex64 of shape 4x4"),
        ({"kspace": np.full((2, 4, 4), np.nan, np.complex64)}, "NaN or infinite"),
        ({"kspace": np.zeros((2, 4, 4), np.complex64)}, "nothing was measured|above it somewhere"),
        ({"kspace": np.ones((2, 4, 4), np.complex64), "mask": np.ones(3)}, "its mask is of 3 lines and kspace of 4"),
        ({"kspace": np.ones((2, 4, 4), np.complex64), "ismrmrd_header": b"text"}, "is not the XML of ISMRMRD"),
        (
            {"kspace": np.ones((2, 4, 4), np.complex64), "ismrmrd_header": FLAT.header().toXML().encode()},
            "readouts are of 4 samples, the header encodes 48",
        ),
    ],
)
def test_fastmri_files_that_do_not_fit_are_refused(tmp_path, content, match):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(InvsrError, match=match) as caught:
        load_raw(tmp_path / "scan.h5", spacing=1)
    assert str(caught.value).startswith(f"{tmp_path / 'scan.h5'}: ")


RNG = np.random.default_rng(3)
SAMPLES = (RNG.normal(size=(3, 6, 5, 4)) + 1j * RNG.normal(size=(3, 6, 5, 4))).astype(np.complex64)


@pytest.mark.parametrize("ending", [".cfl", ".hdr"])
def test_bart(tmp_path, ending):
    path = write_cfl(tmp_path / "scan", SAMPLES).with_suffix(ending)
    raw = load_raw(path, spacing=(1, 2, 3))
    np.testing.assert_array_equal(raw.samples[0], SAMPLES)
    assert raw.axes == (0, 1, 2) and raw.slice_axis is None
    raw = load_raw(path, affine=np.diag([1, 2, 3, 1]), axes=(0, 1), slice_thickness=2.0)
    assert raw.slice_axis == 2 and raw.slice_thickness == 2.0


def test_a_slice_across_the_readout_of_bart(tmp_path):
    raw = load_raw(write_cfl(tmp_path / "scan", SAMPLES[:, :1]), spacing=1)
    assert raw.axes == (1, 2) and raw.slice_axis == 0


@pytest.mark.parametrize(
    "header, match",
    [
        (None, "scan.hdr, their dimensions, is missing"),
        ("# Dimensions\n6 5 4 3 2 1\n", r"dimensions behind the coils \(map 2\)"),
        ("# Dimensions\n6 5 4 2 1 1 1 1 1 1 1 1 1 3\n", r"\(slice 3\).*bart transpose 2 13"),
        ("# Dimensions\n6 5 4 2\n", "is of 1920 bytes of samples, scan.cfl holds 2880"),
        ("# Dimensions\n1000000 1000000 1000000 3\n", "scan.cfl holds 2880"),
        ("# Dimensions\n6 5 four 3\n", "no line of whole numbers"),
        ("# Dimensions\n6 5 0 3\n", "a dimension of 0"),
        ("nothing", "no line of whole numbers"),
        (b"\xff\xfe\x00", "damaged"),
    ],
)
def test_pairs_of_bart_that_do_not_fit_are_refused(tmp_path, header, match):
    path = write_cfl(tmp_path / "scan", SAMPLES)
    path.with_suffix(".hdr").unlink()
    if header is not None:
        path.with_suffix(".hdr").write_bytes(header if isinstance(header, bytes) else header.encode())
    with pytest.raises(InvsrError, match=match):
        load_raw(path, spacing=1)


@pytest.mark.parametrize(
    "shape, n_coil_axes, coils, grid",
    [
        ((3, 6, 5, 4), None, 3, (6, 5, 4)),
        ((3, 6, 5), None, 3, (6, 5, 1)),
        ((3, 6, 5), 0, 1, (3, 6, 5)),
        ((6, 5, 4), None, 1, (6, 5, 4)),
        ((6, 5, 4), 1, 6, (5, 4, 1)),
        ((6, 5), None, 1, (6, 5, 1)),
        ((6, 5), 0, 1, (6, 5, 1)),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_arrays(tmp_path, ending, shape, n_coil_axes, coils, grid):
    values = SAMPLES.ravel()[: np.prod(shape)].reshape(shape)
    (np.save if ending == ".npy" else np.savez)(tmp_path / f"x{ending}", values)
    raw = load_raw(tmp_path / f"x{ending}", spacing=(1, 2, 5), n_coil_axes=n_coil_axes)
    assert raw.n_coils == coils and raw.grid.shape == grid
    assert raw.axes == ((0, 1) if grid[2] == 1 else (0, 1, 2))
    np.testing.assert_array_equal(raw.samples.numpy().reshape(shape), values)
    assert bool(raw.notes) == (len(shape) == 3 and n_coil_axes is None)


def test_arrays_of_other_kinds_are_refused(tmp_path):
    def said(name, save, **options):
        save(tmp_path / name)
        with pytest.raises(InvsrError) as caught:
            load_raw(tmp_path / name, **{"spacing": 1, **options})
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{tmp_path / name}: ")

    def array(values):
        return lambda path: np.save(path, values)

    assert said("a.npy", array(SAMPLES.real)).startswith("holds float32 of shape 3x6x5x4")
    assert said("b.npy", array(SAMPLES[0, 0, 0])).startswith("holds complex64 of shape 4:")
    assert said("c.npy", array(np.array([{}], object))).startswith("is damaged or cut short")
    assert "cannot have 1 coil axes" in said("d.npy", array(SAMPLES[0, 0]), n_coil_axes=1)
    assert "5 of its samples are NaN" in said("e.npy", array(np.where(np.arange(4) == 2, np.nan, SAMPLES[0, 0])))
    assert said("f.npy", array(SAMPLES), spacing=None).startswith("does not say where its voxels lie")
    assert said("g.npy", array(SAMPLES), index=0).startswith("index cannot be chosen")
    assert "holds 2 arrays (a, b)" in said("h.npz", lambda path: np.savez(path, a=SAMPLES, b=SAMPLES))
    assert "is not one of numpy's .npy files" in said("i.npy", lambda path: path.write_text("text"))
    assert said("j.npy", lambda path: path.write_bytes((tmp_path / "f.npy").read_bytes()[:-9])).startswith("is damaged")
    assert said("k.npz", lambda path: path.write_bytes((tmp_path / "h.npz").read_bytes()[:-99])).startswith(
        "is damaged"
    )
    huge = (tmp_path / "f.npy").read_bytes().replace(b"(3, 6, 5, 4)", b"(99999999, )")
    assert said("l.npy", lambda path: path.write_bytes(huge)).startswith("is damaged")
    assert said("m.npy", array(SAMPLES), spacing=-1).startswith("spacing -1 mm")


def test_one_slice_of_eight_coils_or_of_one(tmp_path):
    """The shapes of two public files: eight coils with samples left out, and one coil without an axis of coils."""
    eight = np.zeros((8, 46, 36), np.complex64)
    eight[:, ::2, ::3] = 1
    np.save(tmp_path / "brain.npy", eight)
    np.save(tmp_path / "knee.npy", np.ones((33, 64), np.complex64))
    brain = load_raw(tmp_path / "brain.npy", spacing=(1, 1, 1))
    knee = load_raw(tmp_path / "knee.npy", spacing=(0.5, 0.5, 3))
    assert (brain.n_coils, brain.grid.shape, brain.axes) == (8, (46, 36, 1), (0, 1))
    assert (knee.n_coils, knee.grid.shape, knee.axes) == (1, (33, 64, 1), (0, 1))
    assert float(brain.measured.float().mean()) == pytest.approx(1 / 6) and bool(knee.measured.all())


def test_names_of_raw_data(tmp_path):
    assert all(is_raw(name) for name in ("a.h5", "a.HDF5", "a.mrd", "a.cfl", "a.npy", "a.npz"))
    assert not any(is_raw(name) for name in ("a.nii", "a.nii.gz", "a.hdr", "a.img", "a"))
    write_cfl(tmp_path / "scan", SAMPLES)
    assert is_raw(tmp_path / "scan.hdr")
