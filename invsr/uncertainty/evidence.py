"""What of a reconstruction the data determine, and what the prior supplied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.axes import gaussian_means, multiply
from invsr.numerics.differences import gradient
from invsr.numerics.linear import inner
from invsr.operators.base import LinearOperator
from invsr.operators.normal_equations import GRADIENT
from invsr.uncertainty.deviation import require_sigma

# Voxels further from 0 than this share of the peak are anatomy, whose slopes are what noise is compared with.
BRIGHT = 0.1


@dataclass(frozen=True)
class Evidence:
    """A volume split in two.

    Attributes
    ----------
    data, prior : Tensor, shape (1, 1, i, j, k)
        What the data determine and what the prior supplied; they add up to the volume.
    share : Tensor, shape (1, 1, i, j, k)
        The prior's share, 0 to 1, of the detail around each voxel.
    energy : float
        Energy of the prior's part, as a share of the volume's.
    detail : float
        The same of all detail.
    """

    data: Tensor
    prior: Tensor
    share: Tensor
    energy: float
    detail: float


def split_evidence(
    operator: LinearOperator, x: Tensor, sigma: float, scale: float, seen: Tensor | None = None
) -> Evidence:
    """Split a reconstruction along the generalised singular vectors of its operator and the gradient.

    The data's part is the smoothest volume that the result's own data admit, ``(A*A + rho grad*grad)^-1 A*A x``: with
    ``A = U S X^-1`` and ``grad = W L X^-1`` every coefficient of the volume keeps the share ``s^2 / (s^2 + rho l^2)``.
    With ``rho = sigma^2 / g^2``, g the root mean square slope of anatomy, that is what a Wiener filter would take from
    the data. What A cannot see (s = 0) is the prior's alone, a constant (l = 0) the data's. Plain singular vectors
    would call it the prior's doing that a flat region shows no stripes. Computed from per-axis eigenvectors where
    one axis is degraded; by conjugate gradients elsewhere.

    Parameters
    ----------
    operator : LinearOperator
    x : Tensor, shape (1, 1, *operator.domain.shape)
        With bright tissue near 1.
    sigma : float
        Standard deviation of the noise of the data.
    scale : float, mm
        Detail is what differs from a Gaussian mean of this full width at half maximum (reports take two slice
        spacings); the map of shares has the same resolution.
    seen : Tensor, shape of x, optional
        0 where x was set to 0 because no data speak for it, else 1.

    Raises
    ------
    InvsrError
        When x is complex or 0 everywhere, or sigma is not finite and above zero.

    References
    ----------
    Van Loan (1976), SIAM J. Numer. Anal. 13, 76-83. Hansen (1998), Rank-Deficient and Discrete Ill-Posed Problems.
    """
    require_sigma(sigma)
    if x.is_complex() or not bool(x.any()):
        raise InvsrError(
            f"x is {'complex' if x.is_complex() else '0 everywhere'}: what data determine is told of images"
        )
    spacing = operator.domain.spacing.tolist()
    with torch.no_grad():
        slopes = gradient(x, spacing, operator.boundary).square().sum(0)
        slope = float(slopes[x.abs() > BRIGHT * x.abs().max()].mean())
        data = operator.solve(operator.gram(x), sigma**2 / max(slope, sigma**2), GRADIENT, rtol=1e-6).x
        data = data if seen is None else data * seen
        prior = x - data
        fine = data - blurred(data, spacing, scale)
        power = [blurred(one.square(), spacing, scale) for one in (fine, prior)]
        # Where there is no detail but noise's there is nothing to tell apart.
        share = power[1] / (power[0] + power[1] + sigma**2)
        total = float(inner(fine, fine) + inner(prior, prior))
    return Evidence(
        data,
        prior,
        share,
        float(inner(prior, prior) / inner(x, x)),
        float(inner(prior, prior)) / total if total else 0.0,
    )


def blurred(x: Tensor, spacing: list[float], fwhm: float) -> Tensor:
    """Gaussian means of a volume, normalised at its faces."""
    for n, step in enumerate(spacing):
        x = multiply(gaussian_means(x.shape[2 + n], fwhm / step).to(x), x, n)
    return x
