"""Figures: volumes at their true aspect ratio, convergence, slice profiles, spectra and motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from invsr.errors import InvsrError
from invsr.operators.profiles import AxisProfile
from invsr.report.cuts import cut, frame_of
from invsr.solvers.solution import Solution
from invsr.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from invsr.motion import Motion


PLANES = ("sagittal", "coronal", "axial")
RADIOLOGICAL, NEUROLOGICAL = "radiological", "neurological"
# Colour-blind readers can tell them apart (Okabe, Ito 2008, Color Universal Design).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def compare(
    volumes: Mapping[str, Volume],
    at: Sequence[float] | None = None,
    captions: Mapping[str, str] | None = None,
    convention: str = RADIOLOGICAL,
    side_by_side: bool = False,
) -> Figure:
    """Three orthogonal cuts of several volumes through one world position, in one intensity window.

    Each volume is drawn with its own voxels (nearest neighbour), so thick slices look as thick as they are. The cuts
    lie along the first volume's axes.

    Parameters
    ----------
    volumes : mapping from title to Volume
        One row each, or one column; the first sets the window (its 0 to 99.5th percentile) and the field of view.
    at : three of float, mm, optional
        World position of the cuts; by default the centre of the first volume's bright part.
    captions : mapping from title to text, optional
        Written under the title.
    convention : {"radiological", "neurological"}
        The patient's right on the left, or on the right, of coronal and axial cuts; sides are labelled.
    side_by_side : bool
        Draw a column, not a row, for each volume.

    Returns
    -------
    matplotlib.figure.Figure
    """
    captions = captions or {}
    first = next(iter(volumes.values()))
    window = (0.0, float(np.percentile(first.numpy(), 99.5)))
    titles = {name: f"{name}\n{captions[name]}" if captions.get(name) else name for name in volumes}
    rows = [(titles[name], volume, window, "gray") for name, volume in volumes.items()]
    return _views(rows, first, at, convention, side_by_side)[0]


def orthoviews(
    volume: Volume,
    at: Sequence[float] | None = None,
    *,
    window: tuple[float, float] | None = None,
    cmap: str = "gray",
    title: str = "",
    convention: str = RADIOLOGICAL,
) -> Figure:
    """Three orthogonal cuts of one volume, with a scale of its values.

    Parameters
    ----------
    volume : Volume
    at : three of float, mm, optional
        World position of the cuts; by default the centre of the bright part.
    window : two of float, optional
        Values drawn darkest and brightest; by default the 0.5th and 99.5th percentile.
    cmap : str
        Matplotlib's name of a colour map: "PuOr" for differences, "cividis" for shares.
    title : str
    convention : {"radiological", "neurological"}

    Returns
    -------
    matplotlib.figure.Figure
    """
    low, high = np.percentile(volume.numpy(), [0.5, 99.5]) if window is None else window
    figure, images = _views([(title, volume, (float(low), float(high)), cmap)], volume, at, convention)
    figure.colorbar(images[-1], ax=figure.axes, shrink=0.8)
    return figure


def _views(
    rows: Sequence[tuple[str, Volume, tuple[float, float], str]],
    field: Volume,
    at: Sequence[float] | None,
    convention: str,
    side_by_side: bool = False,
) -> tuple[Figure, list[Any]]:
    if convention not in (RADIOLOGICAL, NEUROLOGICAL):
        raise InvsrError(f"unknown convention {convention!r}: use {RADIOLOGICAL} or {NEUROLOGICAL}")
    mirrored = convention == NEUROLOGICAL
    frame = frame_of(field.grid)
    centre = (bright_centre(field) if at is None else np.asarray(at, float)) @ frame
    corners = field.grid.corners() @ frame
    box = np.stack([corners.min(0), corners.max(0)])
    step = float(field.grid.spacing.min()) / 2
    figure, axes = _panels(len(rows), box[1] - box[0], side_by_side)
    drawn = []
    for n, (panels, (title, volume, (low, high), cmap)) in enumerate(zip(axes, rows, strict=True)):
        for plane, panel in enumerate(panels):
            image = cut(volume, frame, box, centre, plane, step)
            if plane and mirrored:
                image = image[:, ::-1]
            drawn.append(panel.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest"))
            panel.set_xticks([])
            panel.set_yticks([])
            _label_sides(panel, plane, mirrored)
            if n == 0:
                (panel.set_ylabel if side_by_side else panel.set_title)(PLANES[plane], fontsize=9)
        (panels[0].set_title if side_by_side else panels[0].set_ylabel)(title, fontsize=9)
    return figure, drawn


def _label_sides(panel: Any, plane: int, mirrored: bool) -> None:
    """Write which side of the patient is on the left and on the right of a picture."""
    left, right = ("P", "A") if plane == 0 else ("L", "R") if mirrored else ("R", "L")
    style = {"transform": panel.transAxes, "color": "w", "fontsize": 8, "bbox": {"color": "k", "pad": 1, "alpha": 0.5}}
    panel.text(0.02, 0.03, left, ha="left", **style)
    panel.text(0.98, 0.03, right, ha="right", **style)


def _panels(n: int, sizes: Any, side_by_side: bool) -> tuple[Figure, Any]:
    """A figure, and its axes by volume and plane, for a field of view of `sizes` mm."""
    from matplotlib.figure import Figure

    widths, heights = sizes[[1, 0, 0]], sizes[[2, 2, 1]]
    if side_by_side:
        figure = Figure(figsize=(2.2 * n, 2.2 * sum(heights) / max(widths) + 0.5), layout="constrained")
        return figure, figure.subplots(3, n, squeeze=False, gridspec_kw={"height_ratios": heights}).T
    figure = Figure(figsize=(3.0 * sum(widths) / max(widths) + 0.6, 3.05 * n), layout="constrained")
    return figure, figure.subplots(n, 3, squeeze=False, gridspec_kw={"width_ratios": widths})


def convergence(solutions: Solution | Mapping[str, Solution]) -> Figure:
    """Relative change and residual chi2 of each iteration, with the expected range of chi2.

    Parameters
    ----------
    solutions : Solution, or mapping from name to Solution

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    from invsr.solvers.solution import CHI2_EXPECTED

    runs = {"": solutions} if isinstance(solutions, Solution) else solutions
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.axhspan(*CHI2_EXPECTED, color="#808080", alpha=0.2, lw=0)
    for (name, solution), colour in zip(runs.items(), _colours(len(runs)), strict=True):
        for panel, key in ((left, "change"), (right, "chi2")):
            points = [(n + 1, entry[key]) for n, entry in enumerate(solution.history) if key in entry]
            if points:
                panel.plot(*zip(*points, strict=True), ".-", color=colour, label=name, ms=4)
    left.set_yscale("log")
    left.set(xlabel="iteration", ylabel="relative change")
    right.set(xlabel="iteration", ylabel="χ² per measured voxel")
    if "" not in runs:
        left.legend(fontsize=8)
    return figure


