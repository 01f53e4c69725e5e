"""Total variation, isotropic over the three axes and weighted by the voxel spacing."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.axes import SLAB
from invsr.priors.base import GRADIENT, Prior

# Largest slope for Huber's function: float32 holds its square.
STEEPEST = 1e15


class TV(Prior):
    """``R(x) = sum_v h(|grad x|_v)``: h(t) = t, or Huber's function, which rounds the corner at 0.

    The gradient is in intensity per mm, so that an oblique edge in anisotropic voxels costs what it costs
    in isotropic ones. With ``huber > 0``, ``h(t) = t^2 / (2 huber)`` for ``t <= huber`` and
    ``t - huber / 2`` beyond: slopes below `huber` are smoothed instead of flattened to steps.

    Parameters
    ----------
    huber : float
        In scaled intensity per mm; 0 for plain total variation.

    Raises
    ------
    InvsrError
        When huber is negative, or so large that its square is infinite.

    References
    ----------
    Rudin, Osher, Fatemi (1992), Physica D 60, 259-268.

    Examples
    --------
    >>> import torch
    >>> slope = torch.tensor([3.0, 0.0, 4.0]).reshape(3, 1, 1, 1, 1, 1)   # of length 5, along i and k
    >>> TV().prox(slope, 1.0).flatten()
    tensor([2.4000, 0.0000, 3.2000])
    """

    analysis = GRADIENT

    def __init__(self, huber: float = 0.0) -> None:
        super().__init__()
        if not 0 <= huber <= STEEPEST:
            raise InvsrError(f"huber is {huber}: use 0 for plain total variation, or a slope of up to {STEEPEST:g}")
        self.huber = huber

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        return v - self.residual(v, sigma)

    def residual(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._residual(v, sigma)
        out = torch.empty_like(v)  # a slab at a time: the gradients of a large volume do not fit into memory often
        width = max(1, SLAB * v.shape[-3] // max(1, v.numel()))
        for part, into in zip(torch.split(v, width, -3), torch.split(out, width, -3), strict=True):
            into.copy_(self._residual(part, sigma))
        return out

    def _residual(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        # The prox shortens each vector by sigma^2; below the threshold Huber shrinks in proportion instead. The clamp
        # comes before the root, whose derivative at zero is infinite.
        threshold = sigma**2
        length = v.abs().square().sum(0).clamp(min=(threshold + self.huber) ** 2).sqrt()
        return v * (threshold / length)

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        length = z.abs().square().sum(0).sqrt()
        if not self.huber:
            return length.sum()
        return (length.clamp(max=self.huber) ** 2 / (2 * self.huber) + (length - self.huber).clamp(min=0)).sum()
