"""Data terms other than least squares, by majorise-minimise: new data, same least-squares step.

Every solver's data step minimises ``1/2 ||A x - t||^2`` with a target `t`. A likelihood states the target that
turns this step into a descent step of its own: at the current prediction ``p = A x``,

    ``nll(y, q) <= nll(y, p) + (||q - t||^2 - ||p - t||^2) / (2 sigma^2)``  for every q,

with equality at ``q = p``. Minimising the right side, alone or with a regulariser, therefore never raises
``nll + regulariser``. All right sides have the curvature 1 / sigma^2 of the Gaussian, so one factorisation of
``A.H A + rho`` serves every likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from invsr.errors import InvsrError


@dataclass(frozen=True)
class Masked:
    """A likelihood that only counts the data inside a mask.

    Data outside are taken to be whatever the volume predicts, which leaves the exact data step as it is
    (expectation-maximisation for missing data; Dempster, Laird, Rubin 1977).
    """

    likelihood: Likelihood
    mask: Tensor
    retargets: ClassVar[bool] = True

    @property
    def sigma(self) -> float:
        return self.likelihood.sigma

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        return torch.where(self.mask, self.likelihood.target(y, prediction), prediction)

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        shape = y.shape
        keep = self.mask.expand(shape)
        return self.likelihood.negative_log_likelihood(y[keep], prediction[keep])

    def standardised_residual(self, y: Tensor, prediction: Tensor) -> Tensor:
        return torch.where(self.mask, self.likelihood.standardised_residual(y, prediction), 0.0)


class Likelihood(Protocol):
    """What a solver asks of a data term. Data `y` and `prediction` have one shape, any; `sigma` is their noise."""

    @property
    def sigma(self) -> float:
        """Noise standard deviation in intensity units, above zero; of complex data, that of each part."""
        ...

    @property
    def retargets(self) -> bool:
        """Whether `target` changes with the prediction; False where it is always the data themselves."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Which data count, broadcast to the shape of `y`; None for all."""
        ...

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Data for the next least-squares step, shape of `y`."""
        ...

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        """-log p(y | prediction) up to terms in `y` alone, summed over the data in float64; a scalar."""
        ...

    def standardised_residual(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Residual of mean 0 and variance 1 where the model holds, shape of `y`.

        In complex data the real and the imaginary part have variance 1 each. Its mean square over both is chi2.
        """
        ...


@dataclass(frozen=True)
class _Additive:
    """What likelihoods of the difference y - p share: positive parameters and the residual."""

    sigma: float
    retargets: ClassVar[bool] = True
    mask: ClassVar[None] = None

    def __post_init__(self) -> None:
        _require_positive(**vars(self))

    def standardised_residual(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``(y - p) / sigma``; its variance is 1 without outliers."""
        _require_same_shape(y, prediction)
        if not y.is_complex():
            return (y - prediction) / self.sigma
        # The division of complex numbers takes several times as long, and k-space of coils much memory.
        left = y - prediction
        return left * (1 / self.sigma) if torch.is_grad_enabled() else left.mul_(1 / self.sigma)


@dataclass(frozen=True)
class Gaussian(_Additive):
    """White Gaussian noise: ``nll = sum |y - p|^2 / (2 sigma^2)``, target y.

    Complex data are allowed; `sigma` is then that of the real and of the imaginary part, as everywhere in MRI,
    and the standardised residual has variance 1 in each.

    Parameters
    ----------
    sigma : float
        Noise standard deviation, intensity units.

    Raises
    ------
    InvsrError
        When `sigma` is not above zero, or `y` and the prediction differ in shape.

    Examples
    --------
    >>> noise = Gaussian(sigma=2.0)
    >>> y, p = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 5.0])
    >>> noise.negative_log_likelihood(y, p).item(), noise.standardised_residual(y, p).tolist()
    (0.5, [1.0, 0.0])
    """

    retargets: ClassVar[bool] = False

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        """The data themselves."""
        _require_same_shape(y, prediction)
        return y

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``sum |y - p|^2 / (2 sigma^2)``."""
        return _sum(self.standardised_residual(y, prediction).abs() ** 2 / 2)


