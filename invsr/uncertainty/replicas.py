"""Pseudo-replicas: the noise that is left in a reconstruction, seen where data get new noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from invsr.numerics.linear import white_noise
from invsr.operators.base import Data, LinearOperator
from invsr.solvers.residuals import as_tuple, like_data
from invsr.uncertainty.deviation import along, mean_variance, require_samples, require_sigma


def noise_replicas(
    run: Callable[[Data], Tensor],
    operator: LinearOperator,
    x: Tensor,
    y: Data,
    sigma: float,
    *,
    n_samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """Standard deviation, per voxel, that noise alone makes in a method's result.

    What the result predicts gets new noise n times, and is reconstructed again:

    .. code-block:: text

        x_b = run(A x + sigma n_b),    std^2 = sum_b |x_b - mean x_b|^2 / (n - 1)

    For a linear method this is the noise of the result, with what undersampling adds to it (the g-factor) and what the
    prior takes away, the same as where noise is added to the data themselves (Robson et al. 2008). For others it is
    the noise about this very result; it is not added to the data, because automatic weights would see it on top of the
    noise that is there. Errors that noise does not make are not in it: detail that was not measured, bias of the prior.
    In complex volumes the part along the phase of x counts, which is the noise of the magnitude where there is signal.
    Variances are averaged over 3 x 3 x 3 voxels.

    Parameters
    ----------
    run : callable
        ``run(y)``: the method's volume for data like y.
    operator : LinearOperator
    x : Tensor, shape (1, channel, i, j, k)
        The method's volume for the data.
    y : Tensor (or tuple of them for a stack)
        The data; only their shapes matter.
    sigma : float
        Standard deviation of their noise, of complex data in each part.
    n_samples : int
        Number of replicas, at least 2.
    seed : int

    Returns
    -------
    Tensor, shape of x, real

    Raises
    ------
    InvsrError
        When the number of samples is out of range, or sigma is not finite and above zero.

    References
    ----------
    Robson, Grant, Madhuranthakam, Lattanzi, Sodickson, McKenzie (2008), Magn. Reson. Med. 60, 895-907.
    """
    require_samples(n_samples)
    require_sigma(sigma)
    generator = torch.Generator().manual_seed(seed)
    clean = as_tuple(operator(x))
    mean, squares = torch.zeros_like(x.real), torch.zeros_like(x.real)
    for n in range(n_samples):
        noisy = tuple(one + sigma * white_noise(one, generator) for one in clean)
        found = run(like_data(noisy, y))
        part = along(found, x)
        apart = part - mean
        mean += apart / (n + 1)
        squares += apart * (part - mean)  # Welford (1962), Technometrics 4, 419-420
    return mean_variance(squares / (n_samples - 1)).sqrt()
