"""The page and the table of all results."""

import csv
import json
import os

import pytest
from small_dataset import jobs_in

from invsr.cohort.engine import Crew
from invsr.cohort.forecast import Forecast
from invsr.cohort.group import page_of, rows_of, write_group
from invsr.cohort.jobs import Options
from invsr.cohort.participants import FINISHED, Planned, run_planned
from invsr.errors import InvsrError

OURS = "space-orig_res-iso_desc-invsr"
COUNT = 120


def write_results(out, count=COUNT):
    """Records of many results, as the participant level leaves them."""
    (out / "logs").mkdir(parents=True)
    (out / "dataset_description.json").write_text("{}")
    for n in range(count):
        output = f"sub-{n:03d}/anat/sub-{n:03d}_space-orig_res-iso_desc-invsr_{'T2w' if n % 2 else 'FLAIR'}"
        state = {5: "failed", 7: "left out"}.get(n, "done")
        error = {5: "scan.nii.gz: is damaged <b>", 7: "nothing to gain"}.get(n, "")
        log = {"State": state, "Error": error, "Seconds": 10 + n / 10, "Voxels": 9, "Outputs": [output], "Sources": []}
        (out / "logs" / f"{n}.json").write_text(json.dumps(log))
        sidecar = out / f"{output}.json"
        sidecar.parent.mkdir(parents=True)
        said = ["slices look thin"] if n == 3 else []
        entries = {"Method": "tv", "Chi2": 1 + n / 1000, "Gain": 1.0, "NoiseShare": 0.01}
        entries |= {"PriorShareOfDetail": 0.2, "SliceCorrelation": None, "Warnings": said}
        entries |= {"Chi2": 7.0} if n == 20 else {}
        entries["SliceThickness" if n == 2 else "SourceSliceThickness"] = [4.0]  # as in results of earlier versions
        sidecar.write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("group") / "out"
    write_results(out)
    folder = out / "reports" / "sub-000_space-orig_res-iso_desc-invsr_FLAIR"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<!doctype html><title>one</title>")
    write_group(out)
    return out


def test_rows_hold_figures_and_mark_what_stands_out(out):
    rows = {row["name"]: row for row in rows_of(out)}
    assert len(rows) == COUNT
    assert [name for name, row in rows.items() if row["outliers"]] == ["sub-020_FLAIR"]
    assert rows["sub-020_FLAIR"]["outliers"] == ["chi2"]
    assert {row["thickness"] for row in rows.values() if row["state"] == "done"} == {4.0}
    one = rows["sub-003_T2w"]
    assert (one["participant"], one["contrast"], one["noise"], one["slices"]) == ("003", "T2w", 1.0, None)
    assert one["warnings"] == ["slices look thin"] and one["report"] == ""
    assert rows["sub-000_FLAIR"]["report"].endswith("report.html")
    assert rows["sub-005_T2w"]["state"] == "failed" and rows["sub-005_T2w"]["chi2"] is None


def test_a_result_that_is_whole_is_no_failure_of_a_run_with_other_options(dataset, tmp_path):
    job = jobs_in(dataset)[f"sub-01_ses-1_{OURS}_T2w"]
    output = job.targets[0].output
    (tmp_path / f"{output}.json").parent.mkdir(parents=True)
    (tmp_path / f"{output}.json").write_text(json.dumps({"Method": "tv", "Chi2": 1.0}))
    (tmp_path / "logs").mkdir()
    # As itself, and together with other contrasts.
    for n, name in enumerate((job.name, f"sub-01_ses-1_{OURS}_contrasts", f"sub-01_ses-1_{OURS}_A")):
        log = tmp_path / "logs" / f"{name}.json"
        log.write_text(json.dumps({"State": "failed", "Error": "out of memory", "Seconds": 3.0, "Outputs": [output]}))
        os.utime(log, (n, n))
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["seconds"], row["chi2"]) == ("failed", 3.0, None)
    planned = [Planned(job, FINISHED, "", Forecast(), 1.0)]
    run_planned(planned, Options(), tmp_path, Crew(), lambda one, outcome: None)
    (row,) = rows_of(tmp_path)
    assert (row["state"], row["error"], row["seconds"], row["chi2"]) == ("done", "", None, 1.0)


def test_the_table_can_be_read_by_others(out):
    with open(out / "group.tsv") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    assert len(lines) == COUNT
    assert lines[20]["chi2"] == "7.00" and lines[20]["outliers"] == "chi2"
    assert lines[5]["error"] == "scan.nii.gz: is damaged <b>" and lines[5]["chi2"] == "n/a"


def test_words_of_files_cannot_become_code():
    text = page_of([{"name": "</script><script>", "state": "done", "outliers": [], "warnings": []}])
    assert "</script><script>" not in text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InvsrError, match="no results of the participant level"):
        write_group(tmp_path)


def shown(page):
    return page.execute_script(
        "return [...document.querySelectorAll('#rows tr td:first-child')].map((o) => o.textContent)"
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_sorts_finds_and_turns_over(browser, out, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((out / "group.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert shown(browser)[:2] == ["sub-000_FLAIR", "sub-001_T2w"] and len(shown(browser)) == 50
    browser.find_element(By.ID, "next").click()
    assert shown(browser)[0] == "sub-050_FLAIR"
    Select(browser.find_element(By.ID, "sort")).select_by_value("chi2")
    browser.find_element(By.ID, "direction").click()
    assert shown(browser)[:2] == ["sub-020_FLAIR", "sub-119_T2w"]
    browser.find_element(By.ID, "find").send_keys("SUB-02 t2w")
    assert shown(browser)[0] == "sub-029_T2w" and len(shown(browser)) == 5
    browser.find_element(By.ID, "find").clear()
    Select(browser.find_element(By.ID, "show")).select_by_value("failed")
    assert shown(browser) == ["sub-005_T2w"]
    assert "scan.nii.gz: is damaged <b>" in browser.find_element(By.ID, "rows").text
    Select(browser.find_element(By.ID, "show")).select_by_value("all")
    browser.find_element(By.ID, "find").send_keys("sub-000")
    browser.find_element(By.LINK_TEXT, "sub-000_FLAIR").click()
    assert browser.title == "one"
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
