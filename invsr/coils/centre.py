"""The fully sampled middle of k-space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Box = tuple[slice, slice, slice]


def centre_box(counts: Tensor, axes: Sequence[int], most: Sequence[int]) -> Box:
    """The largest box around frequency zero, at most so long, in which every sample was measured.

    Parameters
    ----------
    counts : Tensor, shape (i, j, k)
    axes : sequence of {0, 1, 2}
        Fourier axes. Along the others the box holds all positions, and those where nothing was measured do not count.
    most : three of int
        Longest sides; of length n, a side holds the frequencies that `resized` of that length would keep.

    Returns
    -------
    tuple of three slices
        Empty along an axis only if frequency zero was not measured.
    """
    taken = counts > 0
    others = [n for n in (0, 1, 2) if n not in axes]
    if others:
        anything = taken.clone()
        for n in axes:
            anything = anything.any(n, keepdim=True)
        taken = taken | ~anything
        for n in others:
            taken = taken.all(n, keepdim=True)
    sides = [1, 1, 1]
    growing = bool(taken[_cut(taken.shape, sides)].all())
    while growing:
        growing = False
        for n in axes:
            longer = [side + (n == m) for m, side in enumerate(sides)]
            if longer[n] <= min(most[n], taken.shape[n]) and bool(taken[_cut(taken.shape, longer)].all()):
                sides, growing = longer, True
    if not bool(taken[_cut(taken.shape, sides)].all()):
        sides = [0, 0, 0]
    i, j, k = _cut(counts.shape, [sides[n] if n in axes else size for n, size in enumerate(counts.shape)])
    return i, j, k


def _cut(shape: Sequence[int], sides: Sequence[int]) -> Box:
    i, j, k = (slice(n // 2 - side // 2, n // 2 - side // 2 + side) for n, side in zip(shape, sides, strict=True))
    return i, j, k
