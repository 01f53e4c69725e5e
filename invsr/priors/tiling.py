"""Volumes in overlapping tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from invsr.errors import InvsrError


def tiles(
    shape: Sequence[int], largest: int, reach: int, multiple: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Cover a volume with tiles of at most `largest` voxels, their surroundings included: as little of it twice as can.

    All of them have the same size, the last ones but for voxels that the volume lacks to a whole `multiple`.

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
        When not even the smallest tile fits with its surroundings.
    """
    margin = math.ceil(reach / multiple) * multiple
    whole = [math.ceil(n / multiple) * multiple for n in shape]
    fitting = [
        sides
        for sides in itertools.product(*(_sides(n, margin, multiple) for n in whole))
        if math.prod(min(n, side) for n, side in zip(shape, sides, strict=True)) <= largest
    ]
    if not fitting:
        raise InvsrError(f"tiles of {largest} voxels are too small for a network that reaches {reach} voxels far")

    def work(sides: tuple[int, ...]) -> int:
        return math.prod(_number(n, side, margin) * side for n, side in zip(whole, sides, strict=True))

    best = min(fitting, key=work)
    along = [_intervals(*one, margin) for one in zip(shape, whole, best, strict=True)]
    for intervals in itertools.product(*along):
        core, padded, inside = zip(*intervals, strict=True)
        yield core, padded, inside


def _number(n: int, side: int, margin: int) -> int:
    """Number of tiles along an axis of n voxels, of which neighbours share two margins."""
    return 1 if side >= n else math.ceil((n - 2 * margin) / (side - 2 * margin))


def _sides(n: int, margin: int, multiple: int) -> list[int]:
    """Sides of tiles along an axis of n voxels: the smallest for each number of them."""
    found = [n]
    for number in range(2, max(2, (n - 2 * margin) // multiple + 1)):
        side = math.ceil((n + (number - 1) * 2 * margin) / number / multiple) * multiple
        if side < found[-1]:
            found.append(side)
    return found


def _intervals(n: int, whole: int, side: int, margin: int) -> list[tuple[slice, slice, slice]]:
    """Core, padded and inside along an axis of n voxels, which is `whole` with those that it lacks."""
    starts = [min(k * (side - 2 * margin), whole - side) for k in range(_number(whole, side, margin))]
    cuts = [0, *(start + margin for start in starts[1:]), n]
    return [
        (slice(low, high), slice(start, min(n, start + side)), slice(low - start, high - start))
        for start, (low, high) in zip(starts, itertools.pairwise(cuts), strict=True)
    ]
