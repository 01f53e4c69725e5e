"""Pictures of volumes at their true aspect ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invsr.grid import Grid
from invsr.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLANES = ("sagittal", "coronal", "axial")


def compare(
    volumes: Mapping[str, Volume], at: Sequence[float] | None = None, captions: Mapping[str, str] | None = None
) -> Figure:
    """Three orthogonal cuts of several volumes through one world position, in one intensity window.

    Each volume is drawn with its own voxels (nearest neighbour), so thick slices look as thick as they are.

    Parameters
    ----------
    volumes : mapping from title to Volume
        One row each; the first sets the window (its 0 to 99.5th percentile) and the field of view.
    at : three of float, mm, optional
        World position of the cuts; by default the middle of the first volume's bright part.
    captions : mapping from title to text, optional
        Written under the title.

    Returns
    -------
    matplotlib.figure.Figure
        Patient's right on the left of coronal and axial cuts (radiological convention), labelled.
    """
    from matplotlib.figure import Figure

    captions = captions or {}
    first = next(iter(volumes.values()))
    low, high = 0.0, float(np.percentile(first.numpy(), 99.5))
    centre = bright_centre(first) if at is None else np.asarray(at, float)
    corners = first.grid.corners()
    box = np.stack([corners.min(0), corners.max(0)])
    step = float(first.grid.spacing.min()) / 2
    sizes = box[1] - box[0]
    widths = [sizes[1], sizes[0], sizes[0]]
    figure = Figure(figsize=(3.0 * sum(widths) / max(widths) + 0.6, 3.05 * len(volumes)), layout="constrained")
    axes = figure.subplots(len(volumes), 3, squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, (title, volume) in zip(axes, volumes.items(), strict=True):
        for plane, panel in enumerate(row):
            image = _cut(volume, box, centre, plane, step)
            panel.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            left, right = (("P", "A"), ("R", "L"), ("R", "L"))[plane]
            for x, text, side in ((0.02, left, "left"), (0.98, right, "right")):
                panel.text(x, 0.03, text, transform=panel.transAxes, color="w", fontsize=8, ha=side)
            if volume is first:
                panel.set_title(PLANES[plane], fontsize=9)
        caption = captions.get(title, "")
        row[0].set_ylabel(f"{title}\n{caption}" if caption else title, fontsize=9)
    return figure


def bright_centre(volume: Volume) -> Any:
    """World position, mm, of the middle of the voxels above a tenth of the 99.5th percentile."""
    data = volume.numpy()
    index = np.argwhere(data > 0.1 * np.percentile(data, 99.5))
    return volume.grid.to_world((index.min(0) + index.max(0)) / 2 if len(index) else (np.array(data.shape) - 1) / 2)


def _cut(volume: Volume, box: Any, centre: Any, plane: int, step: float) -> Any:
    """Nearest-neighbour values on a world-aligned plane, rows from superior (or anterior) down.

    Columns run from posterior to anterior, or from the patient's right (the positive end of x) to the left.
    """
    across, up = ((1, 2), (0, 2), (0, 1))[plane]
    a = np.arange(box[0, across], box[1, across], step) + step / 2
    b = np.arange(box[0, up], box[1, up], step)[::-1] + step / 2
    if across == 0:
        a = a[::-1]
    points = np.empty((len(b), len(a), 3))
    points[...] = centre
    points[..., across] = a[None, :]
    points[..., up] = b[:, None]
    return _nearest(volume.numpy(), volume.grid, points)


def _nearest(data: Any, grid: Grid, points: Any) -> Any:
    inside = grid.contains(points)
    index = np.rint(grid.to_voxel(points)).astype(int)
    index = np.clip(index, 0, np.array(grid.shape) - 1)
    return np.where(inside, data[index[..., 0], index[..., 1], index[..., 2]], 0.0)
