"""SIGINT and SIGTERM: a command removes what it has not finished, says so in one line and ends with 128 + signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


def raise_on_signals() -> Callable[[], int]:
    """Let the first signal raise KeyboardInterrupt, the second end the process at once.

    Returns
    -------
    callable
        The exit code of an interrupted command, as shells know it: 130 after SIGINT, 143 after SIGTERM.
    """
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        release_signals()
        raise KeyboardInterrupt

    for one in STOPS:
        if signal.getsignal(one) is not signal.SIG_IGN:  # as of a process in a shell's background
            signal.signal(one, stop)
    return lambda: 128 + (received[0] if received else signal.SIGINT)


def release_signals() -> None:
    """Let signals end the process at once: there is nothing to tidy up any more."""
    for one in STOPS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, signal.SIG_DFL)
