"""From a solution to the report's files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.files import write_whole
from invsr.numerics.iteration import Status
from invsr.operators.scan_model import slice_profile_of
from invsr.pipeline.problem import Prepared
from invsr.report import page, plot
from invsr.report.views import layers_of, packed_views
from invsr.solvers.residuals import Residual, as_tuple, residuals
from invsr.solvers.solution import CHI2_EXPECTED, Solution
from invsr.uncertainty.evidence import Evidence, split_evidence
from invsr.volume import Volume

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
    names = _distinct(names)
    make_folder(folder)
    x = solution.x / problem.scale
    cubic = problem.interpolated(problem.y) * problem.scale
    left = residuals(problem.operator, problem.likelihoods, problem.y, solution.prediction)
    gap = max(float(grid.spacing[grid.through_plane]) for grid in problem.grids)
    split = split_evidence(problem.operator, x, problem.sigma, 2 * gap, (x != 0) if len(names) > 1 else None)
    record = _record(names, solution, left, split, command, seed, files or {})
    layers, sets = layers_of(names, solution, cubic, left, split)
    text = page.page(
        title=f"{', '.join(names)}: {solution.method}",
        subtitle=f"{'; '.join(map(_size, problem.grids))} to {_size(solution.grid)}",
        cards=_cards(solution, split),
        remarks=solution.remarks(),
        sections=_sections(names, solution, cubic, left, record),
        layers=packed_views(layers, sets, solution),
    )
    paths = [folder / "report.html", folder / "report.json"]
    for path, words in zip(paths, (text, json.dumps(record, indent=2) + "\n"), strict=True):
        write_whole(path, words)
    return paths


def make_folder(folder: Path) -> None:
    """Make a report's folder, to be called before the work that it is to report on.

    Raises
    ------
    InvsrError
        When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvsrError(f"{folder}: no report can be written there ({error.strerror}): choose another") from error


def _distinct(names: Sequence[str]) -> list[str]:
    """Scans of one name in several folders are told apart by their number."""
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, start=1)]


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
    return "A fixed number of steps: nothing is left to settle." if solution.method == "unrolled" else "It settled."


def _sections(
    names: Sequence[str], solution: Solution, cubic: Tensor, left: Sequence[Residual], record: Mapping[str, Any]
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
        "cubic": Volume(cubic.cpu(), solution.grid),
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
