"""A standard deviation per voxel from the few errors that a few reconstructions show."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from invsr.errors import InvsrError

# Each sample takes a reconstruction, and memory for a volume.
MOST_SAMPLES = 1000


def require_samples(count: int) -> None:
    """Raise unless a standard deviation can be had from so many samples.

    Raises
    ------
    InvsrError
        When there are fewer than two, or more than can be waited for.
    """
    if not 2 <= count <= MOST_SAMPLES:
        raise InvsrError(
            f"n_samples is {count}: a standard deviation takes 2 to {MOST_SAMPLES} (command line: --samples)"
        )


def require_sigma(sigma: float) -> None:
    """Raise unless this can be the standard deviation of noise.

    Raises
    ------
    InvsrError
    """
    if not 0 < sigma < math.inf:
        raise InvsrError(f"sigma is {sigma}: give the standard deviation of the noise, finite and above zero")


def along(errors: Tensor, x: Tensor) -> Tensor:
    """Errors of the magnitude of x: of complex images their parts along its phase, others as they are.

    Across the phase, an error that is small beside x changes the phase alone.
    """
    return (errors * torch.exp(-1j * x.angle())).real if x.is_complex() else errors


def mean_variance(squares: Tensor) -> Tensor:
    """Means over 3 x 3 x 3 voxels, fewer at the border: neighbours are alike, and draws are few."""
    width = [3 if side >= 3 else 1 for side in squares.shape[2:]]
    found: Tensor = functional.avg_pool3d(squares, width, 1, [side // 2 for side in width], count_include_pad=False)
    return found


def interval_deviation(squares: Tensor, seen: Tensor, degrees: int) -> Tensor:
    """The standard deviation for intervals about an estimate from n draws.

    Variances are averaged over neighbours (`mean_variance`). Two corrections follow: the estimate is uncertain itself
    (``sqrt(1 + 1/n)``), and so is the deviation (t-distribution: 1.96 of the result make a 95 % interval).

    Parameters
    ----------
    squares : Tensor, shape (1, 1, i, j, k)
        Sums of squared errors.
    seen : Tensor, shape (1, 1, i, j, k)
        How many errors each voxel's sum is of. Where there is none, the volume's mean variance is taken.
    degrees : int
        Degrees of freedom: the number of draws, less one if errors are from their mean.
    """
    from scipy.stats import t

    draws = float(seen.max())
    # Errors from a mean of n are too small by (n - 1) / n.
    total, count = mean_variance(squares), mean_variance(seen) * (degrees / draws)
    overall = float(squares.sum() / (seen.sum() * (degrees / draws)).clamp(min=1e-30))
    variance = (total / count.clamp(min=1e-30)).where(count > 0, overall)
    return math.sqrt(1 + 1 / draws) * float(t.ppf(0.975, degrees)) / 1.96 * variance.sqrt()
