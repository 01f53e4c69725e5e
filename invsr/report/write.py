"""From a solution to the report's files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.files import make_folder
from invsr.numerics.iteration import Status
from invsr.pipeline import InverseProblem, Reconstruction
from invsr.pipeline.raw_problem import RawProblem
from invsr.pipeline.slice_check import EXPECTED
from invsr.report import page, plot
from invsr.report.kspace import write_raw_report
from invsr.report.record import grid_record, made_of, run_record, write_pages
from invsr.report.views import layers_of, packed_views
from invsr.solvers.residuals import Residual, as_tuple, residuals
from invsr.solvers.solution import CHI2_EXPECTED
from invsr.uncertainty.evidence import Evidence
from invsr.volume import Volume

PACKAGES = ("invsr", "torch", "numpy", "scipy", "nibabel")


def write_report(
    folder: Path,
    result: Reconstruction,
    *,
    command: str = "",
    files: Mapping[str, Path] | None = None,
    others: Sequence[Reconstruction] = (),
) -> list[Path]:
    """Write ``report.html`` and ``report.json`` into `folder`; their paths.

    Parameters
    ----------
    folder : Path
        Made where there is none.
    result : Reconstruction
        What `invsr.reconstruct` returned.
    command : str
        The command line that was run.
    files : mapping from role to Path, optional
        Files whose checksums are recorded.
    others : sequence of Reconstruction
        Other contrasts of the same head, to be looked at beside the result.

    Raises
    ------
    InvsrError
        When the problem was made neither of scans nor of k-space, or the folder cannot be made.
    """
    problem = result.problem
    if isinstance(problem, RawProblem):
        return write_raw_report(folder, result, problem, command, files or {})
    if not problem.scans:
        raise InvsrError("a report is made of scans or k-space: this problem was made of an operator and data")
    names = _distinct(problem.names)
    make_folder(folder)
    cubic = (problem.interpolated() * problem.scale).add_(problem.offset)
    left = residuals(problem.operator, problem.likelihoods, problem.y, result.prediction, problem.slice_axes)
    split = result.evidence
    record = _record(names, result, left, split, command, files or {})
    layers, sets = layers_of(names, result, cubic, left, split, others)
    text = page.page(
        title=f"{', '.join(names)}: {result.method}",
        subtitle=f"{'; '.join(map(_size, problem.grids))} to {_size(result.grid)}",
        cards=_cards(result, split),
        remarks=result.remarks(),
        sections=_sections(names, result, cubic, left, record),
        layers=packed_views(layers, sets, result),
    )
    return write_pages(folder, text, record)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number appended where several scans share one."""
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, start=1)]


# Figures to compute with ----------------------------------------------------------------------------


def _record(
    names: Sequence[str],
    result: Reconstruction,
    left: Sequence[Residual],
    split: Evidence,
    command: str,
    files: Mapping[str, Path],
) -> dict[str, Any]:
    problem = result.problem
    scans: list[dict[str, Any]] = []
    for n, (name, grid, one) in enumerate(zip(names, problem.grids, left, strict=True)):
        scan = problem.scans[n]
        scans.append(
            {
                "name": name,
                "grid": grid_record(grid),
                "slice_profile": str(scan.slice_profile),
                "slice_thickness": scan.thickness,
                "sigma": problem.sigma * problem.scale * problem.levels[n],
                "sigma_is": "estimated" if scan.noise is None else "given",
                "slice_correlation": result.slice_correlations[n],
                "slice_chi2": [None if math.isnan(value) else value for value in one.slice_chi2.tolist()],
            }
        )
    if result.motion is not None:
        for entry, moved in zip(scans, result.motion.scans, strict=True):
            entry |= {"gain": moved.gain, "slices_left_out": moved.rejected, "motion": moved.motion.tolist()}
    evidence = {"prior_share_of_energy": split.energy, "prior_share_of_detail": split.detail}
    return run_record(result, command, files) | {"scans": scans, "evidence": evidence}


def _size(grid: Grid) -> str:
    shape, spacing = "x".join(map(str, grid.shape)), "x".join(f"{value:.4g}" for value in grid.spacing)
    return f"{shape} voxels of {spacing} mm"


# Words ----------------------------------------------------------------------------------------------


def _cards(result: Reconstruction, split: Evidence) -> list[tuple[str, str, bool | None]]:
    low, high = CHI2_EXPECTED
    chi2 = result.chi2
    fits = chi2 is not None and low <= chi2 <= high
    return [
        (
            f"χ² {chi2:.2f}" if chi2 is not None else "no χ²",
            "Mean squared residual per measured voxel. Automatic weights and trained solvers aim at "
            f"{low} to {high}: outside, the model cannot explain the data, or follows their noise.",
            fits,
        ),
        *_slice_cards(result),
        (
            f"gain {result.gain:.3f}",
            "Intensity of the data simulated from the result, relative to the scan; 1 if intensities are preserved.",
            abs(result.gain - 1) <= 0.01,
        ),
        (
            f"{len(result.history)} iterations" if result.history else "no iterations",
            _ending(result),
            result.status is Status.CONVERGED,
        ),
        (
            f"{split.detail:.0%} of the detail",
            f"and {split.energy:.1%} of the whole image come from the prior; the rest was measured.",
            None,
        ),
    ]


