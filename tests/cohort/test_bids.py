"""`invsr bids` from end to end, on small scans: results, what is skipped, what fails, and the official validator."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_dataset import jobs_in, write_scan

import invsr
from invsr.cohort.jobs import CONTRASTS, Options
from invsr.cohort.work import DONE, FAILED, command_of, run_job
from invsr.io.sidecars import sidecar_of

OURS = "space-orig_res-iso_desc-invsr"
FAST = ("--method", "cubic", "--no-report", "--n-workers", 1, "--memory", 6)


def files_in(out):
    """Contents of the results, by name; not of what differs from run to run."""
    found = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {str(path): data for path, data in found.items() if path.parts[0] not in ("logs", ".invsr-work")}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_dataset_is_reconstructed_and_what_is_finished_is_left_alone(run, dataset, out):
    code, said, err = run("bids", dataset, out, "participant", *FAST)
    assert code == 1
    failed, last = err.strip().splitlines()
    assert failed.startswith(f"invsr: sub-03_{OURS}_T2w: failed: ") and "is damaged or cut short" in failed
    assert "1 of 4 jobs failed" in last
    assert said.splitlines()[0] == "5 jobs: 4 to do, 1 left out"
    first = files_in(out)
    assert sum(name.endswith(".nii.gz") for name in first) == 3
    for log, state in (("sub-02_{}_T1w", "left out"), ("sub-03_{}_T2w", FAILED), ("sub-02_{}_FLAIR", DONE)):
        assert json.loads((out / "logs" / f"{log.format(OURS)}.json").read_text())["State"] == state

    code, said, _ = run("bids", dataset, out, "participant", *FAST)
    assert said.splitlines()[0] == "5 jobs: 3 finished, 1 left out, 1 to do"
    assert files_in(out) == first

    shutil.copy(dataset / "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz", dataset / "sub-03/anat/sub-03_T2w.nii.gz")
    write_scan(dataset, "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz", seed=9)
    code, said, err = run("bids", dataset, out, "participant", *FAST)
    assert (code, err) == (0, "")
    assert said.splitlines()[0] == "5 jobs: 2 finished, 2 to do, 1 left out"
    changed = {name for name, data in files_in(out).items() if first.get(name) != data}
    assert {Path(name).parts[0] for name in changed} == {"sub-01", "sub-03", "reports"}
    assert not any("ses-1" in name for name in changed)


def test_results_are_those_of_the_command_alone(run, dataset, out, tmp_path, monkeypatch):
    options = Options(method="tv", report=True)
    jobs = jobs_in(dataset)
    monkeypatch.chdir(dataset)
    for name in (f"sub-01_ses-1_{OURS}_T2w", f"sub-02_{OURS}_FLAIR"):
        job = jobs[name]
        assert run_job(job, options, out).state == DONE
        words = command_of(job, options).split()
        assert (
            run(*words[1 : words.index("-o") + 1], tmp_path / "alone.nii.gz", *words[words.index("-o") + 2 :])[0] == 0
        )
        (target,) = job.targets
        assert (out / f"{target.output}.nii.gz").read_bytes() == (tmp_path / "alone.nii.gz").read_bytes()
        entries = json.loads((out / f"{target.output}.json").read_text())
        assert entries["Sources"] == [f"bids:raw:{source.relative}" for source in job.sources]
        record = json.loads((out / target.report / "report.json").read_text())
        assert (entries["Chi2"], entries["Gain"]) == (record["chi2"], record["gain"])
        assert entries["PriorShareOfDetail"] == record["evidence"]["prior_share_of_detail"]
        assert record["command"] == command_of(job, options)
    result = out / f"{jobs[f'sub-01_ses-1_{OURS}_T2w'].targets[0].output}.nii.gz"
    assert json.loads(sidecar_of(result).read_text())["SourceSliceThickness"] == [3.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert invsr.load(result).slice_thickness is None  # isotropic: what is known is that of its sources


def test_contrasts_of_a_session_are_reconstructed_together(dataset, out):
    job = jobs_in(dataset, CONTRASTS)[f"sub-02_{OURS}_contrasts"]
    outcome = run_job(job, Options(method="tv", motion="none", report=False), out)
    assert (outcome.state, outcome.error) == (DONE, "")
    for target in job.targets:
        # All fields of view, on one grid.
        assert nib.load(out / f"{target.output}.nii.gz").shape == (18, 16, 18)
        assert json.loads((out / f"{target.output}.json").read_text())["Method"] == "joint-tv"
        assert (out / target.picture).is_file()
    words = command_of(job, Options(method="tv", motion="none"))
    assert f"--contrast sub-02_{OURS}_T1w sub-02_{OURS}_FLAIR sub-02_{OURS}_FLAIR -o FOLDER --method tv" in words


@pytest.mark.parametrize(
    ("wanted", "of_one", "of_several"),
    [(None, "none", "stack"), ("none", "none", "none"), ("slice", "none", "slice"), ("packages", "packages", "stack")],
)
def test_motion_is_that_of_jobs_that_it_suits(dataset, wanted, of_one, of_several):
    jobs = jobs_in(dataset)
    assert jobs[f"sub-01_ses-1_{OURS}_T2w"].motion(wanted) == of_one
    assert jobs[f"sub-02_{OURS}_FLAIR"].motion(wanted) == of_several


def test_a_file_that_changes_while_it_is_read_gives_no_result(dataset, out, monkeypatch):
    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]

    def changing(*_):
        (dataset / "T2w.json").write_text("{}")
        return []

    monkeypatch.setattr("invsr.cohort.work._reconstructed", changing)
    outcome = run_job(job, Options(), out)
    assert outcome.state == FAILED and "changed while it was reconstructed" in outcome.error
    assert not out.exists()


def test_a_full_disk_leaves_nothing_half(dataset, out):
    script = (
        "import resource, signal, sys; from pathlib import Path;"
        "from small_dataset import jobs_in;"
        "from invsr.cohort.jobs import Options; from invsr.cohort.work import run_job;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY));"
        "job = list(jobs_in(Path(sys.argv[1])).values())[0];"
        "print(run_job(job, Options(method='cubic', report=False), Path(sys.argv[2])).error)"
    )
    words = [sys.executable, "-c", script, str(dataset), str(out)]
    env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    said = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
    assert "could not be written" in said
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_dry_run_lists_jobs_and_writes_nothing(run, dataset, out):
    code, said, err = run("bids", dataset, out, "participant", "--dry-run", "--participant-label", "01", "02")
    assert (code, err) == (0, "") and not out.exists()
    lines = said.splitlines()
    assert len(lines) == 5 and " GB, " in lines[0] and "4 jobs: 3 to do, 1 left out; about" in lines[-1]
    assert "left out (its voxels of 1x1x1 mm" in said


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--combine", "all"], "--combine all: use stacks, contrasts, none"),
        (["--method", "best"], "unknown method"),
        (["--method", "pnp", "--combine", "contrasts"], "reconstructs each contrast alone"),
        (["--motion", "lots"], "unknown motion"),
        (["--memory", "0"], "--memory 0"),
        (["--memory", "1", "--n-workers", "4"], "workers hold"),
        (["--scheduler", "tcp://a:1", "--cluster", "b.yaml"], "give one of them"),
        (["--scheduler", "tcp://a:1", "--n-workers", "4"], "--n-workers: is for workers of this machine: leave it out"),
        (["--cluster", "b.yaml", "--memory", "4"], "--memory: is for workers of this machine"),
        (["--spacing", "x"], "--spacing x"),
        (["--participant-label", "77"], "has no participant 77"),
        (["--bids-filter-file", "nowhere.json"], "nowhere.json"),
    ],
)
def test_words_that_no_job_could_use_are_refused_first(run, dataset, out, words, error):
    code, _, err = run("bids", dataset, out, "participant", *words)
    assert code == 1 and error in err and len(err.strip().splitlines()) == 1
    assert not list(out.rglob("*.nii.gz"))


def test_the_group_level_refuses_what_it_would_ignore(run, dataset, out):
    code, _, err = run("bids", dataset, out, "group", "--suffix", "FLAIR")
    assert code == 1 and "--suffix: the group level sums up all results" in err


def test_the_dataset_itself_is_not_written_into(run, dataset):
    code, _, err = run("bids", dataset, dataset, "participant")
    assert code == 1 and "is the dataset itself" in err


def test_the_official_validator_finds_no_error(dataset, out):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")
    from invsr.cohort.derivative import prepare_dataset
    from invsr.cohort.group import rows_of, write_group

    prepare_dataset(dataset, out)
    for name, job in jobs_in(dataset).items():
        if "sub-03" not in name:
            assert run_job(job, Options(method="cubic"), out).error == ""
    write_group(out)  # without logs, too
    assert [row["state"] for row in rows_of(out)] == [DONE] * 4
    found = subprocess.run([validator, out, "--json"], capture_output=True, text=True)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [one for one in issues if one["severity"] == "error"] == []
    assert found.returncode == 0


def test_thumbnails_show_the_scan_above_the_result(dataset, out):
    from matplotlib.image import imread

    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]
    run_job(job, Options(method="cubic", report=False), out)
    picture = imread(out / job.targets[0].picture)[..., 0]
    rows, columns = picture.shape
    assert columns > rows  # three planes beside each other
    above, below = picture[: rows // 2 - 4], picture[rows // 2 : -4]
    assert above.shape == below.shape
    # Thick slices are steps along the first rows' columns; both show the same anatomy.
    assert np.corrcoef(above.ravel(), below.ravel())[0, 1] > 0.8
    assert len(np.unique(np.abs(np.diff(above[:, columns // 6])) > 0.02)) == 2
