"""A bar on the terminal: what is being done, how much of it is done, and the time that is left."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from invsr.numerics.iteration import ProgressCallback, growing, part

# Seconds of each method on 124x160x140 voxels, noise estimation included, and of what follows it: checks and file, and
# the report (`python -m benchmarks.speed.command_parts`); posterior's by its number of network passes, that of others
# is a guess. Their ratios are what counts.
SOLVING = {"cubic": 0.5, "tikhonov": 1.0, "tv": 3.3, "unrolled": 37.0, "pnp": 65.0, "deq": 63.0, "posterior": 600.0}
SOLVING_OTHERS = 30.0
WRITING, REPORTING = 1.0, 1.9


class TimeLeft:
    """Seconds that are left, from the rate at which the share that is done has grown in the last third of the time.

    Parameters
    ----------
    clock : callable
        The time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.times: list[float] = []
        self.shares: list[float] = []

    def tell(self, done: float) -> None:
        """Take the share that is done now."""
        if not self.shares or done > self.shares[-1]:
            self.times.append(self.clock())
            self.shares.append(done)

    def seconds(self) -> float | None:
        """Seconds that are left; None before anything is known."""
        if len(self.times) < 2:
            return None
        last = self.times[-1]
        # Stages go at different rates: what lies further back says little.
        since = bisect_right(self.times, last - (last - self.times[0]) / 3) - 1
        rate = (self.shares[-1] - self.shares[since]) / max(last - self.times[since], 1e-9)
        return max(0.0, (1 - self.shares[-1]) / rate - (self.clock() - last))


class Bar:
    """A bar; or none, where nothing is to be shown.

    Parameters
    ----------
    describe : callable
        The figures of a step as words.
    show : callable or None
        Called with a text and the share that is done.
    """

    def __init__(
        self, describe: Callable[[dict[str, float]], str], show: Callable[[str, float], None] | None = None
    ) -> None:
        self.describe, self.show = describe, show

    def part(self, what: str, low: float = 0.0, high: float = 1.0) -> ProgressCallback | None:
        """Whom to tell of the part of the whole from `low` to `high`, named `what` in front of the bar."""
        if self.show is None:
            return None
        show, words = self.show, ""

        def update(done: float, figures: dict[str, float]) -> None:
            nonlocal words
            words = f"  {self.describe(figures)}" if figures else words
            show(what + words, done)

        inner = part(growing(update), low, high)
        inner(0.0, {})
        return inner


@contextmanager
def progress(describe: Callable[[dict[str, float]], str], *, quiet: bool = False) -> Iterator[Bar]:
    """A bar on standard error while the context lasts; nothing where that is not a terminal.

    Parameters
    ----------
    describe : callable
        The figures of a step as words.
    quiet : bool
        Show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield Bar(describe)
        return
    from rich import progress as rich
    from rich.console import Console

    left = TimeLeft()
    # The words come last: on a narrow terminal the end of the line is cut.
    columns: list[Any] = [rich.BarColumn(20), rich.TaskProgressColumn(), _left_column(left), rich.TimeElapsedColumn()]
    columns.append(rich.TextColumn("{task.description}"))
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, done: float) -> None:
            left.tell(done)
            # Without a total it moves back and forth: nothing is done yet.
            bar.update(task, completed=done, total=1.0 if done else None, description=text)

        found = Bar(describe, show)
        found.part("reading")
        yield found


def _left_column(left: TimeLeft) -> Any:
    """A column of rich's that counts the seconds down."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(time_in_words(left.seconds()), style="progress.remaining")

    return Left()


def time_in_words(seconds: float | None) -> str:
    """How long it takes still; nothing where it is not known."""
    return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours from 60 minutes on."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def share_of_solving(method: str, report: bool) -> float:
    """The share of the whole command at which a method has solved its problem; then its result is written."""
    solving = SOLVING.get(method, SOLVING_OTHERS)
    return solving / (solving + WRITING + (REPORTING if report else 0.0))
