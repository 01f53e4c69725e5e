"""Does the slice thickness fit the data? A check that can fail: nothing is tuned to it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invsr.pipeline.moved import intensity_scale
from invsr.pipeline.scan import LEAST_SIGMA, Scan
from invsr.priors.tikhonov import Tikhonov
from invsr.solvers.quadratic import solve_quadratic

# The range of `slice_correlation` where thickness and profile are right: `benchmarks/quality/slice_check.py`.
EXPECTED = (-0.5, 0.15)
# Pixels that count are predicted to be brighter than this share of the peak; fewer pairs of them tell nothing.
LEAST_INTENSITY, LEAST_PAIRS = 0.1, 1000
# Fewer slices tell nothing.
LEAST_SLICES = 5
# Pixels along each axis within the slices that are looked at, and the most voxels between two slices.
WINDOW, MOST_BETWEEN = 128, 8


def slice_correlation(scan: Scan) -> float | None:
    """Correlation of what neighbouring slices have left over from the smoothest volume that explains the scan.

    The volume is the Tikhonov reconstruction at the scan's own pixels with a residual chi2 of 0.85. Where slices are
    thinner than the model says, no volume of it shows as much difference between neighbours as they do: their residuals
    alternate, the correlation falls far below 0. Where they are thicker, it rises above 0. Slices of one scan that lie
    or shine differently by turns (interleaved packages) let it fall, too.

    Returns
    -------
    float or None
        Between -1 and 1; `EXPECTED` is usual. None where the scan is too small or not made of slices.
    """
    axis, n_slices = scan.through_plane, scan.grid.shape[scan.through_plane]
    if scan.thickness is None or n_slices < LEAST_SLICES:
        return None
    window = _window(scan.cropped())
    spacing = window.grid.spacing.copy()
    between = round(scan.slice_spacing / float(np.delete(spacing, axis).min()))
    spacing[axis] = scan.slice_spacing / min(max(between, 1), MOST_BETWEEN)
    scale = intensity_scale(window)
    sigma = max(window.sigma() / scale, LEAST_SIGMA)
    data = window.data / scale
    if window.inside is not None:  # as if there were air outside
        generator = torch.Generator().manual_seed(0)
        air = sigma * torch.randn(data.shape, generator=generator).to(data)
        data = torch.where(window.inside, data, air)
    operator = window.operator(window.grid.refine(spacing.tolist()))
    prediction: Tensor = operator(solve_quadratic(operator, data, Tikhonov(), sigma=sigma).x)
    counted = prediction > LEAST_INTENSITY
    if window.inside is not None:
        counted = counted & window.inside
    return _lag_one((data - prediction).double() * counted, counted, 2 + axis)


def question(scan: Scan, correlation: float | None) -> list[str]:
    """What an unusual correlation says of a scan, in one line; empty where it is usual or unknown."""
    if correlation is None or EXPECTED[0] <= correlation <= EXPECTED[1]:
        return []
    if correlation < 0:
        what = (
            f"differ more than slices {scan.thickness:g} mm thick can: they are thinner, samples rather than averages, "
            "or lie or shine differently by turns (interleaved packages)"
        )
    else:
        what = f"differ less than slices {scan.thickness:g} mm thick do: they are thicker, or were smoothed"
    usual = f"{EXPECTED[0]:g} to {EXPECTED[1]:g}"
    return [f"{scan.name}: neighbouring slices {what} (correlation of residuals {correlation:+.2f}, usual {usual})"]


def _lag_one(residual: Tensor, counted: Tensor, dim: int) -> float | None:
    n = residual.shape[dim] - 1
    both = counted.narrow(dim, 0, n) & counted.narrow(dim, 1, n)
    if int(both.sum()) < LEAST_PAIRS:
        return None
    one, other = residual.narrow(dim, 0, n)[both], residual.narrow(dim, 1, n)[both]
    squares = float((one.square().sum() * other.square().sum()).sqrt())
    return float(one @ other) / squares if squares > 0 else None


def _window(scan: Scan) -> Scan:
    """At most `WINDOW` pixels along each axis within the slices, about the middle of what is bright (in the mask)."""
    bright = scan.data[0, 0].abs() if scan.inside is None else scan.data[0, 0].abs() * scan.inside[0, 0]
    low, high = [0, 0, 0], list(scan.grid.shape)
    for n, length in enumerate(scan.grid.shape):
        if n == scan.through_plane or length <= WINDOW:
            continue
        along = bright.double().sum([m for m in (0, 1, 2) if m != n])
        middle = float((along * torch.arange(length).to(along)).sum() / along.sum())
        low[n] = min(max(round(middle - WINDOW / 2), 0), length - WINDOW)
        high[n] = low[n] + WINDOW
    return scan.part(low, high)
