"""Lines of an ISMRMRD file that were measured for coil sensitivities alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from invsr.errors import InvsrError
from invsr.io.raw.layout import Layout
from invsr.io.raw.lines import Lines, samples_of
from invsr.io.raw.readout import Indices, crop_readout, place_readouts


def read_calibration(path: Path, dataset: Any, lines: Lines, layout: Layout) -> tuple[torch.Tensor | None, str | None]:
    """The block in the middle of k-space that calibration lines cover, and what is to be said of them.

    Raises
    ------
    InvsrError
        When a line is damaged.

    Returns
    -------
    calibration : Tensor, shape (coils, a, b, c), complex64, or None
        Frequency zero is at index ``n // 2`` of encoded axes; slices are those of the image. The mean of averages.
    note : str or None
    """
    import ismrmrd

    rows = lines.calibration
    if layout.order is not None:
        rows = rows[np.isin(lines.heads["idx"]["slice"][rows], layout.order)]
    if not len(rows):
        return None, None
    n = layout.encoding.matrix[0]
    try:
        readouts = place_readouts(path, lines.heads, rows, lines.flagged(rows, ismrmrd.ACQ_IS_REVERSE), n)
        along, across = layout.places(path, lines.heads, rows)
    except InvsrError:
        return None, f"left out {len(rows)} calibration lines: they do not fit the matrix of the image"
    first, stop = _middle(int(readouts.start.max()), int(readouts.stop.min()), n // 2)
    covered = np.zeros(layout.shape[1:], bool)
    covered[along, across] = True
    b, c = _largest_block(covered, layout.order is None)
    if stop <= first or not b or (layout.cropped and not readouts.full):
        return None, f"left out {len(rows)} calibration lines: they do not cover the middle of k-space"
    low = layout.shape[1] // 2 - b // 2, (layout.shape[2] // 2 - c // 2 if layout.order is None else 0)
    coils = int(lines.heads["active_channels"][rows[0]])
    size = layout.size if layout.cropped else stop - first
    block = np.zeros((coils, size, b, c), np.complex64)
    counts = np.zeros((b, c), np.float32)
    for line, values in samples_of(path, dataset, lines.heads, rows):
        j, k = int(along[line]) - low[0], int(across[line]) - low[1]
        if not (0 <= j < b and 0 <= k < c):
            continue
        start = int(readouts.start[line])
        kept = readouts.samples(line, values)[:, first - start : stop - start]
        block[..., j, k] += crop_readout(kept, layout.size) if layout.cropped else kept
        counts[j, k] += 1
    return torch.from_numpy(block / counts), None


def _middle(first: int, stop: int, centre: int) -> tuple[int, int]:
    """The longest range within first to stop whose index ``n // 2`` is `centre`."""
    size = _longest(centre - first, stop - 1 - centre)
    return centre - size // 2, centre - size // 2 + size


def _longest(below: int, above: int) -> int:
    """Samples of the longest centred range that reaches so far below and above its middle."""
    return max(0, min(2 * below + 1, 2 * above + 2))


def _largest_block(covered: npt.NDArray[np.bool_], slab: bool) -> tuple[int, int]:
    """Sizes of the largest centred block of lines that has no gap; of slices, it takes all."""
    n, m = covered.shape
    gaps = np.pad(np.cumsum(np.cumsum(~covered, 0), 1), ((1, 0), (1, 0)))
    b = np.arange(1, n + 1)
    c = np.arange(1, m + 1) if slab else np.array([m])

    def bounds(sizes: Indices, length: int, centred: bool) -> tuple[Indices, Indices]:
        low = length // 2 - sizes // 2 if centred else np.zeros_like(sizes)
        return low, low + sizes

    (j, j_stop), (k, k_stop) = bounds(b, n, True), bounds(c, m, slab)
    inside = gaps[np.ix_(j_stop, k_stop)] - gaps[np.ix_(j, k_stop)] - gaps[np.ix_(j_stop, k)] + gaps[np.ix_(j, k)]
    sizes = np.where(inside == 0, np.outer(b, c), 0)
    best = np.unravel_index(int(sizes.argmax()), sizes.shape)
    return (int(b[best[0]]), int(c[best[1]])) if sizes.max() > 0 else (0, 0)
