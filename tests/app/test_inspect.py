"""`invsr inspect`: what it says of a scan is what the scan is."""

import json
import shlex

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_files import misplaced, noise_image
from zero_filled import zero_filled

import invsr
from invsr.examples import crop, example


@pytest.fixture(scope="module")
def head():
    """With air beside it."""
    return crop(example(), 84)


@pytest.fixture(scope="module")
def scan(head):
    data = head.numpy()
    data = data * (1000 / np.percentile(data[data > 0], 99.9))
    slices = zero_filled(data.reshape(*data.shape[:2], -1, 4).mean(3), (0.6, 0.7), 10)
    slices = torch.where(torch.arange(slices.shape[2]) % 2 == 1, 0.85 * slices, slices)
    return invsr.Volume.from_array(slices, spacing=(1, 1, 4), slice_thickness=3)


def test_says_what_a_scan_is(scan, tmp_path, run):
    path = tmp_path / "scan.nii.gz"
    invsr.save(scan, path)
    code, out, err = run("inspect", path)
    assert (code, err) == (0, "")
    for words in (
        str(path),
        "voxels               84x84x21",
        "spacing              1x1x4 mm",
        "orientation          RAS",
        "slices               21 along k, 4 mm apart",
        "measured matrix      5",
        "zero-filled by 1.",
        "partial Fourier      none seen",
        "noise correlation    ",
        "darker by 1",
        "invsr reconstruct",
    ):
        assert words in out
    assert "--faults" not in out


def test_json_of_several_files_with_one_that_cannot_be_used(scan, tmp_path, run):
    good, bad = tmp_path / "scan.nii.gz", tmp_path / "bad.nii.gz"
    invsr.save(scan, good)
    bad.write_bytes(b"nothing")
    code, out, err = run("inspect", good, bad, "--json")
    first, second = json.loads(out)
    assert code == 1 and "1 of 2 scans cannot be used" in err
    assert first["voxels"] == "84x84x21" and first["faults"]
    assert second["file"] == str(bad) and set(second) == {"file", "error"}


def test_a_scan_without_fault(tmp_path, run):
    path = tmp_path / "plain.nii.gz"
    invsr.save(invsr.simulate(example(48), slice_thickness=4, noise=0.01), path)
    code, out, _ = run("inspect", path)
    assert code == 0 and "none found" in out and "zero-filled" not in out


def test_a_folder_is_a_table(scan, tmp_path, run):
    (tmp_path / "sub").mkdir()
    invsr.save(scan, tmp_path / "sub" / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("no image")
    code, out, err = run("inspect", tmp_path)
    head, _, *rows = out.splitlines()
    assert code == 1 and "1 of 2 scans cannot be used" in err
    assert head.startswith("| file | voxels | spacing | slice thickness | thickness seen |")
    assert len(rows) == 2 and all(row.count("|") == head.count("|") for row in rows)
    assert "b.nii.gz" in rows[0] and "not" in rows[0] and "84x84x21" in rows[1] and "darker" in rows[1]
    (tmp_path / "empty").mkdir()
    assert "holds no image" in run("inspect", tmp_path / "empty")[2]


def test_the_commands_of_files_of_one_name_do_not_overwrite_each_other(tmp_path, run):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        noise_image(tmp_path / folder / "T2w.nii.gz")
    found = json.loads(run("inspect", tmp_path, "--json")[1])
    assert [shlex.split(facts["command"])[4] for facts in found] == ["001_T2w_iso.nii.gz", "002_T2w_iso.nii.gz"]


def test_the_command_reads_the_scan_as_it_was_inspected(tmp_path, run):
    """Followed as it is printed, it uses the volume, the axis and the geometry that inspect was given."""
    right, path = tmp_path / "right.nii.gz", tmp_path / "scan.nii.gz"
    invsr.save(invsr.simulate(example(48), slice_thickness=4, noise=0.01), right)
    volume = nib.load(misplaced(path, right))
    nib.save(nib.Nifti1Image(np.stack([np.zeros(volume.shape), volume.get_fdata()], -1), None, volume.header), path)
    facts = json.loads(run("inspect", path, "--volume", 1, "--slice-axis", "j", "--geometry", "qform", "--json")[1])[0]
    assert "along j" in facts["slices"] and facts["warnings"] == ["none"]
    assert facts["command"].endswith("_iso.nii.gz --volume 1 --slice-axis j --geometry qform")
    words = shlex.split(facts["command"])[1:]
    words[words.index("-o") + 1] = tmp_path / "out.nii.gz"
    code, _, err = run(*words, "--method", "cubic")
    assert (code, err) == (0, "")
    centres = [invsr.load(one).grid.centre for one in (tmp_path / "out.nii.gz", right)]
    np.testing.assert_allclose(*centres, atol=1e-4)
    assert json.loads(run("inspect", right, "--json")[1])[0]["command"].endswith("_iso.nii.gz")


def test_the_thickness_that_is_seen_stands_beside_the_one_that_is_stated(tmp_path, run):
    path = tmp_path / "scan.nii.gz"
    invsr.save(invsr.simulate(example(), slice_thickness=4, axis=2, noise=0.01), path)
    facts = json.loads(run("inspect", path, "--json")[1])[0]
    low, high = map(float, facts["thickness seen"].split("(")[1].split(")")[0].split(" to "))
    assert facts["slice thickness"].startswith("4 mm") and low < 4 < 1.2 * high


def test_samples_are_named(head, tmp_path, run):
    data = head.numpy()[..., ::4]
    data = data + 0.01 * data.max() * np.random.default_rng(0).standard_normal(data.shape)
    path = tmp_path / "scan.nii.gz"
    invsr.save(invsr.Volume.from_array(data, spacing=(1, 1, 4)), path)
    facts = json.loads(run("inspect", path, "--json")[1])[0]
    assert "estimated, slices look like samples" in facts["slice thickness"]


def test_air_is_named_where_it_tells_of_the_noise(head, tmp_path, run):
    path = tmp_path / "scan.nii.gz"
    volume = invsr.simulate(head, slice_thickness=4, axis=2, noise=0.02, noise_model="rician")
    invsr.save(volume, path)
    assert "Rayleigh" in json.loads(run("inspect", path, "--json")[1])[0]["air"]


def test_a_report_has_a_page_for_each_scan(scan, tmp_path, run):
    for folder in ("a", "b<i>"):
        (tmp_path / folder).mkdir()
        invsr.save(scan, tmp_path / folder / "scan.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    code, out, _ = run("inspect", tmp_path, "--report", tmp_path / "pages" / "here")
    pages = sorted((tmp_path / "pages" / "here").iterdir())
    assert code == 1 and [one.name for one in pages] == ["001_scan.html", "002_scan.html"]
    assert all(str(one) in out for one in pages)
    words = [one.read_text(encoding="utf-8") for one in pages]
    for one in words:
        assert one.count("<svg ") == 3 and one.count("darker by 1") == 1 and "84x84x21" in one
        assert "http" not in one.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "b&lt;i&gt;" in words[1] and "<i>" not in words[1]


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_done(scan, tmp_path, run):
    path = tmp_path / "scan.nii.gz"
    invsr.save(scan, path)
    code, out, err = run("inspect", path, "--report", path / "pages")
    assert (code, out) == (1, "") and "no folder can be made there" in err
