"""Losses of networks that reconstruct volumes end to end; for denoisers see `invsr.training.denoising_loss`.

Each is a function ``loss(estimate, truth)`` of tensors (batch, 1, i, j, k), with intensities scaled to a peak near 1,
and returns one number, a mean over batch and voxels: sizes of batch and patch do not shift their balance. `combined`
adds them up with weights.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.models.networks import Network
from invsr.numerics.differences import NEUMANN, gradient
from invsr.operators.base import LinearOperator
from invsr.testing.metrics import SSIM_WINDOW

Loss = Callable[[Tensor, Tensor], Tensor]

# Errors of less than this (of the peak) count by their square in `charbonnier`.
EPSILON = 1e-3
# SSIM's stabilising constants, 0.01^2 and 0.03^2 for a peak of 1; its window's standard deviation, voxels.
C1, C2, SSIM_SIGMA = 1e-4, 9e-4, 1.5
# The noise level, as a share of the peak, at which `perceptual` evaluates denoising networks.
FEATURE_SIGMA = 0.05


def l1(estimate: Tensor, truth: Tensor) -> Tensor:
    """``mean |estimate - truth|``: Zhao, Gallo, Frosio & Kautz (2017), IEEE Trans. Comput. Imaging 3, 47-57."""
    return _error(estimate, truth).abs().mean()


def l2(estimate: Tensor, truth: Tensor) -> Tensor:
    """``mean (estimate - truth)^2``, which the mean of all likely volumes minimises, and PSNR measures."""
    return _error(estimate, truth).square().mean()


def charbonnier(estimate: Tensor, truth: Tensor) -> Tensor:
    """``mean sqrt((estimate - truth)^2 + EPSILON^2) - EPSILON``: `l1`, its corner at 0 rounded.

    The constant is subtracted so that a perfect estimate costs 0. Charbonnier, Blanc-Feraud, Aubert & Barlaud
    (1994), Proc. IEEE Int. Conf. Image Process. 2, 168-172.
    """
    return ((_error(estimate, truth).square() + EPSILON * EPSILON).sqrt() - EPSILON).mean()


def ssim(estimate: Tensor, truth: Tensor) -> Tensor:
    """``1 - mean (2 m_x m_y + C1) (2 c_xy + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))``, from 0 to 2.

    Means m, variances v and covariances c under a 3-D Gaussian window, as in `invsr.testing.metrics.evaluate`, for
    a peak of 1. The mean is over windows that lie inside the volume. Wang, Bovik, Sheikh & Simoncelli (2004), IEEE
    Trans. Image Process. 13, 600-612.

    Raises
    ------
    InvsrError
        For volumes smaller than the window, 11 voxels along each axis.
    """
    x, y = _pair(estimate, truth)
    if min(x.shape[2:]) < SSIM_WINDOW:
        sides = "x".join(map(str, x.shape[2:]))
        raise InvsrError(f"ssim of {sides} voxels: its window needs {SSIM_WINDOW} along each axis, use larger patches")
    error = x - y
    # Variances are small differences of large numbers: half precision would leave nothing of them.
    with torch.autocast(x.device.type, enabled=False):
        m_y, m_error, squares, errors = _window(torch.stack([y, error, x.square() + y.square(), error.square()]))
    power = (m_y + m_error).square() + m_y.square()
    unbiased = SSIM_WINDOW**3 / (SSIM_WINDOW**3 - 1)
    # Both factors as 1 minus the error's share: exactly 1 without error. Rounding can make variances negative.
    luminance = 1 - m_error.square() / (power + C1)
    variance, misfit = (unbiased * one.clamp(min=0) for one in (squares - power, errors - m_error.square()))
    contrast = 1 - misfit / (variance + C2)
    found: Tensor = 1 - (luminance * contrast).mean()
    return found


def edge(estimate: Tensor, truth: Tensor) -> Tensor:
    """``mean |grad estimate - grad truth|`` over voxels and axes: edges that are blurred, moved or made up cost.

    Forward differences per voxel. Signed, unlike the gradient difference loss of Mathieu, Couprie & LeCun (2016),
    ICLR, which compares the differences' magnitudes: an edge of the wrong sign is wrong.
    """
    return _gradient(_error(estimate, truth)).abs().mean()


def tv(estimate: Tensor, truth: Tensor | None = None) -> Tensor:
    """``mean sqrt(sum_n (d_n estimate)^2)``, isotropic total variation per voxel: a penalty, which ignores the truth.

    d_n is the forward difference along axis n. Not 0 for a perfect estimate: keep its weight small. Rudin,
    Osher & Fatemi (1992), Physica D 60, 259-268.
    """
    x, _ = _pair(estimate, estimate if truth is None else truth)
    # The norm's derivative at 0, where a volume is flat, is taken as 0; that of a square root is infinite.
    lengths: Tensor = torch.linalg.vector_norm(_gradient(x), dim=0)
    return lengths.mean()


def frequency(estimate: Tensor, truth: Tensor) -> Tensor:
    """``mean |F estimate - F truth|``, F the orthonormal 3-D Fourier transform; complex, so phase counts.

    By Parseval's theorem `l2` is the mean of the squares of what this is a mean of: here the weak high frequencies
    count for more. As in Cho, Ji, Hong, Jung & Ko (2021), Proc. IEEE Int. Conf. Comput. Vis., 4641-4650.
    """
    spectrum: Tensor = torch.fft.fftn(_error(estimate, truth), dim=(-3, -2, -1), norm="ortho")
    return spectrum.abs().mean()


def perceptual(features: nn.Module) -> Loss:
    """The loss ``mean |f(estimate) - f(truth)|``, f a frozen network's features.

    It is as good as the network's features are; nothing here makes them those that a reader of images sees.

    Parameters
    ----------
    features : nn.Module
        From (batch, 1, i, j, k) to a tensor, or to a sequence of tensors, whose means are averaged. A denoising
        `Network` of this package stands for the noise that it finds at level 0.05: texture that it would remove.
        What is used is a copy, in evaluation mode, on the device where it is now.

    Raises
    ------
    InvsrError
        For a denoising network of slices; by the loss, for volumes whose sides do not suit a denoising network.

    References
    ----------
    Johnson, Alahi & Fei-Fei (2016), Eur. Conf. Comput. Vis., 694-711.

    Examples
    --------
    >>> loss = perceptual(nn.Conv3d(1, 4, 3, bias=False))
    >>> float(loss(torch.ones(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)))
    0.0
    """
    if isinstance(features, Network) and features.dim != 3:
        raise InvsrError(f"perceptual needs a network of volumes: this {type(features).__name__} is of slices")
    frozen = copy.deepcopy(features).eval().requires_grad_(False)

    def maps(x: Tensor) -> list[Tensor]:
        if isinstance(frozen, Network):
            if any(side % frozen.multiple for side in x.shape[2:]):
                sides = "x".join(map(str, x.shape[2:]))
                raise InvsrError(f"perceptual of {sides} voxels: the network needs multiples of {frozen.multiple}")
            return [x - frozen(x, FEATURE_SIGMA)]
        found = frozen(x)
        return [found] if isinstance(found, Tensor) else list(found)

    def loss(estimate: Tensor, truth: Tensor) -> Tensor:
        x, y = _pair(estimate, truth)
        with torch.no_grad():
            wanted = maps(y)
        return torch.stack([(a - b).abs().mean() for a, b in zip(maps(x), wanted, strict=True)]).mean()

    return loss


def physics(estimate: Tensor, operator: LinearOperator, y: Any, sigma: float | Tensor) -> Tensor:
    """``mean |A estimate - y|^2 / sigma^2``: misfit to the scan, 1 where only noise is left (2 for complex data).

    The Gaussian data term of `invsr.solvers`, per sample and twice. It needs no truth, and cannot see what A hides.

    Parameters
    ----------
    estimate : Tensor, shape (batch, 1, *operator.domain.shape)
    operator : LinearOperator
    y : Tensor, shape (batch, 1, *operator.range.shape)
        For a `Stack` a tuple, weighed as the operator does (`Stack.weigh`).
    sigma : float or Tensor
        Standard deviation of the noise, in the units of y; shape (batch,) for one each. For complex data, that of the
        real part.

    Raises
    ------
    InvsrError
        When y is not what the operator produces, or sigma is not above zero.
    """
    x = estimate.to(_precision(estimate))
    level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if not bool(((level > 0) & level.isfinite()).all()):
        raise InvsrError(f"sigma is {sigma}: the noise of a scan is finite and above zero")
    level = level.reshape(-1, 1, 1, 1, 1) if level.ndim == 1 else level
    with torch.autocast(x.device.type, enabled=False):
        predicted: Any = operator(x)
    scans, data = ((one,) if isinstance(one, Tensor) else tuple(one) for one in (predicted, y))
    shapes = [[tuple(part.shape) for part in parts] for parts in (scans, data)]
    if shapes[0] != shapes[1]:
        raise InvsrError(f"the operator produces data of shape {shapes[0]}, y has {shapes[1]}: use the scan's own")
    squares = [((a - b).abs() / level).square().flatten() for a, b in zip(scans, data, strict=True)]
    return torch.cat(squares).mean()


#: Losses of an estimate and the truth, by name; `combined` also knows "perceptual" and "physics".
LOSSES: dict[str, Loss] = {one.__name__: one for one in (l1, l2, charbonnier, ssim, edge, tv, frequency)}


@dataclass(frozen=True)
class Mix:
    """A weighted sum of losses, as `combined` reads it: ``loss(estimate, truth, operator, y, sigma)``."""

    weights: dict[str, float]
    perceptual: Loss | None = None

    def __call__(
        self,
        estimate: Tensor,
        truth: Tensor,
        operator: LinearOperator | None = None,
        y: Any = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor:
        """The sum of `terms`."""
        return torch.stack(list(self.terms(estimate, truth, operator, y, sigma).values())).sum()

    def terms(
        self,
        estimate: Tensor,
        truth: Tensor,
        operator: LinearOperator | None = None,
        y: Any = None,
        sigma: float | Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each term times its weight, by name. Their sum is the loss: one who logs them need not compute them twice.

        Raises
        ------
        InvsrError
            When "physics" is a term and `operator`, `y` or `sigma` is missing.
        """
        found: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            if name == "physics":
                if operator is None or y is None or sigma is None:
                    raise InvsrError("physics compares with the scan: give the loss its operator, y and sigma")
                value = physics(estimate, operator, y, sigma)
            elif name == "perceptual" and self.perceptual is not None:
                value = self.perceptual(estimate, truth)
            else:
                value = LOSSES[name](estimate, truth)
            found[name] = weight * value
        return found


