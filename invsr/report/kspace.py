"""The report of a reconstruction from k-space: sampling, coils, residual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from invsr.io.files import make_folder
from invsr.numerics.iteration import Status
from invsr.pipeline import Reconstruction
from invsr.pipeline.raw_problem import RawProblem
from invsr.raw import ALL_AXES
from invsr.report import page, plot
from invsr.report.layers import DIVERGING, GRAY, Layer, window
from invsr.report.record import made_of, run_record, write_pages
from invsr.report.views import UNCERTAINTIES, packed_views, uncertainty_layers
from invsr.solvers.residuals import as_tuple, back_project
from invsr.solvers.solution import CHI2_EXPECTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Most coils whose maps are drawn.
MOST_COILS = 8


def write_raw_report(
    folder: Path, result: Reconstruction, problem: RawProblem, command: str, files: Mapping[str, Path]
) -> list[Path]:
    """Write the report of k-space; as `invsr.report.write_report`."""
    make_folder(folder)
    record = run_record(result, command, files) | {"kspace": _sampling(problem)}
    layers, sets = _layers(result, problem)
    text = page.page(
        title=f"{problem.names[0]}: {result.method}",
        subtitle=f"{_shape(problem.grids[0].shape)} samples to {_shape(result.grid.shape)} voxels",
        cards=_cards(result, problem),
        remarks=result.remarks(),
        sections=_sections(result, problem, record),
        layers=packed_views(layers, sets, result),
    )
    return write_pages(folder, text, record)


def _sampling(problem: RawProblem) -> dict[str, Any]:
    raw = problem.data
    shape = [size for n, size in enumerate(raw.grid.shape) if n in raw.axes]
    return {
        "coils": raw.n_coils,
        "fourier_axes": raw.axes,
        "measured": int(raw.measured.sum()),
        "share": problem.share,
        "matrix": shape,
        "slice_thickness": problem.thickness,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _layers(result: Reconstruction, problem: RawProblem) -> tuple[list[Layer], dict[str, list[str]]]:
    image, grid = result.x.abs(), result.grid
    folded = back_project(problem.operator, problem.y).abs()
    low, high = window(image)
    captions = {
        "zero-filled": "What the samples alone give: the adjoint of the model, without prior, scaled to the result.",
        "result": f"Magnitude of the reconstruction by method {result.method}.",
        "phase": "Phase of the reconstruction, from -π to π; without meaning in air.",
    }
    folded = folded * float((folded * image).sum() / folded.square().sum().clamp(min=1e-30))
    layers = [
        Layer("zero-filled", folded, grid, low, high, GRAY, captions["zero-filled"]),
        Layer("result", image, grid, low, high, GRAY, captions["result"]),
        Layer("phase", result.x.angle(), grid, -math.pi, math.pi, DIVERGING, captions["phase"]),
    ]
    sets = {"Zero-filled, result, phase": ["zero-filled", "result", "phase"]}
    for one in uncertainty_layers(result):
        layers.append(one)
        sets[UNCERTAINTIES[one.name]] = ["zero-filled", one.name, "result"]
    return layers, sets


def _cards(result: Reconstruction, problem: RawProblem) -> list[tuple[str, str, bool | None]]:
    low, high = CHI2_EXPECTED
    raw, chi2 = problem.data, result.chi2
    return [
        (
            f"χ² {chi2:.2f}" if chi2 is not None else "no χ²",
            "Mean squared residual per measured sample, real and imaginary part. About 1 less the share that the fit "
            "takes up; far above it the coil maps or the noise level are wrong.",
            chi2 is not None and low <= chi2 <= high,
        ),
        (
            f"{1 / problem.share:.2g}-fold",
            f"undersampling of {_shape(raw.grid.shape)}, by {raw.n_coils} coils that were used.",
            None,
        ),
        (
            f"gain {result.gain:.3f}",
            "Size of the samples predicted from the result, relative to those measured; 1 if intensities are kept.",
            abs(result.gain - 1) <= 0.01,
        ),
        (
            f"{len(result.history)} iterations" if result.history else "no iterations",
            "Converged." if result.status is Status.CONVERGED else "Stopped before convergence.",
            result.status is Status.CONVERGED,
        ),
    ]


def _sections(result: Reconstruction, problem: RawProblem, record: Mapping[str, Any]) -> list[str]:
    raw = problem.data
    left = problem.likelihoods[0].standardised_residual(as_tuple(problem.y)[0], as_tuple(result.prediction)[0])
    squares = left.abs().square().mean(1)[0] / 2
    measured = raw.measured.float()
    counts, misfit = raw.binned(raw.counts), raw.binned(squares * measured)
    charts = [
        page.chart(
            _maps_figure([("samples", _flat(counts, raw.axes, torch.ones_like(counts)))], "times measured"),
            "Where k-space was measured, how often; mean over positions.",
        ),
        page.chart(
            _maps_figure([("residual", _flat(misfit, raw.axes, raw.binned(measured)))], "χ²", 3.0),
            "Mean squared residual of each place in k-space, of all coils. A bright middle means that the model does "
            "not explain the image (coil maps, motion); bright all over means more noise than was told.",
        ),
    ]
    sections = [page.section("Sampling and residual", page.charts(*charts))]
    if problem.maps is not None:
        at = np.rint(result.grid.to_voxel(plot.bright_centre(result.volume))).astype(int)
        axis = 2 if raw.slice_axis is None else raw.slice_axis
        middle = int(np.clip(at[axis] * problem.maps.shape[1 + axis] // result.grid.shape[axis], 0, None))
        pictures = [
            (f"coil {n + 1}", one.abs().select(axis, min(middle, one.shape[axis] - 1)))
            for n, one in enumerate(problem.maps[:MOST_COILS])
        ]
        chart = page.chart(_maps_figure(pictures, "|S|", 1.0), "Sensitivity of each coil in one slice.", wide=True)
        sections.append(page.section("Coils", page.charts(chart)))
    if result.history:
        chart = page.chart(plot.convergence(result.solution), "Change and χ² in each iteration.", wide=True)
        sections.append(page.section("Convergence", page.charts(chart)))
    said = record["kspace"]
    rows = {
        "Samples": f"{said['measured']} of each of {said['coils']} coils, {said['share']:.1%} of k-space",
        "Fourier axes": ", ".join("ijk"[n] for n in said["fourier_axes"]),
        "Noise": f"standard deviation {result.sigma:.4g} of a sample's parts, {problem.sigma:.2%} of bright tissue",
    }
    rows |= {"Slices": f"{problem.thickness:g} mm thick"} if problem.thickness is not None else {}
    sections.append(page.section("How this was made", page.table(made_of(record, rows))))
    return sections


def _flat(sums: Tensor, axes: tuple[int, ...], counted: Tensor) -> Tensor:
    """Mean along the axes that are no Fourier axes, or else along the first, of so many values: two axes are left."""
    others = [n for n in ALL_AXES if n not in axes]
    along = others[:1] if others else [0]
    return sums.sum(along) / counted.sum(along).clamp(min=1)


def _maps_figure(pictures: list[tuple[str, Tensor]], label: str, most: float | None = None) -> Figure:
    """Pictures side by side with one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(pictures) + 1.2, 3.2), layout="constrained")
    panels = figure.subplots(1, len(pictures), squeeze=False)[0]
    top = most or max(float(one.max()) for _, one in pictures)
    for panel, (name, one) in zip(panels, pictures, strict=True):
        drawn = panel.imshow(one.cpu().numpy().T, origin="lower", cmap="cividis", vmin=0, vmax=top, aspect="auto")
        panel.set_title(name, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(drawn, ax=list(panels), label=label, shrink=0.8)
    return figure
