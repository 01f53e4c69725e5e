"""The smooth phase of complex images: estimated, taken off, put back."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from invsr.numerics.axes import gaussian_means, multiply

# Full width at half maximum of the means that the phase is taken from, in voxels.
PHASE_WIDTH = 4.0
# Where these means fall below this share of their maximum, the phase goes over to that of the whole image.
FAINT = 0.05
# Side of the cube whose mean square tells signal from noise, in voxels.
POWER_WIDTH = 5


def smooth_phase(v: Tensor) -> Tensor:
    """``exp(i phi)`` with phi the phase of Gaussian means of a complex image, the same shape.

    Means of complex numbers weigh each voxel by its magnitude, so that bright tissue decides. 1 for real images that
    are positive on the whole.

    Parameters
    ----------
    v : Tensor, shape (batch, channel, i, j, k), complex

    References
    ----------
    Noll, Nishimura, Macovski (1991), IEEE Trans. Med. Imaging 10, 154-163 (homodyne detection).
    """
    means = v
    for n, side in enumerate(v.shape[2:]):
        means = multiply(gaussian_means(side, PHASE_WIDTH).to(v), means, n)
    size = means.abs()
    whole = (means * size).sum((2, 3, 4), keepdim=True)
    whole = whole / whole.abs().clamp(min=1e-30)
    means = means + FAINT * size.amax((2, 3, 4), keepdim=True) * whole
    size = means.abs()
    return torch.where(size > 0, means / size.clamp(min=1e-30), torch.ones_like(means))


def wiener_gain(v: Tensor, sigma: float | Tensor) -> Tensor:
    """``max(0, 1 - sigma^2 / P)`` with P the mean square around each voxel: the Wiener filter of noise around 0.

    Parameters
    ----------
    v : Tensor, shape (batch, channel, i, j, k), real
    sigma : float
        Standard deviation of its noise.

    References
    ----------
    Lee (1980), IEEE Trans. Pattern Anal. Mach. Intell. 2, 165-168.
    """
    width = [POWER_WIDTH if side >= POWER_WIDTH else 1 for side in v.shape[2:]]
    power = functional.avg_pool3d(v.square(), width, 1, [side // 2 for side in width], count_include_pad=False)
    return (1 - sigma**2 / power.clamp(min=1e-30)).clamp(min=0)