def combined(text: str, features: nn.Module | None = None) -> Mix:
    """Read a sum of losses such as ``"charbonnier + 0.1 edge + 0.05 ssim"``.

    Parameters
    ----------
    text : str
        Names of `LOSSES`, "perceptual" or "physics", each after a weight above zero or, for 1, none.
    features : nn.Module, optional
        What the term "perceptual" compares: see `perceptual`.

    Raises
    ------
    InvsrError
        For unknown names, names that come twice, weights that are no number above zero, or "perceptual" without
        features.

    Examples
    --------
    >>> loss = combined("charbonnier + 0.1 edge")
    >>> loss.weights
    {'charbonnier': 1.0, 'edge': 0.1}
    >>> round(float(loss(torch.full((1, 1, 8, 8, 8), 0.3), torch.zeros(1, 1, 8, 8, 8))), 3)
    0.299
    """
    weights: dict[str, float] = {}
    for term in re.split(r"(?<![\d.][eE])\+", text):  # not the plus of 1e+3
        *factor, name = term.split() or [""]
        if name not in (*LOSSES, "perceptual", "physics"):
            raise InvsrError(f"no loss {name!r} in {text!r}: there are {', '.join(LOSSES)}, perceptual and physics")
        if name in weights:
            raise InvsrError(f"{name} comes twice in {text!r}: give it once, with the sum of the weights")
        try:
            weights[name] = float(" ".join(factor) or 1)
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise InvsrError(f"the weight of {name} in {text!r} is {' '.join(factor)!r}: write a number above zero")
    if "perceptual" in weights and features is None:
        raise InvsrError("perceptual compares features: give the network, such as pretrained().network")
    return Mix(weights, None if features is None else perceptual(features))


