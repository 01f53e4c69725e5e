"""Which volumes a report shows, and which of them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from invsr.pipeline import Reconstruction
from invsr.pipeline.problem import InverseProblem
from invsr.report import plot
from invsr.report.layers import DIVERGING, GRAY, SHARE, Layer, lookup_tables, packed, shown, window
from invsr.solvers.residuals import Residual, as_tuple
from invsr.uncertainty.evidence import Evidence

# Grey levels of volumes shown for comparison, and of maps.
COMPARED, COARSE = 128, 64
# The colour scale of the prior's share reaches at least up to this.
LEAST_SHARE = 0.2
# Layers of standard deviations, and the sets that show them.
UNCERTAINTIES = {"standard deviation": "Uncertainty", "noise": "Noise"}


def layers_of(
    names: Sequence[str],
    result: Reconstruction,
    cubic: Tensor,
    left: Sequence[Residual],
    split: Evidence,
    others: Sequence[Reconstruction] = (),
) -> tuple[list[Layer], dict[str, list[str]]]:
    """The layers that the viewer offers, and the sets of three that it shows side by side.

    Parameters
    ----------
    names : sequence of str
        Names of the scans.
    result : Reconstruction
    cubic : Tensor, shape of the result's x
        Cubic interpolation of the scans, in intensity units.
    left : sequence of Residual
        One for each scan.
    split : Evidence
    others : sequence of Reconstruction
        Other contrasts of the same head.
    """
    problem = result.problem
    grid = result.grid
    low, high = window(result.x)
    scans, rest = _numbered("scan", len(names)), _numbered("residual", len(names))
    layers = []
    for name, label, part, level, where, scan in zip(
        names, scans, as_tuple(problem.y), problem.levels, problem.grids, problem.scans, strict=True
    ):
        data = part * (level * problem.scale) + problem.offset
        beyond = "" if scan.mask is None else "; outside the mask, what is inside continues"
        layers.append(Layer(label, data, where, low, high, GRAY, f"{name}, its voxels as they were measured{beyond}."))
    caption = "Cubic interpolation between the slices: no model, no prior."
    layers.append(Layer("cubic", cubic, grid, low, high, GRAY, caption, COMPARED))
    layers.append(Layer("result", result.x, grid, low, high, GRAY, f"Reconstruction by method {result.method}."))
    layers += _evidence_layers(split, problem, (low, high))
    layers += uncertainty_layers(result, COARSE)
    caption = "Data minus prediction, in standard deviations of the noise: edges mean that the model is wrong."
    for label, one, where in zip(rest, left, problem.grids, strict=True):
        layers.append(Layer(label, one.map, where, -4.0, 4.0, DIVERGING, caption, COARSE))
    contrasts = _contrast_layers(others)
    layers += contrasts
    sets = {
        "Scan, cubic, result": [scans[0], "cubic", "result"],
        "Evidence": ["from the data", "from the prior", "prior's share"],
        "Residual": [scans[0], rest[0], "result"],
    }
    if len(names) > 1:
        sets["Scans"] = [*scans, "result"][:3]
    if contrasts:
        sets["Contrasts"] = ["result", *(one.name for one in contrasts)][:3]
    for name, title in UNCERTAINTIES.items():
        if name in (one.name for one in layers):
            sets[title] = ["cubic", name, "result"]
    return layers, sets


def uncertainty_layers(result: Reconstruction, shades: int = 256) -> list[Layer]:
    """The standard deviations of the error and of the noise, as far as they are there."""
    found = []
    for name, map, caption in (
        ("standard deviation", result.predicted, "Estimated standard deviation of each voxel's error."),
        ("noise", result.noise, "Standard deviation that noise alone makes in each voxel, from pseudo-replicas."),
    ):
        if map is not None:
            found.append(Layer(name, map, result.grid, 0.0, window(map)[1], SHARE, caption, shades))
    return found


def _contrast_layers(others: Sequence[Reconstruction]) -> list[Layer]:
    names = [f"contrast {n}: {one.volume.name.split('.')[0]}" for n, one in enumerate(others, start=2)]
    caption = "Another contrast, reconstructed together with this one."
    pairs = zip(names, others, strict=True)
    return [Layer(name, one.x, one.grid, *window(one.x), GRAY, caption, COMPARED) for name, one in pairs]


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word} {n}" for n in range(1, count + 1)] if count > 1 else [word]


def _evidence_layers(split: Evidence, problem: InverseProblem, limits: tuple[float, float]) -> list[Layer]:
    grid, prior = problem.domain, split.prior * problem.scale
    thinned = prior.abs().flatten()[:: max(1, prior.numel() // 2_000_000)]
    reach = float(np.quantile(thinned.cpu(), 0.995))
    most = max(LEAST_SHARE, window(split.share)[1])
    determined = "The part of the result that the data determine, from the singular values of the slice operator."
    supplied = "The part of the result that the prior supplied. The two parts add up to the result."
    share = "Share of the local detail that the prior supplied: 0 is all measured, 1 is all prior."
    return [
        Layer("from the data", problem.shown(split.data), grid, *limits, GRAY, determined, COMPARED),
        Layer("from the prior", prior, grid, -reach, reach, DIVERGING, supplied, COARSE),
        Layer("prior's share", split.share, grid, 0.0, most, SHARE, share, COARSE),
    ]


def packed_views(layers: Sequence[Layer], sets: Mapping[str, Sequence[str]], result: Reconstruction) -> dict[str, Any]:
    """What `viewer.js` needs, as JSON: the layers on their grids, and the upright grid of the display."""
    prepared = [shown(layer) for layer in layers]
    index = {layer.name: n for n, layer in enumerate(layers)}
    display = prepared[index["result"]].grid
    start = np.rint(display.to_voxel(plot.bright_centre(result.volume.to("cpu"))))
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
