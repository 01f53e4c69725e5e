"""The group level: one page and one table of all results of a derivative dataset."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from invsr.cohort.derivative import THICKNESS
from invsr.cohort.jobs import THUMBNAILS, read_entries
from invsr.cohort.names import Name
from invsr.cohort.participants import LEFT_OUT, LOGS
from invsr.cohort.work import DONE, FAILED
from invsr.errors import InvsrError
from invsr.io.files import check_writable, write_whole
from invsr.io.sidecars import DESCRIPTION
from invsr.pipeline.slice_check import EXPECTED
from invsr.report.page import HEAD, style
from invsr.solvers.solution import CHI2_EXPECTED

# Figures of a result: key of the row, heading, entry of the sidecar, digits, and the least difference that matters.
FIGURES = (
    ("chi2", "χ²", "Chi2", 2, 0.15),
    ("gain", "gain", "Gain", 3, 0.01),
    ("noise", "noise, %", "NoiseShare", 2, 0.5),
    ("thickness", "slices, mm", THICKNESS, 2, 0.5),
    ("prior", "prior's share, %", "PriorShareOfDetail", 1, 5.0),
    ("slices", "slice correlation", "SliceCorrelation", 2, 0.15),
)
PERCENT = ("noise", "prior")
# What entries were called in earlier results.
EARLIER = {THICKNESS: "SliceThickness"}
# A figure so many robust standard deviations from the median of its contrast stands out, where there are so many.
FAR, LEAST = 3.5, 8
# Standard deviations of a normal distribution per median absolute deviation.
DEVIATIONS = 1.4826
# Pictures lie beside the page: on a disk, or where a server has put it.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' file: http: https: data:"
)
Row = dict[str, Any]


def write_group(out: Path) -> list[Path]:
    """Write ``group.html`` and ``group.tsv`` into a derivative dataset; their paths.

    Raises
    ------
    InvsrError
        When the folder is none that the participant level has written, or the files cannot be written.
    """
    rows = rows_of(out) if (out / DESCRIPTION).is_file() else []
    if not rows:
        raise InvsrError(f"{out}: no results of the participant level are here: run it first")
    paths = [out / "group.html", out / "group.tsv"]
    for path in paths:
        check_writable(path, (path.suffix,))
    for path, make in zip(paths, (page_of, table_of), strict=True):
        write_whole(path, make(rows))
    return paths


def rows_of(out: Path) -> list[Row]:
    """A row for each result, and for each job that failed or was left out, by name."""
    # A result that several jobs make (alone, with other contrasts) is what the latest of them left.
    paths = sorted((out / LOGS).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    logs = [read_entries(path) for path in paths]
    of_output = {str(output): log for log in logs for output in log.get("Outputs", [])}
    # Results of logs that somebody tidied away are results all the same.
    for path in out.glob("sub-*/**/*_desc-invsr_*.json"):
        of_output.setdefault(path.relative_to(out).with_suffix("").as_posix(), {"State": DONE})
    rows = [_row(out, output, log) for output, log in of_output.items()]
    _mark_outliers(rows)
    return sorted(rows, key=lambda row: row["name"])


def _row(out: Path, output: str, log: dict[str, Any]) -> Row:
    stem = output.rsplit("/", 1)[1]
    name = Name.of(f"{stem}.nii.gz")
    said = read_entries(out / f"{output}.json") if log.get("State") == DONE else {}
    row: Row = {
        "name": stem.replace("_space-orig_res-iso_desc-invsr", ""),
        "participant": "" if name is None else name.get("sub"),
        "session": "" if name is None else name.get("ses") or "",
        "contrast": "" if name is None else name.suffix,
        "state": log.get("State", FAILED),
        "error": log.get("Error", ""),
        "method": said.get("Method", ""),
        "seconds": log.get("Seconds"),
        "warnings": said.get("Warnings", []),
        "outliers": [],
        "volume": f"{output}.nii.gz" if said else "",
        "picture": _there(out, f"reports/{stem}/{THUMBNAILS}") if said else "",
        "report": _there(out, f"reports/{stem}/report.html") if said else "",
    }
    for key, _, entry, *_ in FIGURES:
        value = said.get(entry, said.get(EARLIER.get(entry, entry)))
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int | float) and math.isfinite(value):
            row[key] = 100 * value if key in PERCENT else value
        else:
            row[key] = None
    return row


def _there(out: Path, relative: str) -> str:
    return relative if (out / relative).is_file() else ""


def _mark_outliers(rows: Sequence[Row]) -> None:
    """Add to each row which of its figures stand out among those of its contrast."""
    for contrast in {row["contrast"] for row in rows}:
        for key, _, _, _, least in FIGURES:
            known = [row for row in rows if row["contrast"] == contrast and row[key] is not None]
            if len(known) < LEAST:
                continue
            middle = median(row[key] for row in known)
            spread = DEVIATIONS * median(abs(row[key] - middle) for row in known)
            for row in known:
                if abs(row[key] - middle) > max(FAR * spread, least):
                    row["outliers"].append(key)


def table_of(rows: Sequence[Row]) -> str:
    """The rows as a table of tab-separated values, n/a where there is none."""
    plain = ("name", "participant", "session", "contrast", "state", "method")
    heads = [*plain, *(key for key, *_ in FIGURES), "seconds", "outliers", "warnings", "error"]
    lines = ["\t".join(heads)]
    for row in rows:
        cells = [
            *(row[key] for key in plain),
            *(None if row[key] is None else f"{row[key]:.{digits}f}" for key, _, _, digits, _ in FIGURES),
            row["seconds"],
            " ".join(row["outliers"]),
            " | ".join(row["warnings"]),
            row["error"],
        ]
        lines.append("\t".join(" ".join(str(cell).split()) if cell not in (None, "") else "n/a" for cell in cells))
    return "\n".join(lines) + "\n"


def page_of(rows: Sequence[Row]) -> str:
    """The rows as a page: sortable, in pages of 50, with thumbnails, and links to the reports."""
    room = files("invsr.cohort")
    states = [row["state"] for row in rows]
    marked = sum(bool(row["outliers"]) for row in rows)
    warned = sum(bool(row["warnings"]) for row in rows)
    words = (
        f"{states.count(DONE)} results, {states.count(FAILED)} failed, {states.count(LEFT_OUT)} left out; "
        f"{warned} with remarks, {marked} with a figure that stands out."
    )
    columns = [{"key": key, "head": head, "digits": digits} for key, head, _, digits, _ in FIGURES]
    data = json.dumps({"rows": rows, "figures": columns}).replace("<", "\\u003c")
    body = (room / "group.html").read_text(encoding="utf-8")
    usual = {"CHI2": CHI2_EXPECTED, "CORRELATION": EXPECTED}
    for word, (low, high) in usual.items():
        body = body.replace(word, f"{low:g} to {high:g}")
    body = body.replace("SUMMARY", html.escape(words)).replace("FAR", f"{FAR:g}")
    script = (room / "group.js").read_text(encoding="utf-8")
    head = HEAD.format(
        policy=POLICY, title="All results", style=style() + (room / "group.css").read_text(encoding="utf-8")
    )
    return head + body.replace("ROWS", data).replace("SCRIPT", script)
