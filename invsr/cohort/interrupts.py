"""Signals that are heard where they do no harm: an exception that is raised inside a destructor is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Within it, the first SIGINT or SIGTERM waits until the function that it yields is called; the second does not.

    The function does what the signal would have done: raise KeyboardInterrupt, usually. What has not been called for
    at the end happens then.
    """
    waiting: list[int] = []
    before: dict[int, Any] = {}

    def wait(number: int, frame: Any) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            before[number](number, frame)

    def answer() -> None:
        if waiting:
            before[waiting[0]](waiting[0], None)

    if threading.current_thread() is threading.main_thread():  # others are not interrupted
        for one in STOPS:
            if callable(handler := signal.getsignal(one)):
                before[one] = handler
                signal.signal(one, wait)
    try:
        yield answer
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is wait:  # what answered may have set another one
                signal.signal(number, handler)
    answer()