def profile(profiles: Mapping[str, AxisProfile], spacing: float | None = None) -> Figure:
    """Slice profiles over the offset from the centre of the slice.

    Parameters
    ----------
    profiles : mapping from name to AxisProfile
        As `invsr.operators.slice_profile_of` makes them.
    spacing : float, mm, optional
        Distance between slices; the neighbours' centres are marked.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    panel = figure.subplots()
    for (name, one), colour in zip(profiles.items(), _colours(len(profiles)), strict=True):
        offsets = (one.offsets * one.width).numpy()
        if len(offsets) > 1:
            density = one.weights.numpy() / np.gradient(offsets)
            # Down to zero on both sides, which a boxcar's samples do not reach.
            offsets = np.concatenate([offsets[:1], offsets, offsets[-1:]])
            panel.plot(offsets, np.concatenate([[0], density, [0]]), color=colour, label=name)
        else:
            panel.axvline(0.0, color=colour, label=name)
    if spacing is not None:
        for n in (-1, 1):
            panel.axvline(n * spacing, color="#808080", ls=":", lw=1)
    panel.set(xlabel="offset from the slice centre, mm", ylabel="sensitivity, 1/mm")
    panel.margins(y=0.2)  # room for the legend
    panel.legend(fontsize=8, loc="upper right")
    return figure


def spectrum(volumes: Mapping[str, Volume], direction: Sequence[float], measured: float | None = None) -> Figure:
    """Power spectral density along one direction, averaged over all lines of voxels.

    Parameters
    ----------
    volumes : mapping from name to Volume
    direction : three of float
        In world space; the axis of each volume nearest to it is used.
    measured : float, 1/mm, optional
        Nyquist frequency of the slices; the band above it is shaded.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    panel = figure.subplots()
    far = 0.0
    for (name, volume), colour in zip(volumes.items(), _colours(len(volumes)), strict=True):
        axis = int(np.abs(np.asarray(direction) @ volume.grid.directions).argmax())
        frequencies, power = power_along(volume, axis)
        panel.semilogy(frequencies, power, color=colour, label=name)
        far = max(far, float(frequencies[-1]))
    if measured is not None:
        panel.axvspan(measured, max(far, measured), color="#808080", alpha=0.2, lw=0, label="above Nyquist")
    panel.set(xlabel="cycles per mm, across the slices", ylabel="power")
    panel.legend(fontsize=8)
    return figure


