"""Volumes for the report's viewer: quantised to 256 levels, compressed, each with its affine."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.operators.warp import Resample

# Most voxels of a layer: larger volumes are shown coarser, so that a report can still be mailed.
MOST_VOXELS = 4_300_000
# Level 9 takes ten times as long and saves 2 % of a report.
GZIP_LEVEL = 4
GRAY, DIVERGING, SHARE = "gray", "diverging", "share"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A volume that the viewer can show.

    Attributes
    ----------
    name : str
    data : Tensor, shape (1, 1, *grid.shape)
    grid : Grid
    low, high : float
        Values drawn darkest and brightest.
    colours : {"gray", "diverging", "share"}
    what : str
        What it shows, in one sentence.
    shades : int
        Number of levels, a power of two up to 256: fewer make a smaller report.
    """

    name: str
    data: Tensor
    grid: Grid
    low: float
    high: float
    colours: str
    what: str
    shades: int = 256


def window(x: Tensor) -> tuple[float, float]:
    """0 and the 99.9th percentile of the voxels that are not 0."""
    values = x[x != 0].abs().flatten()[:: max(1, x.numel() // 2_000_000)].cpu().numpy()
    rank = int(0.999 * (len(values) - 1))
    return 0.0, float(np.partition(values, rank)[rank]) if len(values) else 1.0


def upright(grid: Grid) -> tuple[Grid, tuple[int, ...], tuple[int, ...]]:
    """The grid with its axes along right, anterior and superior as nearly as they are; order and flips of its array."""
    # The axis that points most clearly somewhere chooses first.
    order, left = [-1, -1, -1], [0, 1, 2]
    weights = np.abs(grid.directions)
    for _ in range(3):
        world, axis = max(
            ((w, a) for w in range(3) if order[w] < 0 for a in left), key=lambda pair: weights[pair[0], pair[1]]
        )
        order[world] = axis
        left.remove(axis)
    flips = tuple(world for world in range(3) if grid.directions[world, order[world]] < 0)
    affine = np.eye(4)
    start = np.zeros(3)
    for world, axis in enumerate(order):
        sign = -1.0 if world in flips else 1.0
        affine[:3, world] = sign * grid.affine[:3, axis]
        start[axis] = grid.shape[axis] - 1 if world in flips else 0
    affine[:3, 3] = grid.to_world(start)
    return Grid([grid.shape[axis] for axis in order], affine), tuple(order), flips


def shown(layer: Layer) -> Layer:
    """The layer, coarser where it has more voxels than a report can carry, upright."""
    data, grid = layer.data.float(), layer.grid
    if grid.size > MOST_VOXELS:
        spacing = grid.spacing.copy()
        while np.prod(np.ceil(grid.extent / spacing)) > MOST_VOXELS:
            spacing[spacing == spacing.min()] *= 1.05
        coarse = grid.refine(spacing.tolist())
        with torch.no_grad():
            data = Resample(grid, coarse)(data)
        grid = coarse
    turned, order, flips = upright(grid)
    data = data[0, 0].permute(*order).flip(flips)[None, None].contiguous()
    return replace(layer, data=data, grid=turned)


def packed(layer: Layer, display: Grid) -> dict[str, Any]:
    """A layer as JSON: its bytes, and where the display's voxels lie in it."""
    step = (layer.high - layer.low) / 255 or 1.0
    levels = ((layer.data[0, 0] - layer.low) / step).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    width = 256 // layer.shades
    levels = levels // width * width + width // 2
    # Differences along the last axis compress better than levels.
    changes = np.diff(levels, axis=2, prepend=np.uint8(0))
    to_layer = np.linalg.inv(layer.grid.affine) @ display.affine
    return {
        "name": layer.name,
        "what": layer.what,
        "colours": layer.colours,
        "shape": layer.grid.shape,
        "affine": to_layer[:3].round(9).tolist(),
        "low": layer.low,
        "step": step,
        "bytes": base64.b64encode(gzip.compress(changes.tobytes(), GZIP_LEVEL, mtime=0)).decode(),
    }


def lookup_tables() -> dict[str, str]:
    """Red, green and blue of 256 levels, for the two colour maps that are not grey; both suit colour-blind readers."""
    from matplotlib import colormaps

    tables = {}
    for name, source in ((DIVERGING, "PuOr_r"), (SHARE, "cividis")):
        colours = np.asarray(colormaps[source](np.arange(256) / 255.0))[:, :3]
        tables[name] = base64.b64encode((colours * 255).round().astype(np.uint8).tobytes()).decode()
    return tables
