"""Volumes in overlapping tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from invsr.errors import InvsrError


def tiles(
    shape: Sequence[int], largest: int, reach: int, multiple: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Cover a volume with tiles of at most `largest` voxels, their surroundings included.

    Parameters
    ----------
    shape : three int
    largest : int
    reach : int
        Voxels around each tile that its result depends on.
    multiple : int
        Tiles start at multiples of it, so that a network that coarsens the grid does so in step.

    Yields
    ------
    core, padded, inside : three slices each
        The tile; it with its surroundings; where it lies in those.

    Raises
    ------
    InvsrError
        When not even a tile of one voxel fits with its surroundings.
    """
    margin = math.ceil(reach / multiple) * multiple
    sides = list(shape)
    while math.prod(min(n, side + 2 * margin) for n, side in zip(shape, sides, strict=True)) > largest:
        # Halve where the surroundings weigh least: along the longest side.
        axis = max(range(3), key=lambda n: sides[n])
        if sides[axis] <= multiple:
            raise InvsrError(f"tiles of {largest} voxels are too small for a network that reaches {reach} voxels far")
        sides[axis] = math.ceil(sides[axis] / 2 / multiple) * multiple
    for start in itertools.product(*[range(0, n, side) for n, side in zip(shape, sides, strict=True)]):
        ends = [min(n, a + side) for a, n, side in zip(start, shape, sides, strict=True)]
        lows = [max(0, a - margin) for a in start]
        highs = [min(n, b + margin) for b, n in zip(ends, shape, strict=True)]
        yield (
            tuple(slice(a, b) for a, b in zip(start, ends, strict=True)),
            tuple(slice(a, b) for a, b in zip(lows, highs, strict=True)),
            tuple(slice(a - low, b - low) for a, b, low in zip(start, ends, lows, strict=True)),
        )
