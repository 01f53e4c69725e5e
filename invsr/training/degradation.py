"""Errors that a denoiser learns to remove: white noise, and those of thick slices and truncated k-space.

The iterates of a solver are not the truth plus white noise: detail that the scan did not measure is missing along the
slice axis. A denoiser trained on white noise alone takes that blur for anatomy. Some patches are therefore measured by
a random acquisition and reconstructed by a regularised inverse, like the first guess of a solver (a restoration
network as a prior: Hu, Delbracio, Milanfar, Kamilov 2024, ICLR).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.training.fields import apodised
from invsr.training.random_draws import log_uniform, mixed_uniform, uniform, zero_or_uniform

# Most white noise that is added to a measured patch, share of the peak.
MOST_ADDED_NOISE = 0.1
# A solver knows the error of its iterate roughly: standard deviation of the logarithm.
MISJUDGED = 0.25


@dataclass(frozen=True)
class Degradation:
    """Ranges of the random errors; the shipped weights were trained with the defaults.

    Attributes
    ----------
    sigma : (float, float)
        Range of the white noise; half of the draws are uniform, half log-uniform.
    measured : float
        Share of the patches that a random acquisition measures.
    thickness : (float, float)
        FWHM of the slice profile, voxels, log-uniform.
    gap : float
        Largest gap between slices, as a share of the thickness.
    slice_noise : (float, float)
        Range of the noise of the slices, log-uniform.
    regularisation : (float, float)
        Range of the weight of the squared gradient in the inverse, log-uniform.
    truncated : float
        Share of the measured patches whose k-space is also truncated along another axis.
    noisy : float
        Share of the measured patches to which white noise is added.
    axes : tuple of int
        Axes across which the slices may lie.
    """

    sigma: tuple[float, float] = (0.002, 0.3)
    measured: float = 0.5
    thickness: tuple[float, float] = (2.0, 8.0)
    gap: float = 0.3
    slice_noise: tuple[float, float] = (0.002, 0.04)
    regularisation: tuple[float, float] = (1e-4, 0.1)
    truncated: float = 0.25
    noisy: float = 0.5
    axes: tuple[int, ...] = (0, 1, 2)

    def __call__(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A patch with errors, shape (1, i, j, k) as the clean one, and an estimate of their root mean square."""
        if self.measured <= 0 or uniform(generator) >= self.measured:
            sigma = mixed_uniform(generator, *self.sigma)
            return clean + sigma * torch.randn(clean.shape, generator=generator), torch.tensor(sigma)
        axis, other = torch.randperm(3, generator=generator)[:2].tolist()
        if axis not in self.axes:
            axis, other = self.axes[other % len(self.axes)], axis
        image = clean
        if uniform(generator) < self.truncated:
            keep = uniform(generator, 0.5, 0.95)
            image = apodised(image[None], other, keep, uniform(generator))[0]
        image = self._sliced(image.movedim(axis + 1, -1), generator).movedim(-1, axis + 1)
        if uniform(generator) < self.noisy:
            sigma = log_uniform(generator, *(min(end, MOST_ADDED_NOISE) for end in self.sigma))
            image = image + sigma * torch.randn(clean.shape, generator=generator)
        level = (image - clean).square().mean().sqrt()
        assumed_sigma = level * math.exp(MISJUDGED * float(torch.randn((), generator=generator)))
        return image, assumed_sigma.clamp(min=self.sigma[0])

    def _sliced(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Slices across the last axis, with noise, and the reconstruction from them."""
        n = x.shape[-1]
        thickness = log_uniform(generator, *self.thickness)
        spacing = thickness * (1 + zero_or_uniform(generator, self.gap))
        first = spacing * (uniform(generator) - 0.5)
        centres = torch.arange(first, n - 1 + spacing / 2, spacing)
        offset = (torch.arange(n) - centres[:, None]) / thickness
        if uniform(generator) < 0.75:
            weights = torch.exp(-4 * math.log(2) * offset**2)
        else:  # a boxcar, its edges linear over one voxel
            weights = (thickness * (0.5 - offset.abs()) + 0.5).clamp(0, 1)
        weights = weights[weights.sum(1) > 0.5]
        weights = weights / weights.sum(1, keepdim=True)
        slope = torch.eye(n)[1:] - torch.eye(n)[:-1]
        rho = log_uniform(generator, *self.regularisation)
        normal = weights.T @ weights + rho * slope.T @ slope + 1e-5 * torch.eye(n)
        inverse = torch.linalg.solve(normal, weights.T)
        y = x @ weights.T
        y = y + log_uniform(generator, *self.slice_noise) * torch.randn(y.shape, generator=generator)
        out: Tensor = y @ inverse.T
        return out
