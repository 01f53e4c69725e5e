"""What a prior is to remove: white noise, and what thick slices and truncated k-space leave behind.

The iterates of a solver are not the truth plus white noise: what the scan did not measure is missing along the slice
axis. A prior that has only seen white noise takes that for anatomy. So some patches are measured, by a random
acquisition, and brought back by a regularised inverse, as a solver's first guess is (a restoration network as a prior:
Hu, Delbracio, Milanfar, Kamilov 2024, ICLR).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.training.synthesis import _apodised


@dataclass(frozen=True)
class Degradation:
    """Ranges of the random errors; the defaults are those of the shipped weights.

    Attributes
    ----------
    sigma : (float, float)
        White noise, drawn uniformly one time in two and else log-uniformly: the high levels take the most learning.
    measured : float
        Share of the patches that a random acquisition has measured.
    thickness : (float, float)
        FWHM of the slice profile, voxels, log-uniform.
    gap : float
        Largest gap between slices, as a share of the thickness.
    slice_noise : (float, float)
        Noise of the slices, log-uniform.
    regularisation : (float, float)
        Weight of the squared slope in the inverse, log-uniform.
    truncated : float
        Share of the measured patches whose k-space is cut along another axis too.
    noisy : float
        Share of the measured patches with white noise on top.
    axes : tuple of int
        Across which the slices may lie.
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
        """A patch with errors, and their root mean square: (1, i, j, k) to the same and a number."""
        if self.measured <= 0 or float(torch.rand((), generator=generator)) >= self.measured:
            sigma = self._level(generator)
            return clean + sigma * torch.randn(clean.shape, generator=generator), torch.tensor(sigma)
        axis, other = torch.randperm(3, generator=generator)[:2].tolist()
        if axis not in self.axes:
            axis, other = self.axes[other % len(self.axes)], axis
        image = clean
        if float(torch.rand((), generator=generator)) < self.truncated:
            keep = 0.5 + 0.45 * float(torch.rand((), generator=generator))
            window = float(torch.rand((), generator=generator))
            image = _apodised(image[None], other, keep, window)[0]
        image = self._sliced(image.movedim(axis + 1, -1), generator).movedim(-1, axis + 1)
        if float(torch.rand((), generator=generator)) < self.noisy:
            ends = (min(self.sigma[0], 0.1), min(self.sigma[1], 0.1))
            image = image + _log_uniform(ends, generator) * torch.randn(clean.shape, generator=generator)
        level = (image - clean).square().mean().sqrt()
        # A solver knows its error only roughly.
        told = level * math.exp(0.25 * float(torch.randn((), generator=generator)))
        return image, told.clamp(min=self.sigma[0])

    def _level(self, generator: torch.Generator) -> float:
        if float(torch.rand((), generator=generator)) < 0.5:
            return _log_uniform(self.sigma, generator)
        low, high = self.sigma
        return low + (high - low) * float(torch.rand((), generator=generator))

    def _sliced(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Measured in slices across the last axis, and brought back."""
        n = x.shape[-1]
        thickness = _log_uniform(self.thickness, generator)
        gap = max(0.0, 2 * float(torch.rand((), generator=generator)) - 1) * self.gap
        spacing = thickness * (1 + gap)
        first = spacing * (float(torch.rand((), generator=generator)) - 0.5)
        centres = torch.arange(first, n - 1 + spacing / 2, spacing)
        offset = (torch.arange(n) - centres[:, None]) / thickness
        if float(torch.rand((), generator=generator)) < 0.75:
            weights = torch.exp(-4 * math.log(2) * offset**2)
        else:  # a boxcar, its edges shared out over a voxel
            weights = (thickness * (0.5 - offset.abs()) + 0.5).clamp(0, 1)
        weights = weights[weights.sum(1) > 0.5]
        weights = weights / weights.sum(1, keepdim=True)
        slope = torch.eye(n)[1:] - torch.eye(n)[:-1]
        rho = _log_uniform(self.regularisation, generator)
        back = torch.linalg.solve(weights.T @ weights + rho * slope.T @ slope + 1e-5 * torch.eye(n), weights.T)
        y = x @ weights.T
        y = y + _log_uniform(self.slice_noise, generator) * torch.randn(y.shape, generator=generator)
        out: Tensor = y @ back.T
        return out


def _log_uniform(ends: tuple[float, float], generator: torch.Generator) -> float:
    low, high = (math.log(end) for end in ends)
    return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
