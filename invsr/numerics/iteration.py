"""How an iteration ended, and whom it tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

# Called with (step, steps, figures).
ProgressCallback = Callable[[int, int, dict[str, float]], None]


class Status(str, Enum):
    """How an iteration ended."""

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    BREAKDOWN = "breakdown"
