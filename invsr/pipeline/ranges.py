"""The acquisitions that trained solvers were trained for."""

from __future__ import annotations

import warnings
from typing import Any

from invsr.errors import InvsrWarning
from invsr.pipeline.problem import InverseProblem

# By this share an acquisition may leave a range of training unremarked.
RANGE_MARGIN = 0.15


def warn_outside(about: dict[str, Any], problem: InverseProblem) -> None:
    """Warn where a trained solver is asked for what it was not trained on: see `outside`."""
    for what in outside(about, problem):
        warnings.warn(
            f"{what}: compare with --method pnp, which is trained for no particular acquisition",
            InvsrWarning,
            stacklevel=2,
        )


def outside(about: dict[str, Any], problem: InverseProblem) -> list[str]:
    """What of a problem lies outside a trained solver's ranges, in words.

    Parameters
    ----------
    about : dict
        The description in the weights file: ranges "thickness" (voxels), "gap" (share of it), "noise" (of the peak).
    problem : InverseProblem
    """
    slices = problem.slices
    if slices is None:
        return ["a problem without slices: the network was trained on thick-slice scans"]
    try:
        thickness, gap, noise = map(_pair, (about["thickness"], (0.0, about["gap"]), about["noise"]))
    except (KeyError, TypeError, ValueError):
        return ["weights that do not say which acquisitions they were trained on"]
    found = []
    for what, value, (low, high) in (
        ("slices {:.3g} target voxels thick", slices.thickness, thickness),
        ("gaps of {:.3g} of the thickness", slices.gap / slices.thickness, gap),
        ("noise of {:.3g} of the peak", problem.sigma, noise),
    ):
        # Less noise than in training is no difficulty.
        least = 0.0 if what.startswith("noise") else (1 - RANGE_MARGIN) * low
        if not least <= value + 1e-6 <= (1 + RANGE_MARGIN) * high + 1e-5:
            found.append(f"{what.format(value)}: the network was trained on {low:g} to {high:g}")
    if isinstance(problem.y, tuple):
        found.append(f"{len(problem.y)} scans: the network was trained on one")
    return found


def _pair(values: Any) -> tuple[float, float]:
    low, high = map(float, values)
    return low, high
