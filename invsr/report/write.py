"""From a solution to the report's files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from invsr import plot
from invsr.errors import InvsrError
from invsr.evidence import Evidence, evidence
from invsr.grid import Grid
from invsr.linalg import Status
from invsr.operators.acquisition import slice_profile_of
from invsr.prepare import Prepared
from invsr.report import page
from invsr.report.layers import DIVERGING, GRAY, SHARE, Layer, lookup_tables, packed, shown, window
from invsr.solvers.solution import CHI2_EXPECTED, Solution
from invsr.solvers.statistics import Residual, as_tuple, residuals
from invsr.volume import Volume

# The map of the prior's share never gets a finer scale than 0 to this.
LEAST_SHARE = 0.2
PACKAGES = ("invsr", "torch", "numpy", "scipy", "nibabel")


def write_report(
    folder: Path,
    names: Sequence[str],
    solution: Solution,
    *,
    command: str = "",
    seed: int = 0,
    files: Mapping[str, Path] | None = None,
) -> list[Path]:
    """Write ``report.html`` and ``report.json`` into `folder`; their paths.

    Parameters
    ----------
    folder : Path
        Made where there is none.
    names : sequence of str
        Of the scans.
    solution : Solution
        Of `invsr.reconstruct`.
    command : str
        What was run.
    seed : int
    files : mapping from role to Path, optional
        Whose checksums are recorded.

    Raises
    ------
    InvsrError
        When the solution is a solver's own, without its problem, or the folder cannot be made.
    """
    problem: Prepared | None = solution.problem
    if problem is None:
        raise InvsrError("a report is made of what invsr.reconstruct returns: this solution does not know its data")
    x = solution.x / problem.scale
    left = residuals(problem.operator, problem.likelihoods, problem.y, solution.prediction)
    gap = max(float(grid.spacing[grid.through_plane]) for grid in problem.grids)
    split = evidence(problem.operator, x, problem.sigma, 2 * gap, (x != 0) if len(names) > 1 else None)
    record = _record(names, solution, left, split, command, seed, files or {})
    layers, sets = _layers(names, solution, left, split)
    text = page.page(
        title=f"{', '.join(names)}: {solution.method}",
        subtitle=f"{'; '.join(map(_size, problem.grids))} to {_size(solution.grid)}",
        cards=_cards(solution, split),
        remarks=solution.remarks(),
        sections=_sections(names, solution, left, record),
        layers=_viewer(layers, sets, solution),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "report.html", folder / "report.json"]
        for path, words in zip(paths, (text, json.dumps(record, indent=2) + "\n"), strict=True):
            path.write_text(words, encoding="utf-8")
    except OSError as error:
        raise InvsrError(f"{folder}: no report can be written there ({error.strerror}): choose another") from error
    return paths


# Figures to compute with ----------------------------------------------------------------------------


def _record(
    names: Sequence[str],
    solution: Solution,
    left: Sequence[Residual],
    split: Evidence,
    command: str,
    seed: int,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    problem: Prepared = solution.problem
    scans = []
    for n, (name, grid, one) in enumerate(zip(names, problem.grids, left, strict=True)):
        model = problem.slices[n]
        scans.append(
            {
                "name": name,
                "grid": _grid(grid),
                "slice_profile": str(model.profile),
                "slice_thickness": model.thickness,
                "sigma": problem.sigma * problem.scale * problem.levels[n],
                "sigma_is": "given" if problem.noise_given[n] else "estimated",
                "slice_chi2": [None if math.isnan(value) else value for value in one.slice_chi2.tolist()],
            }
        )
    if solution.motion is not None:
        for entry, one in zip(scans, solution.motion.scans, strict=True):
            entry |= {"gain": one.gain, "slices_left_out": one.rejected, "motion": one.motion.tolist()}
    return {
        "method": solution.method,
        "command": command,
        "seed": seed,
        "scans": scans,
        "grid": _grid(solution.grid),
        "status": solution.status.value,
        "lam": solution.lam,
        "sigma": solution.sigma,
        "chi2": solution.chi2,
        "gain": solution.gain,
        "evidence": {"prior_share_of_energy": split.energy, "prior_share_of_detail": split.detail},
        "remarks": solution.remarks(),
        "history": solution.history,
        "sha256": {role: hashlib.sha256(path.read_bytes()).hexdigest() for role, path in files.items()},
        "versions": {name: version(name) for name in PACKAGES},
    }


def _grid(grid: Grid) -> dict[str, Any]:
    return {"shape": grid.shape, "spacing_mm": grid.spacing.round(6).tolist(), "affine": grid.affine.tolist()}


def _size(grid: Grid) -> str:
    shape, spacing = "x".join(map(str, grid.shape)), "x".join(f"{value:.4g}" for value in grid.spacing)
    return f"{shape} voxels of {spacing} mm"


# Pictures -------------------------------------------------------------------------------------------


def _layers(
    names: Sequence[str], solution: Solution, left: Sequence[Residual], split: Evidence
) -> tuple[list[Layer], dict[str, list[str]]]:
    """What the viewer offers, and its sets of three."""
    problem: Prepared = solution.problem
    scale, grid = problem.scale, solution.grid
    low, high = window(solution.x)
    several = len(names) > 1
    scans = [f"scan {n + 1}" if several else "scan" for n in range(len(names))]
    layers = []
    for name, called, part, level, where in zip(
        names, scans, as_tuple(problem.y), problem.levels, problem.grids, strict=True
    ):
        data = part * (level * scale)
        layers.append(Layer(called, data, where, low, high, GRAY, f"{name}, its voxels as they were measured."))
    cubic = problem.interpolated(problem.y) * scale
    layers += [
        Layer("cubic", cubic, grid, low, high, GRAY, "Cubic interpolation between the slices: no model, no prior."),
        Layer("result", solution.x, grid, low, high, GRAY, f"What method {solution.method} made of it."),
    ]
    reach = float(np.quantile(split.prior.abs().flatten()[:: max(1, split.prior.numel() // 2_000_000)].cpu(), 0.995))
    layers += [
        Layer(
            "from the data", split.data * scale, grid, low, high, GRAY,
            "The part of the result that the data determine, by the singular values of slices and smoothness.",
        ),
        Layer(
            "from the prior", split.prior * scale, grid, -reach * scale, reach * scale, DIVERGING,
            "The part that the prior supplied. With the part from the data it adds up to the result.",
        ),
        Layer(
            "prior's share", split.share, grid, 0.0, max(LEAST_SHARE, window(split.share)[1]), SHARE,
            "Of the detail around each voxel, the share that the prior supplied: 0 is all measured, 1 all supplied.",
        ),
    ]  # fmt: skip
    if solution.std is not None:
        _, most = window(solution.std)
        layers.append(
            Layer("standard deviation", solution.std, grid, 0.0, most, SHARE, "Stated uncertainty of each voxel.")
        )
    rest = [f"residual {n + 1}" if several else "residual" for n in range(len(names))]
    for called, one, where in zip(rest, left, problem.grids, strict=True):
        layers.append(
            Layer(
                called, one.map, where, -4.0, 4.0, DIVERGING,
                "What the result does not explain of the data, in standard deviations of the noise: edges here mean a "
                "wrong model.",
            )
        )  # fmt: skip
    sets = {
        "Scan, cubic, result": [scans[0], "cubic", "result"],
        "Evidence": ["from the data", "from the prior", "prior's share"],
        "Residual": [scans[0], rest[0], "result"],
    }
    if several:
        sets["Scans"] = [*scans, "result"][:3]
    if solution.std is not None:
        sets["Uncertainty"] = ["cubic", "standard deviation", "result"]
    return layers, sets


def _viewer(layers: Sequence[Layer], sets: Mapping[str, Sequence[str]], solution: Solution) -> dict[str, Any]:
    prepared = [shown(layer) for layer in layers]
    index = {layer.name: n for n, layer in enumerate(layers)}
    display = prepared[index["result"]].grid
    start = np.rint(display.to_voxel(plot.bright_centre(Volume(solution.x.cpu(), solution.grid))))
    return {
        "shape": display.shape,
        "affine": display.affine[:3].tolist(),
        "spacing": display.spacing.tolist(),
        "start": np.clip(start, 0, np.array(display.shape) - 1).astype(int).tolist(),
        "result": index["result"],
        "layers": [packed(layer, display) for layer in prepared],
        "sets": [{"name": name, "columns": [index[one] for one in some]} for name, some in sets.items()],
        "tables": lookup_tables(),
    }


# Words ----------------------------------------------------------------------------------------------


def _cards(solution: Solution, split: Evidence) -> list[tuple[str, str, bool | None]]:
    low, high = CHI2_EXPECTED
    chi2 = solution.chi2
    fits = chi2 is not None and low <= chi2 <= high
    return [
        (
            f"χ² {chi2:.2f}" if chi2 is not None else "no χ²",
            f"Residual per measured voxel; {low} to {high} where slice profile and noise level are right.",
            fits,
        ),
        (
            f"gain {solution.gain:.3f}",
            "Of the result, measured again, against the data; 1 where intensities are kept.",
            abs(solution.gain - 1) <= 0.01,
        ),
        (
            f"{len(solution.history)} iterations" if solution.history else "no iterations",
            _ending(solution),
            solution.status is Status.CONVERGED,
        ),
        (
            f"{split.detail:.0%} of the detail",
            f"and {split.energy:.1%} of the whole image was supplied by the prior, the rest measured.",
            None,
        ),
    ]


def _ending(solution: Solution) -> str:
    if solution.status is not Status.CONVERGED:
        return "It stopped before it settled."
    return "As many as the network was trained with." if solution.method == "unrolled" else "The iteration settled."


def _sections(
    names: Sequence[str], solution: Solution, left: Sequence[Residual], record: Mapping[str, Any]
) -> list[str]:
    problem: Prepared = solution.problem
    first, across = problem.grids[0], problem.grids[0].through_plane
    spacing = float(first.spacing[across])
    profiles = {}
    for model in problem.slices:
        if model.thickness is not None:
            kind = Path(model.profile).name
            profiles[f"{kind}, {model.thickness:g} mm"] = slice_profile_of(model.profile, model.thickness)
    volumes = {
        "scan": Volume((as_tuple(problem.y)[0] * problem.scale).cpu(), first),
        "cubic": Volume((problem.interpolated(problem.y) * problem.scale).cpu(), solution.grid),
        "result": Volume(solution.x.detach().cpu(), solution.grid),
    }
    direction = first.directions[:, across]
    chi2 = {name: one.slice_chi2.cpu().numpy() for name, one in zip(names, left, strict=True)}
    figures = [
        page.chart(
            plot.spectrum(volumes, direction.tolist(), 0.5 / spacing),
            "Frequencies across the slices of the first scan: up to the shaded part slices were dense enough to tell "
            "them apart, within it the model and the prior filled in.",
        )
    ]
    if profiles:
        caption = "What each slice averages; dotted: the neighbours' middles."
        figures.insert(0, page.chart(plot.profile(profiles, spacing), caption))
    sections = [
        page.section(
            "Does the model fit?",
            page.charts(page.chart(plot.slice_chi2(chi2), "χ² of each slice; shaded: as expected.", wide=True)),
            page.text(
                "A slice that stands out has more noise than the others or, where several scans see the same, moved or "
                "lost signal. A level that is off everywhere is a wrong noise level; edges in the residual mean a "
                "wrong profile or thickness."
            ),
        ),
        page.section("What was measured across the slices", page.charts(*figures)),
        page.section("Noise", page.table(_noise(names, problem))),
    ]
    if solution.history:
        caption = "Change and χ² from iteration to iteration; shaded: χ² as expected."
        sections.append(
            page.section("Convergence", page.charts(page.chart(plot.convergence(solution), caption, wide=True)))
        )
    if solution.motion is not None and any(not one.still for one in solution.motion.scans):
        caption = "Shift and turn of each slice about the volume's middle; dotted: slices that were left out."
        sections.append(
            page.section("Motion", page.charts(page.chart(plot.motion(solution.motion), caption, wide=True)))
        )
    sections.append(page.section("How this was made", page.table(_made(record))))
    return sections


def _noise(names: Sequence[str], problem: Prepared) -> dict[str, str]:
    rows = {}
    for name, level, given in zip(names, problem.levels, problem.noise_given, strict=True):
        sigma = problem.sigma * problem.scale * level
        basis = "given" if given else "estimated in flat tissue, from differences between pixels"
        rows[name] = f"standard deviation {sigma:.4g}, {problem.sigma * level:.2%} of bright tissue; {basis}"
    return rows


def _made(record: Mapping[str, Any]) -> dict[str, str]:
    rows = {"Command": record["command"] or "from Python", "Method": record["method"], "λ": f"{record['lam']:.4g}"}
    rows["Seed"] = str(record["seed"])
    for scan in record["scans"]:
        width = "voxels are samples" if scan["slice_thickness"] is None else f"{scan['slice_thickness']:g} mm"
        rows[f"Slices of {scan['name']}"] = f"{scan['slice_profile']}, {width}"
    rows |= {f"SHA-256 of {role}": digest for role, digest in record["sha256"].items()}
    rows["Versions"] = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return rows
