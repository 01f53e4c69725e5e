"""Which scans are found, which belong together, and when results count as finished."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_dataset import describe, jobs_in, write_scan

from invsr.cohort.dataset import Selection, find_scans, read_filters
from invsr.cohort.engine import HELD, Crew
from invsr.cohort.forecast import correction_of, forecast, seconds_of
from invsr.cohort.jobs import CONTRASTS, NONE, RUN, Checksums, Options, is_finished, jobs_of, run_of
from invsr.cohort.names import Name
from invsr.cohort.participants import TO_DO, Planned, need_of
from invsr.errors import InvsrError, InvsrWarning
from invsr.io.files import sha256

OURS = "space-orig_res-iso_desc-invsr"


def found(root, **selection):
    return [source.relative.rsplit("/", 1)[1] for source in find_scans(root, Selection(**selection))]


@pytest.mark.parametrize(
    ("file", "entities"),
    [
        ("sub-01_T2w.nii.gz", {"sub": "01"}),
        ("sub-01_ses-a_acq-ax_run-02_FLAIR.nii", {"sub": "01", "ses": "a", "acq": "ax", "run": "02"}),
        ("sub-01_T2w.json", None),
        ("T2w.nii.gz", None),
        ("sub-01_acq_T2w.nii.gz", None),
        ("sub-01_run-.nii.gz", None),
    ],
)
def test_names_are_taken_apart_and_put_together(file, entities):
    name = Name.of(file)
    assert (None if name is None else dict(name.entities)) == entities
    assert name is None or str(name) == file.split(".")[0]


@pytest.mark.parametrize(
    ("label", "rest"),
    [("axial", None), ("AX", None), ("sag2d", "2d"), ("tseCor", "tse"), ("lowres", "lowres"), ("coronary", "coronary")],
)
def test_directions_of_slices_are_words_of_labels(label, rest):
    assert Name.of(f"sub-1_acq-{label}_T2w.nii.gz").without_direction().get("acq") == rest


def test_scans_are_found_by_label_suffix_and_filter(dataset, tmp_path):
    write_scan(dataset, "sub-02/anat/sub-02_part-phase_FLAIR.nii.gz")
    write_scan(dataset, "sub-02/anat/sub-02_UNIT1.nii.gz")
    write_scan(dataset, "sub-02/func/sub-02_task-rest_bold.nii.gz")
    write_scan(dataset, "derivatives/other/sub-02/anat/sub-02_T2w.nii.gz")
    write_scan(dataset, "sourcedata/sub-02/anat/sub-02_T2w.nii.gz")
    both = ["sub-02_acq-ax_FLAIR.nii.gz", "sub-02_acq-sag_FLAIR.nii.gz"]
    assert len(found(dataset)) == 6
    assert found(dataset, participants=["sub-02"], suffixes=("FLAIR",)) == both
    assert found(dataset, sessions=["2"]) == ["sub-01_ses-2_T2w.nii.gz"]
    path = tmp_path / "filter.json"
    for query, wanted in (
        ({"acquisition": "sag"}, both[1:]),
        ({"suffix": ["FLAIR"], "acq": ["ax", "sag"]}, both),
        ({"acquisition": "*"}, both),
        ({"acquisition": None, "session": None}, ["sub-02_T1w.nii.gz", "sub-03_T2w.nii.gz"]),
        ({"datatype": "func"}, []),
    ):
        path.write_text(json.dumps({"query": query}))
        filters = read_filters(path)
        if wanted:
            assert found(dataset, filters=filters) == wanted
        else:
            with pytest.raises(InvsrError, match="no scan that is asked for"):
                found(dataset, filters=filters)


def test_a_dataset_is_found_by_any_path_to_it(dataset, monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to(dataset)
    monkeypatch.chdir(dataset / "sub-01")
    for path in (Path("../../raw"), Path(".."), dataset / "sub-02" / "..", tmp_path / "link"):
        assert found(path) == found(dataset)


def test_links_that_lead_back_are_not_followed(dataset):
    before = found(dataset)
    (dataset / "sub-01" / "back[1]").symlink_to("..")
    with pytest.warns(InvsrWarning, match=r"the link sub-01/back\[1\] leads to a folder that it lies in"):
        assert found(dataset) == before


def test_a_scan_in_the_folder_of_another_participant_is_left_out_with_a_warning(dataset):
    write_scan(dataset, "sub-02/anat/sub-04_T2w.nii.gz")
    with pytest.warns(InvsrWarning, match=r"sub-04_T2w.nii.gz: left out: .*\(sub-02\): rename it, or move it") as said:
        assert len(found(dataset)) == 6 and len(found(dataset, participants=["01"])) == 2
    assert len(said) == 1


def test_a_pickle_in_the_dataset_is_not_opened(dataset):
    (dataset / ".ancpbids-dataset.pickle").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert len(found(dataset)) == 6


@pytest.mark.parametrize(
    ("change", "selection", "words"),
    [
        (lambda root: (root / "dataset_description.json").unlink(), {}, "has no dataset_description.json"),
        (lambda root: None, {"participants": ["01", "9"]}, "has no participant 9: use 01, 02, 03"),
        (lambda root: None, {"sessions": ["1", "ses-9"]}, "has no session 9: use 1, 2"),
        (lambda root: None, {"suffixes": ("PDw",)}, "no scan that is asked for (PDw)"),
    ],
)
def test_what_is_not_there_is_named(dataset, change, selection, words):
    change(dataset)
    with pytest.raises(InvsrError, match=re.escape(words)):
        find_scans(dataset, Selection(**selection))


def test_a_suffix_or_a_query_without_a_scan_is_said(dataset):
    with pytest.warns(InvsrWarning, match="no image with the suffix FLIAR"):
        assert len(found(dataset, suffixes=("T2w", "FLIAR"))) == 3
    filters = {"t2": {"suffix": "T2w", "session": "1"}, "flair": {"suffix": "FLAIR", "run": 1}}
    with pytest.warns(InvsrWarning, match="no image fits the query 'flair'"):
        assert len(found(dataset, filters=filters)) == 1


@pytest.mark.parametrize("text", ["{", "", "[]", '{"BIDSVersion": 1.8}', '{"BIDSVersion": null}'])
def test_a_description_that_is_none_is_refused_in_one_line(dataset, text):
    (dataset / "dataset_description.json").write_text(text)
    with pytest.raises(InvsrError, match=r"dataset_description\.json: (cannot be read as JSON|is no description)"):
        found(dataset)


def test_a_damaged_derivative_in_the_dataset_does_not_matter(dataset):
    (dataset / "derivatives" / "other").mkdir(parents=True)
    (dataset / "derivatives" / "other" / "dataset_description.json").write_text("{")
    assert len(found(dataset)) == 6


@pytest.mark.parametrize("text", ["[]", "{}", '{"flair": 3}', "{", "[1]"])
def test_a_file_that_is_no_filter_is_refused(tmp_path, text):
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(InvsrError, match=r"filter\.json"):
        read_filters(path)


def test_stacks_of_a_contrast_are_one_job_and_contrasts_of_a_session_if_asked_for(dataset):
    assert {name: len(job.sources) for name, job in jobs_in(dataset).items()} == {
        f"sub-01_ses-1_{OURS}_T2w": 1,
        f"sub-01_ses-2_{OURS}_T2w": 1,
        f"sub-02_{OURS}_FLAIR": 2,
        f"sub-02_{OURS}_T1w": 1,
        f"sub-03_{OURS}_T2w": 1,
    }
    alone = jobs_in(dataset, NONE)
    assert len(alone) == 6 and f"sub-02_acq-sag_{OURS}_FLAIR" in alone
    together = jobs_in(dataset, CONTRASTS)
    contrasts = together.pop(f"sub-02_{OURS}_contrasts")
    assert [len(target.sources) for target in contrasts.targets] == [1, 2]
    assert len(together) == 3


def test_two_files_of_the_same_entities_are_refused(dataset):
    write_scan(dataset, "sub-03/anat/sub-03_T2w.nii")
    with pytest.raises(InvsrError, match="another scan has the same entities"):
        jobs_in(dataset, NONE)


def test_a_run_is_told_by_scans_sidecars_and_options(dataset):
    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]
    run = run_of(job, Options(), sha256)
    assert set(run["Inputs"]) == {"T2w.json", "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz"}
    assert run == run_of(job, Options(report=False), sha256)
    assert run != run_of(job, Options(spacing=(1.0, 1.0, 1.0)), sha256)
    (dataset / "T2w.json").write_text("{}")
    assert run != run_of(job, Options(), sha256)


def test_a_result_counts_if_it_is_whole_and_of_the_same_run(dataset, tmp_path):
    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]
    (target,) = job.targets
    volume, sidecar = (tmp_path / f"{target.output}{ending}" for ending in (".nii.gz", ".json"))
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"voxels")
    run = run_of(job, Options(), sha256)
    for entries, finished in (
        ({RUN: run, "SHA256": sha256(volume)}, True),
        ({RUN: run, "SHA256": "0"}, False),
        ({RUN: run | {"Version": "0"}, "SHA256": sha256(volume)}, False),
        ([], False),
    ):
        sidecar.write_text(json.dumps(entries))
        assert is_finished(job, tmp_path, run, sha256) is finished
    sidecar.write_text(json.dumps({RUN: run, "SHA256": sha256(volume)}))
    assert not is_finished(job, tmp_path, run, sha256, report=True)
    sidecar.write_text(sidecar.read_text()[:-9])
    assert not is_finished(job, tmp_path, run, sha256)


def test_checksums_are_kept_until_a_file_changes(tmp_path):
    path, kept = tmp_path / "scan", tmp_path / "kept.json"
    path.write_text("one")
    first = Checksums(kept)
    assert first(path) == sha256(path)
    first.save()
    entries = json.loads(kept.read_text())
    entries[str(path)][1] = "from the file"
    kept.write_text(json.dumps(entries))
    assert Checksums(kept)(path) == "from the file"
    path.write_text("other")
    assert Checksums(kept)(path) == sha256(path)
    kept.write_text("{")
    assert Checksums(kept)(path) == sha256(path)
    with pytest.raises(InvsrError, match="gone: cannot be read"):
        first(tmp_path / "gone")


def test_a_dataset_of_derivatives_keeps_its_entities(tmp_path):
    describe(tmp_path)
    write_scan(tmp_path, "sub-1/anat/sub-1_space-orig_desc-n4_T2w.nii.gz")
    (job,) = jobs_of(find_scans(tmp_path, Selection()))
    assert job.targets[0].output == f"sub-1/anat/sub-1_{OURS}_T2w"


def test_a_job_asks_for_the_memory_with_which_it_is_fastest_or_for_the_least(dataset, monkeypatch):
    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]
    monkeypatch.setattr("invsr.models.engines.memory_beside", lambda network, voxels, device: 3_000_000_000)
    ahead = forecast(job, Options())
    assert ahead.voxels == 16**3 and ahead.memory == ahead.least + 3_000_000_000
    one = Planned(job, TO_DO, "", ahead, 1.0)
    assert need_of(one, Crew(2, 1, 2 * HELD + 4_000_000_000)) == ahead.memory
    assert need_of(one, Crew(2, 1, 2 * HELD)) == ahead.least
    assert forecast(job, Options(method="tv")).memory == forecast(job, Options(method="tv")).least


def test_slices_that_overlap_are_not_left_out(dataset):
    cube = {"affine": np.eye(4), "shape": (16, 16, 16)}
    write_scan(dataset, "sub-01/ses-1/anat/sub-01_ses-1_PDw.nii.gz", **cube, SliceThickness=4.0)
    write_scan(dataset, "sub-02/anat/sub-02_PDw.nii.gz", **cube, SliceThickness=1.0)
    thick, thin = jobs_in(dataset, suffixes=["PDw"]).values()
    assert not forecast(thick, Options()).nothing_to_gain
    assert forecast(thin, Options()).nothing_to_gain.startswith("its voxels of 1x1x1 mm")
    assert not forecast(thin, Options(slice_thickness=3.0)).nothing_to_gain
    assert forecast(thin, Options(slice_thickness="auto")).nothing_to_gain


@pytest.mark.parametrize("method", ["auto", "cubic", "tikhonov", "tv", "pnp", "unrolled", "deq", "posterior"])
def test_memory_and_time_of_every_method_are_foreseen(dataset, method):
    job = jobs_in(dataset)[f"sub-02_{OURS}_FLAIR"]
    ahead = forecast(job, Options(method=method))
    assert ahead.moving and ahead.least > 4 * ahead.voxels
    assert seconds_of(ahead, Options(method=method), 2.0) > seconds_of(ahead, Options(method=method), 1.0) > 0


def test_time_is_foreseen_by_that_of_jobs_that_have_ended(dataset, tmp_path):
    ahead = forecast(jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"], Options())
    assert correction_of(tmp_path, Options()) == 1
    (tmp_path / "logs").mkdir()
    for n, seconds in enumerate((30, 40, 1000)):
        record = {"State": "done", "Seconds": seconds, "Voxels": ahead.voxels, "Sources": ["one"]}
        (tmp_path / "logs" / f"{n}.json").write_text(json.dumps(record))
    assert seconds_of(ahead, Options(), correction_of(tmp_path, Options())) == pytest.approx(40)
