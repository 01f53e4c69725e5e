"""The contract of every prior: a proximal step, and a cost where one exists."""

from __future__ import annotations

from torch import Tensor, nn

IDENTITY, GRADIENT = "identity", "gradient"


class Prior(nn.Module):
    """A preference R for some volumes over others, used through its proximal step.

    Attributes
    ----------
    analysis : {"identity", "gradient"}
        What `prox` acts on: the volume, shape (batch, channel, i, j, k), or its finite differences in
        intensity per mm, shape (3, batch, channel, i, j, k). A solver splits there.
    quadratic : bool
        Whether R is ``1/2 ||K x||^2`` with K the analysis; solvers then need no splitting.
    is_denoiser : bool
        Whether `prox` is a denoiser ``D(v, sigma)``, for which sigma is a level of noise and not just a ratio of
        weights: solvers then lower sigma along a schedule. By default True for a prior that does not define `cost`.
    deterministic : bool
        Whether `prox` gives the same answer whenever it is asked.

    Examples
    --------
    A denoiser defines `prox` alone; a prior with a formula for R defines `cost`, too.

    >>> class L1(Prior):
    ...     def prox(self, v, sigma):
    ...         return v - v.clamp(-(sigma**2), sigma**2)
    ...
    ...     def cost(self, z, sigma=0.0):
    ...         return z.abs().sum()
    >>> L1().is_denoiser
    False
    """

    analysis: str = IDENTITY
    quadratic: bool = False

    @property
    def is_denoiser(self) -> bool:
        return type(self).cost is Prior.cost

    @property
    def deterministic(self) -> bool:
        return True

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """``argmin_z 1/2 ||z - v||^2 + sigma^2 R(z)``, with ``sigma^2 = lam / rho``; or a denoiser at noise sigma."""
        raise TypeError(f"{type(self).__name__} does not define prox(v, sigma)")

    def residual(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """``v - prox(v, sigma)``: what the prox takes away, for priors that know it without the prox."""
        return v - self.prox(v, sigma)

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor | None:
        """R at the analysis coefficients z, a scalar; None for priors that have no explicit cost.

        For priors that change with the noise level, the cost that belongs to `sigma`.
        """
        return None

    def scaled(self, scale: float) -> Prior:
        """The prior for data whose bright tissue is at `scale`.

        Denoisers know bright tissue at 1: they get ``v / scale`` and ``sigma / scale``. A prior with a formula means
        the intensities as they are, and is returned itself.
        """
        return _Scaled(self, scale) if self.is_denoiser and scale != 1 else self

    def describe(self) -> str:
        """What messages call the prior."""
        return type(self).__name__


class _Scaled(Prior):
    """A denoiser ``s D(v / s, sigma / s)`` for intensities in another unit s."""

    is_denoiser = True

    def __init__(self, prior: Prior, scale: float) -> None:
        super().__init__()
        self.prior, self.scale = prior, scale
        self.analysis = prior.analysis

    @property
    def deterministic(self) -> bool:
        return self.prior.deterministic

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        return self.scale * self.prior.prox(v / self.scale, sigma / self.scale)

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor | None:
        return self.prior.cost(z / self.scale, sigma / self.scale)

    def describe(self) -> str:
        return self.prior.describe()