def _slice_cards(result: Reconstruction) -> list[tuple[str, str, bool | None]]:
    """The check of the slice thickness, a card for each scan of which it says something."""
    low, high = EXPECTED
    cards: list[tuple[str, str, bool | None]] = []
    for scan, found in zip(result.problem.scans, result.slice_correlations, strict=True):
        if found is not None:
            words = (
                f"Correlation of neighbouring slices' residuals; {low:g} to {high:g} if the slices are "
                f"{scan.thickness:.3g} mm thick, lower if they are thinner or differ by turns, higher if thicker."
            )
            cards.append((f"slices {found:+.2f}", words, low <= found <= high))
    return cards


def _ending(result: Reconstruction) -> str:
    if result.status is not Status.CONVERGED:
        return "Stopped before convergence."
    return "A fixed number of steps." if result.method.name == "unrolled" else "Converged."


def _sections(
    names: Sequence[str], result: Reconstruction, cubic: Tensor, left: Sequence[Residual], record: Mapping[str, Any]
) -> list[str]:
    problem = result.problem
    sections = [
        _fit_section(names, left),
        _through_plane_section(result, cubic),
        page.section("Noise", page.table(_noise(names, problem))),
    ]
    if result.history:
        caption = "Change and χ² in each iteration; shaded: the expected range of χ²."
        chart = page.chart(plot.convergence(result.solution), caption, wide=True)
        sections.append(page.section("Convergence", page.charts(chart)))
    if result.motion is not None and any(not one.still for one in result.motion.scans):
        caption = "Translation and rotation of each slice about the volume's centre; dotted: outlier slices, left out."
        chart = page.chart(plot.motion(result.motion), caption, wide=True)
        sections.append(page.section("Motion", page.charts(chart)))
    sections.append(page.section("How this was made", page.table(_made(record))))
    return sections


def _fit_section(names: Sequence[str], left: Sequence[Residual]) -> str:
    chi2 = {name: one.slice_chi2.cpu().numpy() for name, one in zip(names, left, strict=True)}
    chart = page.chart(plot.slice_chi2(chi2), "χ² of each slice; shaded: the expected range.", wide=True)
    advice = (
        "A slice with a higher χ² than the others has more noise or, where several scans cover the same anatomy, moved "
        "or lost signal. If χ² is off in all slices, the noise level is wrong; if the residual shows edges, the slice "
        "profile or the slice thickness is wrong."
    )
    return page.section("Does the model fit?", page.charts(chart), page.text(advice))


def _through_plane_section(result: Reconstruction, cubic: Tensor) -> str:
    problem = result.problem
    first, axis = problem.grids[0], problem.slice_axes[0]
    spacing = float(first.spacing[axis])
    profiles = {
        f"{Path(scan.slice_profile).name}, {scan.thickness:g} mm": scan.profile
        for scan in problem.scans
        if scan.thickness is not None
    }
    charts = []
    if profiles:
        caption = "Slice profile; dotted: the centres of the neighbouring slices."
        charts.append(page.chart(plot.profile(profiles, spacing), caption))
    volumes = {
        "scan": Volume((as_tuple(problem.y)[0] * problem.scale + problem.offset).cpu(), first),
        "cubic": Volume(cubic.cpu(), result.grid),
        "result": Volume(result.x.detach().cpu(), result.grid),
    }
    caption = (
        "Power spectrum across the slices of the first scan. The slices sample frequencies below the shaded band "
        "(Nyquist); above it the model and the prior supply them."
    )
    direction = first.directions[:, axis].tolist()
    charts.append(page.chart(plot.spectrum(volumes, direction, 0.5 / spacing), caption))
    return page.section("What was measured across the slices", page.charts(*charts))


def _noise(names: Sequence[str], problem: InverseProblem) -> dict[str, str]:
    rows = {}
    for name, level, scan in zip(names, problem.levels, problem.scans, strict=True):
        sigma = problem.sigma * problem.scale * level
        where = "flat tissue, from differences between pixels" if scan.air_noise is None else "air"
        basis = f"estimated in {where}" if scan.noise is None else "given"
        rows[name] = f"standard deviation {sigma:.4g}, {problem.sigma * level:.2%} of bright tissue; {basis}"
    return rows


def _made(record: Mapping[str, Any]) -> dict[str, str]:
    rows = {}
    for scan in record["scans"]:
        width = "voxels are samples" if scan["slice_thickness"] is None else f"{scan['slice_thickness']:g} mm"
        rows[f"Slices of {scan['name']}"] = f"{scan['slice_profile']}, {width}"
    return made_of(record, rows)
