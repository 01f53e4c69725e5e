"""The acquisitions that trained solvers were trained for."""

from __future__ import annotations

import warnings
from typing import Any

from invsr.errors import InvsrWarning
from invsr.pipeline.problem import InverseProblem

# By this share an acquisition may leave a range of training unremarked.
RANGE_MARGIN = 0.15
# What leaves them: slices, their gaps, noise, or something else.
THIN, THICK, GAP, NOISE, OTHER = "thin", "thick", "gap", "noise", "other"


def warn_outside(about: dict[str, Any], problem: InverseProblem) -> None:
    """Warn where a trained solver is asked for what it was not trained on: see `outside`."""
    for what in outside(about, problem).values():
        warnings.warn(
            f"{what}: compare with --method pnp, which is trained for no particular acquisition",
            InvsrWarning,
            stacklevel=2,
        )


def outside(about: dict[str, Any], problem: InverseProblem) -> dict[str, str]:
    """What of a problem lies outside a trained solver's ranges, in words, by what it is: `THICK`, `THIN`, `GAP`, ...

    Parameters
    ----------
    about : dict
        The description in the weights file: ranges "thickness" (voxels), "gap" (share of it), "noise" (of the peak).
    problem : InverseProblem
    """
    slices = problem.slices
    if slices is None:
        return {OTHER: "a problem without slices: the network was trained on thick-slice scans"}
    try:
        thickness, gap, noise = map(_pair, (about["thickness"], (0.0, about["gap"]), about["noise"]))
    except (KeyError, TypeError, ValueError):
        return {OTHER: "weights that do not say which acquisitions they were trained on"}
    found = {}
    for below, above, what, value, (low, high) in (
        (THIN, THICK, "slices {:.3g} target voxels thick", slices.thickness, thickness),
        (GAP, GAP, "gaps of {:.3g} of the thickness", slices.gap / slices.thickness, gap),
        ("", NOISE, "noise of {:.3g} of the peak", problem.sigma, noise),
    ):
        words = f"{what.format(value)}: the network was trained on {low:g} to {high:g}"
        if value + 1e-6 > (1 + RANGE_MARGIN) * high + 1e-5:
            found[above] = words
        elif below and value + 1e-6 < (1 - RANGE_MARGIN) * low:  # less noise than in training is no difficulty
            found[below] = words
    if isinstance(problem.y, tuple):
        found[OTHER] = f"{len(problem.y)} scans: the network was trained on one"
    return found


def _pair(values: Any) -> tuple[float, float]:
    low, high = map(float, values)
    return low, high
