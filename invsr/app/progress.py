"""A bar on the terminal for whatever runs in steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from invsr.numerics.iteration import ProgressCallback


@contextmanager
def progress(
    what: str, describe: Callable[[dict[str, float]], str], *, quiet: bool = False, left: str = "left"
) -> Iterator[ProgressCallback | None]:
    """A bar on standard error while the context lasts; nothing where that is not a terminal.

    Parameters
    ----------
    what : str
        In front of the bar.
    describe : callable
        The figures of a step as words.
    quiet : bool
        Show nothing.
    left : str
        In front of the time left.

    Yields
    ------
    callable or None
        To be called with (step, steps, figures); None when nothing is shown.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    count, taken, to_come = rich.MofNCompleteColumn(), rich.TimeElapsedColumn(), rich.TimeRemainingColumn()
    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), count, taken, rich.TextColumn(left), to_come)
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(step: int, steps: int, figures: dict[str, float]) -> None:
            bar.update(task, completed=step, total=steps, description=f"{what}  {describe(figures)}")

        yield update
