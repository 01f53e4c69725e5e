"""How well a volume explains the data: chi2 and gain, for one scan or a tuple of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian, Likelihood
from invsr.numerics.levels import peak
from invsr.numerics.linear import inner, white_noise
from invsr.operators.base import Data, LinearOperator

# Slices with fewer measured pixels than this have no chi2.
LEAST_EXPECTED = 4.0


@dataclass(frozen=True)
class Residual:
    """What is left of one scan.

    Attributes
    ----------
    map : Tensor, shape of the scan's data
        Standardised residuals: white noise of standard deviation 1 where model and noise level are right, in the
        real and in the imaginary part if the data are complex.
    slice_chi2 : Tensor, shape (n_slices,)
        Mean square of each slice, as a share of white noise's; NaN for slices that nothing was measured in.
    chi2 : float
        Mean square of all slices, likewise.
    axis : {0, 1, 2}
        Across the slices.
    """

    map: Tensor
    slice_chi2: Tensor
    chi2: float
    axis: int


def as_tuple(data: Any) -> tuple[Any, ...]:
    """One scan's data, or its likelihood, as a tuple of one; a stack's as it is."""
    if isinstance(data, list):
        raise InvsrError("what belongs to several scans is given as a tuple, not as a list: write tuple(...)")
    return data if isinstance(data, tuple) else (data,)


def like_data(parts: tuple[Tensor, ...], data: Data) -> Data:
    """The reverse of `as_tuple`: `parts` in the form of `data`."""
    return parts if isinstance(data, tuple) else parts[0]


def likelihoods_of(
    y: Data, likelihood: Likelihood | tuple[Likelihood, ...] | None, sigma: float
) -> tuple[Likelihood, ...]:
    """The likelihood of each scan; by default Gaussian noise of the standard deviation `sigma`.

    Raises
    ------
    InvsrError
        When there is not one for each scan.
    """
    n_scans = len(as_tuple(y))
    if likelihood is None:
        return tuple(Gaussian(sigma) for _ in range(n_scans))
    found: tuple[Likelihood, ...] = as_tuple(likelihood)
    if len(found) != n_scans:
        raise InvsrError(f"likelihoods: {len(found)} for {n_scans} scans: give a tuple with one for each")
    return found


def back_project(operator: LinearOperator, y: Data) -> Tensor:
    """``A* y`` of one scan's data or a stack's."""
    return operator.adjoint(y)  # type: ignore[arg-type]  # a stack takes a tuple


def intensity_scale(y: Data, likelihoods: tuple[Likelihood, ...], guess: Tensor) -> float:
    """The level of bright tissue in the units of the data, 1 for data scaled to a peak of 1.

    `peak` of the first scan, inside its mask; for complex data, which may be k-space, of a first guess of the volume.
    """
    first, mask = as_tuple(y)[0], likelihoods[0].mask
    image = guess if first.is_complex() else first if mask is None else first[mask.expand(first.shape)]
    return peak(image) if bool(image.any()) else 1.0


def target(likelihoods: tuple[Likelihood, ...], y: Data, prediction: Data) -> Data:
    """Each scan's data re-targeted by its likelihood."""
    parts = zip(likelihoods, as_tuple(y), as_tuple(prediction), strict=True)
    return like_data(tuple(one.target(a, b) for one, a, b in parts), y)


def chi2(operator: LinearOperator, likelihoods: tuple[Likelihood, ...], y: Data, prediction: Data) -> float:
    """Mean squared standardised residual over `LinearOperator.measured_coordinates`, per real degree of freedom.

    1 where nothing but noise is left. A complex sample counts as two: its real and its imaginary part.
    """
    parts = list(zip(likelihoods, as_tuple(y), as_tuple(prediction), strict=True))
    counted = sum(_counted(one, a) for one, a, _ in parts) / sum(float(a.numel()) for _, a, _ in parts)
    squares, freedom = 0.0, 0.0
    for member, (one, a, b) in zip(operator.operators, parts, strict=True):
        if (
            a.is_complex() and not one.retargets
        ):  # of k-space, little may have been measured, of which alone memory is taken
            kept = one.standardised_residual(member.measured_coordinates(a), member.measured_coordinates(b))
        else:
            kept = member.measured_coordinates(one.standardised_residual(a, b))
        squares += float(inner(kept, kept).detach())
        freedom += kept.numel() * (2 if kept.is_complex() else 1)
    return squares / max(freedom * counted, 1.0)


def n_measured(operator: LinearOperator, y: Data) -> int:
    """Number of values that were measured, over all scans: those of `LinearOperator.measured_coordinates`."""
    return sum(
        member.measured_coordinates(one).numel() for member, one in zip(operator.operators, as_tuple(y), strict=True)
    )


def residuals(
    operator: LinearOperator,
    likelihoods: tuple[Likelihood, ...],
    y: Data,
    prediction: Data,
    axes: Sequence[int],
) -> list[Residual]:
    """Standardised residuals of each scan, of what the operator could have produced; `axes` lie across the slices."""
    found = []
    for member, one, a, b, axis in zip(
        operator.operators, likelihoods, as_tuple(y), as_tuple(prediction), axes, strict=True
    ):
        noise = white_noise(a, torch.Generator().manual_seed(0))
        noise = noise if one.mask is None else noise * one.mask
        map = _projected(member, one.standardised_residual(a, b))
        across = [n for n in range(a.ndim) if n != 2 + axis]
        expected = _projected(member, noise).abs().square().sum(across)
        squares = map.abs().square().sum(across)
        each = torch.where(expected > LEAST_EXPECTED, squares / expected, torch.nan)
        found.append(Residual(map, each, float(squares.sum() / expected.sum()), axis))
    return found


def _projected(operator: LinearOperator, r: Tensor) -> Tensor:
    """``C* C r`` with C = `measured_coordinates`: what the operator could have produced of r."""
    with torch.enable_grad():
        r = r.detach().requires_grad_()
        kept = operator.measured_coordinates(r)
        # The gradient of half its square; that of a vector makes torch import sympy, which takes half a second.
        (found,) = torch.autograd.grad(0.5 * kept.abs().square().sum(), r)
    return found


def gain(likelihoods: tuple[Likelihood, ...], y: Data, prediction: Data) -> float:
    """How much of the data's intensity the prediction p has inside masks: ``<p, p> / <p, y>``, 1 where it is kept.

    One over the least-squares slope of the data against the prediction. Not the slope of the prediction
    against the data, which noise in the data biases towards 0.
    """
    above, below = 0.0, 0.0
    for one, a, b in zip(likelihoods, as_tuple(y), as_tuple(prediction), strict=True):
        counted = b if one.mask is None else b * one.mask
        above += float(inner(counted, b))
        below += float(inner(counted, a))
    return above / below if below else 1.0


def _counted(likelihood: Likelihood, y: Tensor) -> float:
    return float(y.numel() if likelihood.mask is None else likelihood.mask.expand(y.shape).sum())
