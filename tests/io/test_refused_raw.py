"""k-space files that cannot be used: one line says what is wrong, before memory is taken."""

import h5py
import ismrmrd
import numpy as np
import pytest
from raw_files import SMALL, TURN, changed, refused, write_mrd

from invsr.errors import InvsrError
from invsr.io.raw import load_raw


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
