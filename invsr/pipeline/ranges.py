"""The acquisitions that trained solvers were trained for."""

from __future__ import annotations

import warnings
from typing import Any

from invsr.errors import InvsrWarning
from invsr.pipeline.problem import InverseProblem
from invsr.training.recipe import THINNEST

# By this share an acquisition may leave a range of training unremarked.
RANGE_MARGIN = 0.15
# What leaves them: slices, their gaps, noise, or something else.
THIN, THICK, GAP, NOISE, OTHER = "thin", "thick", "gap", "noise", "other"
NOISE_OF = "noise of {:.3g} of the peak"


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
        The description in the weights file: ranges "thickness" (voxels), "gap" (share of it), "noise" (of the peak);
        shares "thin", "stacks", "oblique" and "kspace" of the training, 0 where they are missing.
    problem : InverseProblem
    """
    slices = problem.all_slices
    kspace = float(about.get("kspace", 0))
    if problem.operator.complex_range:
        return _outside_kspace(about, problem, kspace)
    if kspace == 1:
        return {OTHER: "images: the network was trained on k-space"}
    if not slices:
        return {OTHER: "a problem without slices: the network was trained on thick-slice scans"}
    try:
        thickness, gap, noise = map(_pair, (about["thickness"], (0.0, about["gap"]), about["noise"]))
        thin, stacks, oblique = (float(about.get(name, 0)) > 0 for name in ("thin", "stacks", "oblique"))
    except (KeyError, TypeError, ValueError):
        return {OTHER: "weights that do not say which acquisitions they were trained on"}
    found: dict[str, str] = {}
    for one in slices:
        share, widest = one.gap / one.thickness, gap
        if thin:  # slices were made thinner at the same distance
            widest = (0.0, (1 + gap[1]) * min(1 / THINNEST, max(1.0, thickness[1] / one.thickness)) - 1)
        apart = thin and one.thickness + one.gap >= thickness[0]
        found |= _beyond(THIN, THICK, "slices {:.3g} target voxels thick", one.thickness, thickness, apart)
        found |= _beyond(GAP, GAP, "gaps of {:.3g} of the thickness", share, widest)
    # Less noise than in training is no difficulty.
    found |= _beyond(None, NOISE, NOISE_OF, problem.sigma, noise)
    if len(slices) > 1 and not stacks:
        found[OTHER] = f"{len(slices)} scans: the network was trained on one"
    elif len(slices) > 1 and problem.slices_move:
        found[OTHER] = f"{len(slices)} scans whose slices moved: the network was trained on still ones"
    elif len(slices) > 1 and problem.is_oblique and not oblique:
        found[OTHER] = f"{len(slices)} scans that lie obliquely: the network was trained on parallel ones"
    return found


def _outside_kspace(about: dict[str, Any], problem: InverseProblem, share: float) -> dict[str, str]:
    if not share:
        return {OTHER: "k-space: the network was trained on images of thick slices"}
    if problem.all_slices:
        return {OTHER: "k-space of slices thicker than voxels: the network was trained on k-space of voxels alone"}
    return _beyond(None, NOISE, NOISE_OF, problem.sigma, _pair(about["noise"]))


def _beyond(
    below: str | None, above: str, what: str, value: float, trained: tuple[float, float], thin: bool = False
) -> dict[str, str]:
    """That a value lies below or above what a network was trained on, in words; nothing where it does not."""
    low, high = trained[0] * (THINNEST if thin else 1.0), trained[1]
    words = f"{what.format(value)}: the network was trained on {low:.3g} to {high:.3g}"
    if value + 1e-6 > (1 + RANGE_MARGIN) * high + 1e-5:
        return {above: words}
    return {below: words} if below is not None and value + 1e-6 < (1 - RANGE_MARGIN) * low else {}


def _pair(values: Any) -> tuple[float, float]:
    low, high = map(float, values)
    return low, high
