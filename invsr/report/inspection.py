"""The page of `invsr inspect --report`: what a scan is, in words and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invsr.inspection import measured_share, power_spectrum
from invsr.inspection.slices import slice_levels
from invsr.io.files import write_whole
from invsr.pipeline.scan import Scan
from invsr.report.page import chart, charts, plain_page, section, table
from invsr.report.plot import COLOURS, orthoviews

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_inspection(path: Path, facts: Mapping[str, str | Sequence[str]], scan: Scan) -> None:
    """Write the page of one scan.

    Parameters
    ----------
    path : Path
        Ends in .html.
    facts : mapping
        What is known of the scan, in words, by name.
    scan : Scan
        As it was stored.
    """
    axes = [n for n in (0, 1, 2) if n != scan.through_plane]
    words = {name: what if isinstance(what, str) else "; ".join(what) for name, what in facts.items()}
    pictures = [
        chart(orthoviews(scan.volume), "Three cuts through the brightest part, voxels as they are stored", wide=True),
        chart(
            spectra(scan, axes),
            "Power within the slices, in tissue, up to the Nyquist frequency of the pixels; dashed: the end of what "
            "was measured",
        ),
        chart(
            levels(scan), "Intensity of each slice's tissue over its neighbours' mean: slices darker by turns zigzag"
        ),
    ]
    write_whole(
        path, plain_page(scan.name, section("What it is", table(words)), section("Pictures", charts(*pictures)))
    )


def spectra(scan: Scan, axes: Sequence[int]) -> Figure:
    """Power spectra along axes of a scan, with the share that was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    panel = figure.subplots()
    for axis, colour in zip(axes, COLOURS, strict=False):
        found = power_spectrum(scan.data, axis)
        if found is None:
            continue
        power = found.power.cpu().numpy()[1:-1]
        panel.semilogy(
            (1 + np.arange(len(power))) / (len(power) + 1), power / power.max(), color=colour, label="ijk"[axis]
        )
        share = measured_share(scan.data, axis)
        if share < 1:
            panel.axvline(share, color=colour, ls="--", lw=1)
    panel.set(xlabel="share of the Nyquist frequency", ylabel="power", xlim=(0, 1))
    if panel.lines:
        panel.legend(fontsize=8)
    return figure


def levels(scan: Scan) -> Figure:
    """Intensity of each slice over that of its neighbours."""
    from matplotlib.figure import Figure

    found = slice_levels(scan.data[0, 0].movedim(scan.through_plane, -1)).exp().numpy()
    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    panel = figure.subplots()
    panel.axhline(1, color="#808080", lw=1)
    panel.plot(np.arange(len(found)), found, ".-", color=COLOURS[0], ms=4)
    panel.set(xlabel="slice", ylabel="over its neighbours")
    return figure