def _precision(x: Tensor) -> torch.dtype:
    """At least single: losses are small differences and long sums."""
    return torch.promote_types(x.dtype, torch.float32)


def _pair(estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if estimate.shape != truth.shape or estimate.ndim != 5:
        shapes = f"{tuple(estimate.shape)} and a truth of {tuple(truth.shape)}"
        raise InvsrError(f"an estimate of shape {shapes}: both must be (batch, 1, i, j, k), the same")
    return estimate.to(_precision(estimate)), truth.to(_precision(estimate))


def _error(estimate: Tensor, truth: Tensor) -> Tensor:
    x, y = _pair(estimate, truth)
    return x - y


def _gradient(x: Tensor) -> Tensor:
    """Forward differences per voxel, shape (3, batch, 1, i, j, k); 0 at the last voxel of each axis."""
    return gradient(x, (1.0, 1.0, 1.0), (NEUMANN,) * 3)


def _window(x: Tensor) -> Tensor:
    """Means of x, shape (..., i, j, k), under SSIM's window wherever all of it is inside: 10 fewer along each axis.

    Banded matrices: convolutions of one channel are more than ten times as slow on a CPU.
    """
    for axis in (-3, -2, -1):
        size = x.shape[axis]
        at = torch.arange(size, dtype=x.dtype, device=x.device)
        centre = at[SSIM_WINDOW // 2 : size - SSIM_WINDOW // 2]
        offset = at[:, None] - centre
        matrix = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2)) * (offset.abs() <= SSIM_WINDOW // 2)
        x = (x.movedim(axis, -1) @ (matrix / matrix.sum(0))).movedim(-1, axis)
    return x
