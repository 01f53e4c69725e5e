"""Sidecars: what they say of slices, where they are looked for, and what in them is ignored or refused."""

import json

import pytest
from volume_files import load_quietly, load_with_warning, refuses, write

from invsr.io.nifti import load


def with_sidecar(folder, content, name="sub-1.acq_T2w", **fields):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return write(folder / f"{name}.nii.gz", **fields)


def test_slice_thickness_and_spacing_come_from_the_sidecar(tmp_path):
    volume = load_quietly(with_sidecar(tmp_path, {"SliceThickness": 4, "SpacingBetweenSlices": 4.52, "EchoTime": 0.1}))
    assert (volume.slice_thickness, volume.slice_spacing) == (4.0, 4.52)
    volume = load_quietly(with_sidecar(tmp_path, {"SliceThickness": None}))
    assert (volume.slice_thickness, volume.slice_spacing) == (None, None)


def test_a_spacing_that_disagrees_with_the_affine_is_warned_of(tmp_path):
    path = with_sidecar(tmp_path, {"SpacingBetweenSlices": 5})
    volume = load_with_warning("T2w.json: SpacingBetweenSlices is 5 mm but the affine's is 4.5 mm", path)
    assert volume.slice_spacing == 5 and volume.grid.spacing[2] == pytest.approx(4.5)


@pytest.mark.parametrize("value", [0, -5, "5", True, [5], float("nan"), float("inf"), 10**400])
def test_values_that_are_no_length_are_ignored_with_a_warning(tmp_path, value):
    path = with_sidecar(tmp_path, {"SliceThickness": value, "SpacingBetweenSlices": 4.5})
    volume = load_with_warning("T2w.json: SliceThickness is .*, not a length in mm above zero: ignored", path)
    assert (volume.slice_thickness, volume.slice_spacing) == (None, 4.5)


def test_slice_times_come_from_the_sidecar(tmp_path):
    n = load_quietly(write(tmp_path / "plain.nii.gz")).grid.shape[2]
    times = [0.1 * k for k in range(n)]
    assert load_quietly(with_sidecar(tmp_path, {"SliceTiming": times})).slice_times == tuple(times)
    turned = with_sidecar(tmp_path, {"SliceTiming": times, "SliceEncodingDirection": "k-"})
    assert load_quietly(turned).slice_times == tuple(times[::-1])
    for wrong in (times[1:], "fast", [None] * n, [True] * n):
        path = with_sidecar(tmp_path, {"SliceTiming": wrong})
        volume = load_with_warning(f"SliceTiming is not one number for each of {n} slices: ignored", path)
        assert volume.slice_times is None


def test_times_that_are_all_the_same_tell_no_order(tmp_path):
    n = load_quietly(write(tmp_path / "plain.nii.gz")).grid.shape[2]
    path = with_sidecar(tmp_path, {"SliceTiming": [0] * n})
    assert load_with_warning("SliceTiming is 0 for all slices, which tells no order", path).slice_times is None


@pytest.mark.parametrize("value", ["-k", "K", "z", "", ["k"], 2])
def test_a_slice_direction_that_is_none_is_ignored_with_a_warning(tmp_path, value):
    n = load_quietly(write(tmp_path / "plain.nii.gz")).grid.shape[2]
    times = tuple(float(k) for k in range(n))
    path = with_sidecar(tmp_path, {"SliceEncodingDirection": value, "SliceTiming": times})
    volume = load_with_warning("SliceEncodingDirection is .*, none of i, i-, j, j-, k, k-: ignored", path)
    assert (volume.slice_axis, volume.slice_times) == (None, times)
    assert load_quietly(with_sidecar(tmp_path, {"SliceEncodingDirection": None})).slice_axis is None


def test_a_sidecar_that_is_no_object_is_ignored_with_a_warning(tmp_path):
    assert load_with_warning("not a JSON object", with_sidecar(tmp_path, [1, 2])).slice_thickness is None


@pytest.mark.parametrize("content", ["", "{'SliceThickness': 4}", '{"SliceThickness": 4,\n', "[" * 100_000])
def test_a_sidecar_that_is_no_json_is_refused(tmp_path, content):
    path = with_sidecar(tmp_path, content)
    assert refuses("cannot be read as JSON", load, path).startswith(str(path)[:-7] + ".json: ")


def test_sidecars_are_inherited_within_a_dataset_and_nowhere_else(tmp_path):
    folder = tmp_path / "sub-1" / "ses-2" / "anat"
    folder.mkdir(parents=True)
    path = with_sidecar(folder, {"SpacingBetweenSlices": 4.5}, "sub-1_ses-2_acq-ax_T2w")
    (tmp_path / "T2w.json").write_text(json.dumps({"SliceThickness": 3, "SliceEncodingDirection": "k"}))
    (tmp_path / "acq-ax_T2w.json").write_text(json.dumps({"SliceThickness": 3.5}))
    (tmp_path / "acq-sag_T2w.json").write_text(json.dumps({"SliceThickness": 1}))
    (tmp_path / "FLAIR.json").write_text(json.dumps({"SliceThickness": 1}))
    (tmp_path / "sub-1" / "sub-1_T2w.json").write_text(json.dumps({"SliceThickness": 4}))
    assert load_quietly(path).slice_thickness is None
    (tmp_path / "dataset_description.json").write_text("{}")
    volume = load_quietly(path)
    assert (volume.slice_thickness, volume.slice_spacing, volume.slice_axis) == (4, 4.5, 2)
    (tmp_path / "sub-1" / "sub-1_T2w.json").unlink()
    assert load_quietly(path).slice_thickness == 3.5
    (tmp_path / "acq-ax_T2w.json").write_text("[]")
    assert load_with_warning("acq-ax_T2w.json: is not a JSON object", path).slice_thickness == 3
