"""What a run leaves for the record: a figure and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from invsr.errors import InvsrError
from invsr.plot import compare
from invsr.solvers.solution import Solution
from invsr.volume import Volume


def write_report(folder: Path, scans: Sequence[Volume], result: Volume, solution: Solution, method: str) -> None:
    """Write ``views.png`` (scans and result in three planes) and ``report.json`` into `folder`.

    Raises
    ------
    InvsrError
        When the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvsrError(f"{folder}: cannot be made a folder ({error.strerror}): choose another one") from error
    views = {f"{n}: {scan.name}" if len(scans) > 1 else scan.name: scan for n, scan in enumerate(scans)}
    compare({**views, method: result}).savefig(folder / "views.png", dpi=130)
    record = {
        "method": method,
        "scans": [{"name": scan.name, "grid": repr(scan.grid)} for scan in scans],
        "grid": repr(solution.grid),
        "status": solution.status.value,
        "lam": solution.lam,
        "sigma": solution.sigma,
        "chi2": solution.chi2,
        "gain": solution.gain,
        "remarks": solution.remarks(),
        "history": solution.history,
        "versions": {name: version(name) for name in ("invsr", "torch", "numpy", "scipy", "nibabel")},
    }
    (folder / "report.json").write_text(json.dumps(record, indent=2))
