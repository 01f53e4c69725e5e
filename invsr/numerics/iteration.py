"""How an iteration ended, and whom it tells how much of it is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import TypeVar

# Called with the share of the work that is done, from 0 to 1 and never less than before, and the figures of a step.
ProgressCallback = Callable[[float, dict[str, float]], None]

T = TypeVar("T")

# Told by the loops inside a step, which lie behind signatures that take no callback (`Prior.prox`, a matvec).
_inside: ContextVar[ProgressCallback | None] = ContextVar("inside", default=None)
# Values from which a rate of convergence is read.
RECENT = 8


class Status(str, Enum):
    """How an iteration ended.

    CONVERGED: the tolerance was reached. MAX_ITER: the limit of iterations came first. BREAKDOWN: the iteration cannot
    go on (an indefinite matrix, a fixed-point map that is not finite). DIVERGED: the iterates grew beyond any bound.
    STALLED: more iterations come no nearer to the solution, as far as rounding tells.
    """

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    BREAKDOWN = "breakdown"
    DIVERGED = "diverged"
    STALLED = "stalled"


class Steps:
    """Steps of a computation, told to a callback as the share that is done.

    Each step takes its share of what is left: their number may be a guess that changes from step to step, the share
    that is done grows all the same.

    Parameters
    ----------
    progress : callable or None

    Examples
    --------
    >>> steps = Steps(lambda done, figures: print(f"{done:.2f}", figures))
    >>> for n in range(2):
    ...     with steps.step(left=2 - n):
    ...         for part in each("ab"):
    ...             pass
    ...     steps.tell({"n": n})
    0.25 {}
    0.50 {}
    0.50 {'n': 0}
    0.75 {}
    1.00 {}
    1.00 {'n': 1}
    """

    def __init__(self, progress: ProgressCallback | None) -> None:
        self.progress, self.done = None if progress is None else growing(progress), 0.0

    @contextmanager
    def step(self, left: float = 1.0) -> Iterator[ProgressCallback | None]:
        """The next step of `left` that are to come, itself included; yields whom to tell how much of it is done."""
        begin = self.done
        end = begin + (1 - begin) / max(left, 1.0)
        inner, before = None if self.progress is None else part(self.progress, begin, end), _inside.get()
        _inside.set(inner)
        try:
            yield inner
        finally:
            _inside.set(before)
        self.done = end

    def over(self, items: Iterator[T], n: int) -> Iterator[T]:
        """The n items of an iterator, each of which is made in a step."""
        for left in range(n, 0, -1):
            with self.step(left):
                item = next(items)
            yield item

    def tell(self, figures: dict[str, float]) -> None:
        """Tell the figures of the last step."""
        if self.progress is not None:
            self.progress(self.done, figures)

    def finish(self) -> None:
        """Tell that there are no more steps, where more were expected."""
        if self.done < 1:
            self.done = 1.0
            self.tell({})


@contextmanager
def whole(progress: ProgressCallback | None) -> Iterator[ProgressCallback | None]:
    """Tell a callback of a whole computation: 0 in the beginning, 1 in the end, never less than before."""
    if progress is None:
        yield None
        return
    tell = growing(progress)
    tell(0.0, {})
    yield tell
    tell(1.0, {})


def split(progress: ProgressCallback | None, at: float) -> tuple[ProgressCallback | None, ProgressCallback | None]:
    """Whom two parts of a computation tell their own share; the first one is done at the share `at` of the whole."""
    return (None, None) if progress is None else (part(progress, 0.0, at), part(progress, at, 1.0))


def part(progress: ProgressCallback, low: float, high: float) -> ProgressCallback:
    """Whom a part of a computation tells its own share: it is the whole's from `low` to `high`."""
    return lambda done, figures: progress(low + done * (high - low), figures)


def tell(done: float) -> None:
    """Tell from inside a step how much of it is done."""
    progress = _inside.get()
    if progress is not None:
        progress(done, {})


@contextmanager
def within(low: float, high: float) -> Iterator[None]:
    """What is told in the block is told of the part of the step from `low` to `high`."""
    progress = _inside.get()
    inner = None if progress is None else part(progress, low, high)
    _inside.set(inner)
    try:
        yield
    finally:
        if _inside.get() is inner:  # not where a loop that an error has left is closed late
            _inside.set(progress)


def each(items: Sequence[T]) -> Iterator[T]:
    """The items of a loop inside a step, equal parts of it."""
    for n, item in enumerate(items):
        with within(n / len(items), (n + 1) / len(items)):
            yield item
        tell((n + 1) / len(items))


def growing(progress: ProgressCallback) -> ProgressCallback:
    """The callback, told the largest share so far where a smaller one follows."""
    most = 0.0

    def tell(done: float, figures: dict[str, float]) -> None:
        nonlocal most
        most = min(max(most, done), 1.0)
        progress(most, figures)

    return tell


def steps_left(values: Sequence[float], goal: float, usual: float, most: float) -> float:
    """Steps until a quantity that falls steadily is down at `goal`; at least 1.

    It falls by the same factor in each step, or as a power of their number, whichever fits the last `RECENT` values
    better. The fewer steps were taken, the more counts how many are usual.

    Parameters
    ----------
    values : sequence of float
        So far.
    goal : float
    usual : float
        Steps that are usual in all.
    most : float
        Steps that are allowed in all.
    """
    n = len(values)
    recent = [(n - RECENT + k if n > RECENT else k, value) for k, value in enumerate(values[-RECENT:], start=1)]
    known = [(k, math.log(value)) for k, value in recent if 0 < value < math.inf]
    left = expected = max(usual - n, 1.0)
    if len(known) >= RECENT // 2:
        y = [value for _, value in known]
        (rate, error), (power, other) = (
            _slope(x, y) for x in ([float(k) for k, _ in known], [math.log(k) for k, _ in known])
        )
        need = max(0.0, y[-1] - math.log(max(goal, 1e-300)))
        if error <= other and rate < 0:
            left = -need / rate
        elif power < 0:
            left = n * (math.exp(min(-need / power, 50.0)) - 1)
        else:
            left = most - n
        trust = min(1.0, n / usual)
        left = max(left, 1.0) ** trust * expected ** (1 - trust)
    return max(1.0, min(left, most - n))


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope of the line nearest to some points, and the sum of their squared distances to it."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return slope, sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