def power_along(volume: Volume, axis: int) -> tuple[Any, Any]:
    """Frequencies (1/mm, above 0) and the mean power spectral density of an axis' lines, Hann-windowed."""
    data = volume.numpy().astype(np.float64)
    n, spacing = data.shape[axis], float(volume.grid.spacing[axis])
    window = np.hanning(n + 2)[1:-1]
    shape = [1, 1, 1]
    shape[axis] = n
    data = (data - data.mean(axis, keepdims=True)) * window.reshape(shape)
    others = tuple(m for m in (0, 1, 2) if m != axis)
    power = (np.abs(np.fft.rfft(data, axis=axis)) ** 2).mean(others) * spacing / (window**2).sum()
    return np.fft.rfftfreq(n, spacing)[1:], power[1:]


def slice_chi2(values: Mapping[str, Any]) -> Figure:
    """Residual chi2 of each slice, with its expected range.

    Parameters
    ----------
    values : mapping from a scan's name to array, shape (n_slices,)
        As `invsr.solvers.residuals.residuals` gives them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    from invsr.solvers.solution import CHI2_EXPECTED

    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    panel = figure.subplots()
    panel.axhspan(*CHI2_EXPECTED, color="#808080", alpha=0.2, lw=0)
    for (name, one), colour in zip(values.items(), _colours(len(values)), strict=True):
        panel.plot(np.arange(len(one)), np.asarray(one, float), ".-", color=colour, label=name, ms=4)
    panel.set(xlabel="slice", ylabel="χ²", ylim=(0, None))
    if len(values) > 1:
        panel.legend(fontsize=8)
    return figure


def motion(found: Motion) -> Figure:
    """Translation and rotation of each slice of each scan; outlier slices are marked.

    Parameters
    ----------
    found : Motion

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.9 * len(found.scans)), layout="constrained")
    rows = figure.subplots(len(found.scans), 2, squeeze=False)
    for (left, right), scan in zip(rows, found.scans, strict=True):
        at = np.arange(len(scan.motion))
        turned = np.degrees(scan.motion[:, :3])
        for panel, values, unit in ((left, scan.motion[:, 3:], "mm"), (right, turned, "degrees")):
            for n, (name, colour) in enumerate(zip("xyz", COLOURS, strict=False)):
                panel.plot(at, values[:, n], ".-", color=colour, ms=3, lw=1, label=name)
            for n in scan.rejected:
                panel.axvline(n, color="#808080", ls=":", lw=1)
            panel.set_ylabel(unit, fontsize=8)
            panel.tick_params(labelsize=8)
        left.set_title(scan.name, fontsize=9, loc="left")
    rows[-1][0].set_xlabel("slice")
    rows[-1][1].set_xlabel("slice")
    rows[0][1].legend(fontsize=8, ncols=3)
    return figure


def _colours(n: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(n)]


def bright_centre(volume: Volume) -> Any:
    """World position, mm, of the centre of the voxels above a tenth of the 99.5th percentile."""
    data = volume.numpy()
    index = np.argwhere(data > 0.1 * np.percentile(data, 99.5))
    return volume.grid.to_world((index.min(0) + index.max(0)) / 2 if len(index) else (np.array(data.shape) - 1) / 2)
