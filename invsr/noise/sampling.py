"""Noise of MR images, drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invsr.errors import InvsrError

MODELS = ("gaussian", "rician", "complex")


def add_noise(x: Tensor, sigma: float, model: str = "gaussian", generator: torch.Generator | None = None) -> Tensor:
    """Add noise to an image.

    ``gaussian``: ``x + sigma n``; ``complex``: ``x + sigma (n + i m)``; ``rician``: ``|x + sigma (n + i m)|``,
    with ``n`` and ``m`` independent, white and standard normal. The result is differentiable in `x`.

    Parameters
    ----------
    x : Tensor
        Image of any shape. Real for ``gaussian``; integers become the default float type.
    sigma : float
        Standard deviation in units of intensity, of each of the two parts for ``rician`` and ``complex``.
    model : {"gaussian", "rician", "complex"}
    generator : torch.Generator, optional
        Source of randomness on the device of `x`. Default: torch's own.

    Returns
    -------
    Tensor
        Same shape as `x`: real for ``gaussian`` and ``rician``, complex for ``complex``.

    Raises
    ------
    InvsrError
        When the model is unknown, sigma is negative or not finite, or a complex image meets ``gaussian``.

    References
    ----------
    Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", Magnetic Resonance in Medicine, 1995.

    Examples
    --------
    >>> import torch
    >>> noisy = add_noise(torch.zeros(64, 64), 0.5, "rician", torch.Generator().manual_seed(0))
    >>> bool(noisy.min() >= 0), round(float(noisy.square().mean()), 1)      # E|y|^2 = 2 sigma^2
    (True, 0.5)
    """
    if model not in MODELS:
        raise InvsrError(f"noise model {model!r} is none of {', '.join(MODELS)}: choose one of them")
    if not (math.isfinite(sigma) and sigma >= 0):
        raise InvsrError(f"noise sigma is {sigma}, but a standard deviation is finite and at least 0: change it")
    if x.is_complex() and model == "gaussian":
        raise InvsrError(f"gaussian noise is for real images, this one is {x.dtype}: use the model 'complex'")
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    kind = torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32
    noise = sigma * torch.randn(x.shape, generator=generator, dtype=kind, device=x.device)
    if model == "gaussian":
        return x + noise.to(x.dtype)
    imaginary = sigma * torch.randn(x.shape, generator=generator, dtype=kind, device=x.device)
    y = x + torch.complex(noise, imaginary)
    return y if model == "complex" else y.abs().to(x.real.dtype)