@dataclass(frozen=True)
class Rician:
    """Magnitude of a complex signal in white noise: ``nll = sum (y^2 + p^2) / (2 s^2) - log I0(y p / s^2)``.

    ``log I0`` is convex, hence at least its tangent at p. Putting the tangent in its place leaves a quadratic in
    the prediction with curvature 1 / s^2 and its minimum at the target ``t = y I1(y p / s^2) / I0(y p / s^2)``.

    ``nll`` is even in p, and p = 0 is a stationary point whatever the data: start from the data, not from zeros.
    A negative prediction gets a target <= 0; constrain x to be non-negative where that matters.

    Parameters
    ----------
    sigma : float
        Noise standard deviation of the real and of the imaginary part, intensity units.

    Raises
    ------
    InvsrError
        When `sigma` is not above zero, data are negative or complex, or `y` and the prediction differ in shape.

    References
    ----------
    Gudbjartsson & Patz (1995), Magn. Reson. Med. 34, 910-914. Varadhan & Haldar (2015), "A majorize-minimize
    framework for Rician and non-central chi MR images", IEEE Trans. Med. Imaging 34, 2191-2202.

    Examples
    --------
    >>> Rician(sigma=1.0).target(torch.tensor([1.0, 100.0]), torch.tensor([1.0, 100.0]))  # the floor is pulled down
    tensor([ 0.4464, 99.9950])
    """

    sigma: float
    retargets: ClassVar[bool] = True
    mask: ClassVar[None] = None

    def __post_init__(self) -> None:
        _require_positive(sigma=self.sigma)

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``y I1(z) / I0(z)``, z = y p / sigma^2, from the scaled functions: I0 itself overflows at z = 90."""
        z = self._argument(y, prediction)
        ratio: Tensor = torch.special.i1e(z) / torch.special.i0e(z)
        return y * ratio

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``sum (y - |p|)^2 / (2 sigma^2) - log(exp(-|z|) I0(z))``, z = y p / sigma^2."""
        z = self._argument(y, prediction)
        return _sum(((y - prediction.abs()) / self.sigma) ** 2 / 2 - torch.log(torch.special.i0e(z)))

    def standardised_residual(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``(y^2 - p^2 - 2 s^2) / (2 s sqrt(p^2 + s^2))``: E y^2 = p^2 + 2 s^2, var y^2 = 4 s^2 (p^2 + s^2)."""
        self._argument(y, prediction)
        s = self.sigma
        # The difference of squares as a product, which keeps its digits at high SNR.
        excess = (y - prediction) * (y + prediction) - 2 * s**2
        return excess / (2 * s * torch.sqrt(prediction**2 + s**2))

    def _argument(self, y: Tensor, prediction: Tensor) -> Tensor:
        _require_same_shape(y, prediction)
        if y.is_complex() or prediction.is_complex():
            raise InvsrError("Rician noise is for magnitudes, the data are complex: take the magnitude or use gaussian")
        if y.numel() and (y < 0).any():
            raise InvsrError(
                f"Rician noise is for magnitudes >= 0, the data reach {float(y.min()):.4g}: clip them or use gaussian"
            )
        return (y / self.sigma) * (prediction / self.sigma)


@dataclass(frozen=True)
class Huber(_Additive):
    """Gaussian core, linear tails: ``nll = sum h(|y - p| / sigma)``.

    ``h(r) = r^2 / 2`` for ``r <= delta``, else ``delta r - delta^2 / 2``. h'' <= 1, so the quadratic of unit
    curvature through the same value and slope lies above it: target ``p + clip(y - p, +-delta sigma)``. Complex
    residuals are clipped in magnitude.

    Parameters
    ----------
    sigma : float
        Noise standard deviation of the core, intensity units.
    delta : float
        Where the tails start, in sigmas; 1.345 keeps 95 % efficiency for Gaussian noise.

    Raises
    ------
    InvsrError
        When `sigma` or `delta` is not above zero, or `y` and the prediction differ in shape.

    References
    ----------
    Huber (1964), Ann. Math. Stat. 35, 73-101.

    Examples
    --------
    >>> Huber(sigma=1.0, delta=2.0).target(torch.tensor([1.0, 10.0]), torch.zeros(2))
    tensor([1., 2.])
    """

    delta: float = 1.345

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``p + (y - p) min(1, delta sigma / |y - p|)``."""
        _require_same_shape(y, prediction)
        difference = y - prediction
        limit = self.delta * self.sigma
        return prediction + difference * (limit / difference.abs().clamp(min=limit))

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``sum h(|y - p| / sigma)``."""
        r = self.standardised_residual(y, prediction).abs()
        core = r.clamp(max=self.delta)
        return _sum(core * (r - core / 2))


@dataclass(frozen=True)
class L1(_Additive):
    """Absolute differences, rounded off near zero: ``nll = sum e (sqrt(r^2 + e^2) - e)``, ``r = |y - p| / sigma``.

    Two approximations. The pseudo-Huber function stands in for ``|r|``, which has no quadratic majoriser at 0: it is
    quadratic for ``r << e`` and ``e r - e^2`` for ``r >> e``. And it is scaled to unit curvature at zero, so its
    tails have slope e, not the sqrt(2) of Laplace noise: `lam` has to follow e. The target
    ``p + e (y - p) / sqrt(r^2 + e^2)`` is never further than ``e sigma`` from p: a smaller e is closer to
    L1 and takes more iterations.

    Parameters
    ----------
    sigma : float
        Noise standard deviation, intensity units.
    eps : float
        Where rounding off ends, in sigmas (e above).

    Raises
    ------
    InvsrError
        When `sigma` or `eps` is not above zero, or `y` and the prediction differ in shape.

    References
    ----------
    Huber (1964), Ann. Math. Stat. 35, 73-101. Charbonnier, Blanc-Feraud, Aubert & Barlaud (1997), IEEE Trans.
    Image Process. 6, 298-311.

    Examples
    --------
    >>> L1(sigma=1.0, eps=0.1).target(torch.tensor([0.0, 10.0]), torch.zeros(2))
    tensor([0.0000, 0.1000])
    """

    eps: float = 0.1

    def target(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``p + e (y - p) / sqrt(r^2 + e^2)``."""
        r = self.standardised_residual(y, prediction).abs()
        return prediction + (y - prediction) * (self.eps / torch.sqrt(r**2 + self.eps**2))

    def negative_log_likelihood(self, y: Tensor, prediction: Tensor) -> Tensor:
        """``sum e (sqrt(r^2 + e^2) - e)``."""
        r = self.standardised_residual(y, prediction).abs()
        # The difference of roots as a quotient, which keeps its digits for r << e.
        return _sum(self.eps * r**2 / (torch.sqrt(r**2 + self.eps**2) + self.eps))


_BY_NAME: dict[str, Callable[[float], Likelihood]] = {"gaussian": Gaussian, "rician": Rician, "huber": Huber, "l1": L1}


def likelihood(name: str, sigma: float) -> Likelihood:
    """The likelihood of that name, its other parameters at their defaults.

    Parameters
    ----------
    name : {"gaussian", "rician", "huber", "l1"}
        In any case.
    sigma : float
        Noise standard deviation, intensity units.

    Raises
    ------
    InvsrError
        When no likelihood has that name, or `sigma` is not above zero.

    Examples
    --------
    >>> likelihood("huber", 0.5)
    Huber(sigma=0.5, delta=1.345)
    """
    if name.lower() not in _BY_NAME:
        raise InvsrError(f"no likelihood is called '{name}': choose one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name.lower()](sigma)


def _require_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < float("inf"):
            raise InvsrError(f"{name} is {value}: it must be finite and above zero")


def _require_same_shape(y: Tensor, prediction: Tensor) -> None:
    if y.shape != prediction.shape:
        raise InvsrError(
            f"data of shape {tuple(y.shape)} against a prediction of shape {tuple(prediction.shape)}: "
            "predict with the operator of this scan"
        )


def _sum(terms: Tensor) -> Tensor:
    return torch.sum(terms, dtype=torch.float64)
