"""How an iteration ended, and whom it tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

# Called with (step, steps, figures).
ProgressCallback = Callable[[int, int, dict[str, float]], None]


class Status(str, Enum):
    """How an iteration ended.

    CONVERGED: the tolerance was reached. MAX_ITER: the limit of iterations came first. BREAKDOWN: the iteration cannot
    go on (an indefinite matrix, a fixed-point map that is not finite). DIVERGED: the iterates grew beyond any bound.
    """

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    BREAKDOWN = "breakdown"
    DIVERGED = "diverged"
