"""What every report says of a run: how it was made, of what, by what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from invsr.grid import Grid
from invsr.io.files import sha256, write_whole
from invsr.models import compiled, engines
from invsr.pipeline import Reconstruction

PACKAGES = ("invsr", "torch", "numpy", "scipy", "nibabel")


def run_record(result: Reconstruction, command: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """The figures of a run, for JSON."""
    return {
        "method": str(result.method),
        "command": command,
        "seed": result.seed,
        "networks": result.networks,
        "processor": engines.processor(),
        "threads": torch.get_num_threads(),
        "grid": grid_record(result.grid),
        "status": result.status.value,
        "lam": result.lam,
        "sigma": result.sigma,
        "chi2": result.chi2,
        "gain": result.gain,
        "remarks": result.remarks(),
        "history": result.history,
        "sha256": {role: sha256(path) for role, path in files.items()},
        "versions": {name: version(name) for name in PACKAGES}
        | ({} if (openvino := compiled.version()) is None else {"openvino": openvino}),
    }


def grid_record(grid: Grid) -> dict[str, Any]:
    """Where voxels lie, for JSON."""
    return {"shape": grid.shape, "spacing_mm": grid.spacing.round(6).tolist(), "affine": grid.affine.tolist()}


def made_of(record: Mapping[str, Any], of_data: Mapping[str, str]) -> dict[str, str]:
    """The rows of the table "How this was made"; those of the data after command and method."""
    rows = {"Command": record["command"] or "from Python", "Method": record["method"], "λ": f"{record['lam']:.4g}"}
    rows["Seed"] = str(record["seed"])
    rows |= of_data
    rows |= {f"SHA-256 of {role}": digest for role, digest in record["sha256"].items()}
    ways = [f"{network} by {', '.join(found)}" for network, found in record["networks"].items()]
    rows |= {"Networks": "; ".join(ways)} if ways else {}
    rows["Processor"] = f"{record['processor']}, {record['threads']} threads"
    rows["Versions"] = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return rows


def write_pages(folder: Path, text: str, record: Mapping[str, Any]) -> list[Path]:
    """``report.html`` and ``report.json``; their paths."""
    paths = [folder / "report.html", folder / "report.json"]
    for path, words in zip(paths, (text, json.dumps(record, indent=2) + "\n"), strict=True):
        write_whole(path, words)
    return paths
