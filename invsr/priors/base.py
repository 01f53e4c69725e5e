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
    takes_noise_level : bool
        Whether `prox` is a denoiser, for which sigma is a level of noise and not just a ratio of weights: solvers
        then walk sigma along a schedule.
    """

    analysis: str = IDENTITY
    quadratic: bool = False
    takes_noise_level: bool = False

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """``argmin_z 1/2 ||z - v||^2 + sigma^2 R(z)``, with ``sigma^2 = lam / rho`` in scaled intensities."""
        raise TypeError(f"{type(self).__name__} does not define prox(v, sigma)")

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor | None:
        """R at the analysis coefficients z, a scalar; None for priors that have no explicit cost.

        For priors that change with the noise level, the cost that belongs to `sigma`.
        """
        return None
