"""Results are checked before anybody gets them."""

from __future__ import annotations

import torch

from invsr.errors import InvsrError
from invsr.pipeline.methods import Method
from invsr.pipeline.problem import InverseProblem
from invsr.solvers.residuals import as_tuple
from invsr.solvers.solution import Solution

# How far a result may reach beyond the data's range, in multiples of its width. Deconvolution and ringing stay below 1.
MOST_BEYOND = 4.0
# A result whose range is below this share of the data's shows nothing.
LEAST_WIDTH = 1e-3
# Largest magnitude, bright tissue being 1, where data are no image and have no such range.
MOST_MAGNITUDE = 50.0


def require_plausible(solution: Solution, problem: InverseProblem, method: Method) -> None:
    """Raise unless a result is finite, within a plausible multiple of the data's range, and shows something.

    Raises
    ------
    InvsrError
        Saying what the result is like and what usually causes that.
    """
    x = solution.x
    for found in (x, solution.std, solution.samples):
        # In the data's units: numbers near the largest of float32 become infinite there.
        count = 0 if found is None else int((~torch.isfinite(found * problem.scale)).sum())
        if found is not None and count:
            raise InvsrError(
                f"method {method}: {count} of {found.numel()} voxels of the result are NaN or infinite: check the data "
                "for extreme values, and the noise and lam that were given; nothing was written"
            )
    if not problem.scans:
        largest = float(x.abs().max())
        if largest > MOST_MAGNITUDE:
            raise InvsrError(
                f"method {method}: the result reaches {largest * problem.scale:.3g}, where bright tissue has "
                f"{problem.scale:.3g}: the operator does not fit the data, or lam is too small"
            )
        return
    low, high = _data_range(problem)
    reach = MOST_BEYOND * (high - low)
    least, most = float(x.min()), float(x.max())
    if least < low - reach or most > high + reach:
        low, high, least, most = (problem.scale * value + problem.offset for value in (low, high, least, most))
        raise InvsrError(
            f"method {method}: the result runs from {least:.3g} to {most:.3g}, the data from {low:.3g} to {high:.3g}: "
            "the model does not fit them (slice thickness, scans that lie elsewhere or have another contrast), or lam "
            "is too small; nothing was written"
        )
    # Of noise alone nothing is left by right, where nobody gave a weight.
    if getattr(method, "lam", None) is not None and most - least < LEAST_WIDTH * (high - low):
        low, high, most = (problem.scale * value + problem.offset for value in (low, high, most))
        raise InvsrError(
            f"method {method}: the result is {most:.3g} everywhere, the data run from {low:.3g} to {high:.3g}: lam is "
            "too large; nothing was written"
        )


def _data_range(problem: InverseProblem) -> tuple[float, float]:
    """Least and largest intensity of the first scan, whose units the result has, in the problem's scale."""
    first = as_tuple(problem.y)[0] * problem.levels[0]
    return float(first.min()), float(first.max())
