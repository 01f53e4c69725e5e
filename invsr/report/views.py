"""Which volumes a report shows, and side by side with which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from invsr.pipeline import Reconstruction
from invsr.report import plot
from invsr.report.layers import DIVERGING, GRAY, SHARE, Layer, lookup_tables, packed, shown, window
from invsr.solvers.residuals import Residual, as_tuple
from invsr.uncertainty.evidence import Evidence
from invsr.volume import Volume

# Shades of what is there to compare with, and of maps.
COMPARED, COARSE = 128, 64
# The map of the prior's share never gets a finer scale than 0 to this.
LEAST_SHARE = 0.2


def layers_of(
    names: Sequence[str], result: Reconstruction, cubic: Tensor, left: Sequence[Residual], split: Evidence
) -> tuple[list[Layer], dict[str, list[str]]]:
    """What the viewer offers, and its sets of three.

    Parameters
    ----------
    names : sequence of str
        Of the scans.
    result : Reconstruction
    cubic : Tensor, shape of the result's x
        Cubic interpolation of the scans, in intensity units.
    left : sequence of Residual
        One for each scan.
    split : Evidence
    """
    problem = result.problem
    scale, grid = problem.scale, result.grid
    low, high = window(result.x)
    several = len(names) > 1
    scans = [f"scan {n + 1}" if several else "scan" for n in range(len(names))]
    layers = []
    for name, called, part, level, where in zip(
        names, scans, as_tuple(problem.y), problem.levels, problem.grids, strict=True
    ):
        data = part * (level * scale)
        layers.append(Layer(called, data, where, low, high, GRAY, f"{name}, its voxels as they were measured."))
    layers += [
        Layer(
            "cubic", cubic, grid, low, high, GRAY, "Cubic interpolation between the slices: no model, no prior.",
            COMPARED,
        ),
        Layer("result", result.x, grid, low, high, GRAY, f"What method {result.method} made of it."),
    ]  # fmt: skip
    reach = float(np.quantile(split.prior.abs().flatten()[:: max(1, split.prior.numel() // 2_000_000)].cpu(), 0.995))
    layers += [
        Layer(
            "from the data", split.data * scale, grid, low, high, GRAY,
            "The part of the result that the data determine, by the singular values of slices and smoothness.",
            COMPARED,
        ),
        Layer(
            "from the prior", split.prior * scale, grid, -reach * scale, reach * scale, DIVERGING,
            "The part that the prior supplied. With the part from the data it adds up to the result.", COARSE,
        ),
        Layer(
            "prior's share", split.share, grid, 0.0, max(LEAST_SHARE, window(split.share)[1]), SHARE,
            "Of the detail around each voxel, the share that the prior supplied: 0 is all measured, 1 all supplied.",
            COARSE,
        ),
    ]  # fmt: skip
    if result.std is not None:
        _, most = window(result.std)
        layers.append(
            Layer("standard deviation", result.std, grid, 0.0, most, SHARE, "Stated uncertainty of each voxel.", COARSE)
        )
    rest = [f"residual {n + 1}" if several else "residual" for n in range(len(names))]
    for called, one, where in zip(rest, left, problem.grids, strict=True):
        layers.append(
            Layer(
                called, one.map, where, -4.0, 4.0, DIVERGING,
                "What the result does not explain of the data, in standard deviations of the noise: edges here mean a "
                "wrong model.", COARSE,
            )
        )  # fmt: skip
    sets = {
        "Scan, cubic, result": [scans[0], "cubic", "result"],
        "Evidence": ["from the data", "from the prior", "prior's share"],
        "Residual": [scans[0], rest[0], "result"],
    }
    if several:
        sets["Scans"] = [*scans, "result"][:3]
    if result.std is not None:
        sets["Uncertainty"] = ["cubic", "standard deviation", "result"]
    return layers, sets


def packed_views(layers: Sequence[Layer], sets: Mapping[str, Sequence[str]], result: Reconstruction) -> dict[str, Any]:
    """All that `viewer.js` needs, as JSON: layers on their grids, and the upright display they are drawn on."""
    prepared = [shown(layer) for layer in layers]
    index = {layer.name: n for n, layer in enumerate(layers)}
    display = prepared[index["result"]].grid
    start = np.rint(display.to_voxel(plot.bright_centre(Volume(result.x.cpu(), result.grid))))
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
