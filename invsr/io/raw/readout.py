"""Samples along the readout: where they lie in k-space, and the removal of oversampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from invsr.errors import InvsrError
from invsr.numerics.fourier import fourier, inverse_fourier

Complex = npt.NDArray[np.complex64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Readouts:
    """Where the samples of each line lie.

    Attributes
    ----------
    first, last : ndarray of int
        Samples of a line that count: ``line[first:last]``, in the order in which they were measured.
    start, stop : ndarray of int
        Their indices in the encoded readout, from low to high frequency.
    turned : ndarray of bool
        Lines that were measured from high to low frequency.
    n : int
        Samples of a full readout.
    """

    first: Indices
    last: Indices
    start: Indices
    stop: Indices
    turned: npt.NDArray[np.bool_]
    n: int

    @property
    def full(self) -> bool:
        """Whether every line covers the whole readout."""
        return bool(((self.start == 0) & (self.stop == self.n)).all())

    def samples(self, line: int, values: Complex) -> Complex:
        """The samples that count of one line, (coils, n), from low to high frequency."""
        kept = values[:, self.first[line] : self.last[line]]
        return kept[:, ::-1] if self.turned[line] else kept


def place_readouts(
    path: Path, heads: npt.NDArray[Any], rows: Indices, turned: npt.NDArray[np.bool_], n: int
) -> Readouts:
    """Indices in a readout of `n` samples, whose frequency zero is at ``n // 2``.

    `center_sample` counts from the first sample stored, those to be discarded included. Of lines that were measured
    backwards files differ in whether it counts before or after turning them round: the one that fits is used.

    Parameters
    ----------
    path : Path
    heads : structured ndarray
        Headers of all lines.
    rows : ndarray of int
        Which of them.
    turned : ndarray of bool
        Which of these were measured backwards.
    n : int

    Raises
    ------
    InvsrError
        When a line reaches past the readout, or short of both its ends: it is of another length than encoded.
    """
    lines = heads[rows]
    length, centre, before, after = (
        lines[name].astype(np.int64) for name in ("number_of_samples", "center_sample", "discard_pre", "discard_post")
    )
    # A full readout has only one place, and some writers leave its centre at 0.
    centre = np.where((centre == 0) & (length == n), n // 2, centre)
    low, high = np.where(turned, after, before), np.where(turned, before, after)

    def fits(begin: Indices) -> npt.NDArray[np.bool_]:
        inside = (begin + low >= 0) & (begin + length - high <= n) & (low + high < length)
        return np.asarray(inside & ((begin <= 0) | (begin + length >= n)))

    begin = n // 2 - centre
    other = n // 2 - (length - 1 - centre)
    begin = np.where(turned & ~fits(begin), other, begin)
    bad = np.flatnonzero(~fits(begin))
    if len(bad):
        one = int(bad[0])
        raise InvsrError(
            f"{path}: line {rows[one]} has {length[one]} samples around sample {centre[one]}, which do not fit the "
            f"readout of {n} that the header encodes: export it again"
        )
    return Readouts(before, length - after, begin + low, begin + length - high, turned, n)


def crop_readout(samples: Complex, size: int, axis: int = 2) -> Complex:
    """k-space of the middle `size` voxels of the readout's field of view.

    Both transforms are orthonormal, so that noise keeps its variance; voxel ``n // 2`` stays at phase zero.

    Parameters
    ----------
    samples : ndarray, complex64
        Full readouts along `axis`.
    size : int
        No more than there are samples.
    axis : {0, 1, 2}
        One of the last three.
    """
    n = samples.shape[axis - 3]
    if size == n:
        return samples
    image = inverse_fourier(torch.from_numpy(np.ascontiguousarray(samples)), (axis,))
    kept = image.narrow(axis - 3, n // 2 - size // 2, size)
    return np.asarray(fourier(kept, (axis,)).numpy())
