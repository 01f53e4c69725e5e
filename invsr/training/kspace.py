"""Random acquisitions of k-space: coils, smooth phase, patterns of samples, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invsr.grid import Grid
from invsr.operators.kspace import KSpaceMask
from invsr.operators.kspace_weights import elliptic, partial_fourier, poisson_disc, random_mask
from invsr.testing.kspace import random_phase, sensitivities
from invsr.training.random_draws import integer, log_uniform, uniform

# Patterns, and the share of the acquisitions that each has: samples scattered over two phase-encoding axes, lines left
# out along one, partial Fourier, k-space that ends early.
SCATTERED, LINES, PARTIAL, TRUNCATED = "scattered", "lines", "partial", "truncated"
SHARES = {SCATTERED: 0.45, LINES: 0.25, PARTIAL: 0.1, TRUNCATED: 0.2}
# Share of the acquisitions with one coil; the others have up to `MOST_COILS`.
ONE_COIL, MOST_COILS = 0.2, 8
# Largest acceleration of scattered samples and of lines, with one coil and with several.
FASTEST = {SCATTERED: (5.0, 12.0), LINES: (2.5, 5.0)}


@dataclass(frozen=True)
class RandomKSpace:
    """One acquisition of k-space of patches, ``y_c = m (F S_c exp(i phase) x + sigma (n + i n'))``.

    Attributes
    ----------
    shape : tuple of int
        Shape of the patches.
    pattern : {"scattered", "lines", "partial", "truncated"}
    mask : Tensor, shape (i, j, k)
        Ones and zeros.
    axes : tuple of int
        The Fourier axes: those along which samples are missing, since readouts that are complete are transformed.
    maps : Tensor or None, shape (coils, i, j, k), complex
    phase : Tensor, shape (i, j, k)
        Phase of the image, rad.
    sigma, assumed_sigma : float
        Standard deviation of the noise in each part of a sample, and the estimate of it that the network is given.
    """

    shape: tuple[int, ...]
    pattern: str
    mask: Tensor
    axes: tuple[int, ...]
    maps: Tensor | None
    phase: Tensor
    sigma: float
    assumed_sigma: float

    def operator(self) -> KSpaceMask:
        """The operator from complex patches to their k-space."""
        return KSpaceMask(Grid(self.shape, np.eye(4)), self.mask, self.maps, axes=self.axes)

    def measured(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Noisy k-space of patches, shape (batch, 1, *shape), which the acquisition gives their phase."""
        y = self.operator()(clean * torch.polar(torch.ones(()), self.phase))
        drawn = torch.randn((2, *y.shape), generator=generator)
        noisy: Tensor = y + self.sigma * self.mask * torch.complex(drawn[0], drawn[1])
        return noisy


def draw_kspace(shape: Sequence[int], sigma: float, assumed_sigma: float, generator: torch.Generator) -> RandomKSpace:
    """A random acquisition of patches of a shape; phase is encoded along its longer axes.

    Parameters
    ----------
    shape : three of int
    sigma, assumed_sigma : float
        As of `RandomKSpace`.
    generator : torch.Generator
    """
    n_coils = 1 if uniform(generator) < ONE_COIL else 2 + integer(generator, MOST_COILS - 1)
    drawn, pattern = uniform(generator), TRUNCATED
    for name, share in SHARES.items():
        if drawn < share:
            pattern = name
            break
        drawn -= share
    longest = sorted(range(3), key=lambda n: shape[n])[1:]
    line = longest[integer(generator, 2)]
    mask, axes = _pattern(pattern, shape, longest, line, n_coils > 1, generator)
    turns = 2 * torch.pi * torch.rand(n_coils, generator=generator)
    maps = sensitivities(shape, n_coils, turns) if n_coils > 1 else None
    # Patches of a volume show a part of the turns of its phase.
    phase = uniform(generator) * random_phase(shape, generator)
    return RandomKSpace(tuple(shape), pattern, mask, axes, maps, phase, sigma, assumed_sigma)


def _pattern(
    pattern: str, shape: Sequence[int], longest: list[int], line: int, several: bool, generator: torch.Generator
) -> tuple[Tensor, tuple[int, ...]]:
    """Which samples are taken, and the axes along which some are missing."""
    if pattern == SCATTERED:
        mask = _scattered(shape, longest, log_uniform(generator, 2.0, FASTEST[pattern][several]), generator)
        return mask, tuple(sorted(longest))
    if pattern == LINES:
        middle = uniform(generator, 0.12, 0.3)
        acceleration = min(log_uniform(generator, 1.5, FASTEST[pattern][several]), 0.95 / middle)
        if uniform(generator) < 0.5:
            return random_mask(shape, acceleration, middle, generator, axes=(line,)).float(), (line,)
        return _regular(shape, line, max(2, round(acceleration)), middle, generator), (line,)
    if pattern == PARTIAL:
        mask = partial_fourier(shape, uniform(generator, 0.6, 0.9), line)
        if uniform(generator) < 0.3:
            other = longest[longest[0] == line]
            mask = mask * partial_fourier(shape, uniform(generator, 0.7, 0.9), other)
            return mask.float(), tuple(sorted(longest))
        return (mask.flip(line).roll(1, line) if uniform(generator) < 0.5 else mask).float(), (line,)
    share = uniform(generator, 0.4, 0.85)
    mask = torch.zeros(tuple(shape))
    kept = [max(2, round(share * n)) for n in shape]
    mask[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for m, n in zip(kept, shape, strict=True))] = 1
    radii = [m / n for m, n in zip(kept, shape, strict=True)]
    return mask * _corners(shape, radii, 0.25, generator), (0, 1, 2)


def _scattered(shape: Sequence[int], axes: Sequence[int], acceleration: float, generator: torch.Generator) -> Tensor:
    """A full middle and samples around it: Poisson discs, which keep a distance, or independent ones."""
    middle = [4 + integer(generator, max(1, shape[n] // 4)) for n in sorted(axes)]
    room = 0.7 * shape[axes[0]] * shape[axes[1]] / (middle[0] * middle[1])
    acceleration = max(1.5, min(acceleration, room))
    if uniform(generator) < 0.6:
        mask = poisson_disc(shape, acceleration, middle, generator, axes=axes)
    else:
        mask = random_mask(shape, acceleration, uniform(generator, 0.05, 0.2), generator, axes=axes)
    plane = [n if axis in axes else 1 for axis, n in enumerate(shape)]
    return mask.float() * _corners(plane, (1.0, 1.0, 1.0), 0.3, generator)


def _regular(shape: Sequence[int], axis: int, step: int, middle: float, generator: torch.Generator) -> Tensor:
    """Every so many lines, as in parallel imaging, and those in the middle."""
    size = shape[axis]
    along = torch.zeros(size)
    along[integer(generator, step) :: step] = 1
    width = max(4, round(middle * size))
    along[size // 2 - width // 2 : size // 2 - width // 2 + width] = 1
    return along.reshape([-1 if n == axis else 1 for n in range(3)]).expand(tuple(shape)).clone()


def _corners(shape: Sequence[int], radii: Sequence[float], share: float, generator: torch.Generator) -> Tensor:
    """Ones, or, in a share of the draws, an ellipse of these radii, as shares of the largest frequencies."""
    return elliptic(shape, radii).float() if uniform(generator) < share else torch.ones(())
