"""Random acquisitions: what a network that is trained end to end has to reconstruct from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from invsr.grid import Grid
from invsr.operators.base import LinearOperator
from invsr.operators.scan_model import acquisition

# The unknown's voxels are the unit of length.
PROFILES = ("gaussian", "boxcar", "sinc", "slr")
# Fewer slices than this tell a network nothing about the direction across them.
LEAST_SLICES = 3


@dataclass(frozen=True)
class Acquisitions:
    """Ranges of what is random.

    Attributes
    ----------
    thickness : (float, float)
        FWHM of the slice profile, voxels, log-uniform.
    gap : float
        Largest gap between slices as a share of the thickness; half of the acquisitions have none.
    noise : (float, float)
        Standard deviation, of the peak: half of the draws uniform, half log-uniform, so that high noise is not rare.
    profiles : sequence of str
    misjudged : float
        Standard deviation of the log of the noise level that the network is told: it is an estimate.
    """

    thickness: tuple[float, float] = (2.0, 8.0)
    gap: float = 0.3
    noise: tuple[float, float] = (0.002, 0.04)
    profiles: Sequence[str] = PROFILES
    misjudged: float = 0.1

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Protocol:
        """A random protocol for patches of a shape; its slices lie across the longest side."""
        axis = max(range(3), key=lambda n: shape[n])
        thickest = shape[axis] / (LEAST_SLICES * (1 + self.gap))
        low = min(self.thickness[0], thickest)
        thickness = _log_uniform((low, min(self.thickness[1], thickest)), generator)
        gap = max(0.0, 2 * _uniform(generator) - 1) * self.gap
        profile = self.profiles[int(torch.randint(len(self.profiles), (), generator=generator))]
        noise = self._noise(generator)
        told = noise * math.exp(self.misjudged * float(torch.randn((), generator=generator)))
        return Protocol(tuple(shape), axis, thickness, thickness * (1 + gap), profile, noise, told, _uniform(generator))

    def _noise(self, generator: torch.Generator) -> float:
        if _uniform(generator) < 0.5:
            return _log_uniform(self.noise, generator)
        low, high = self.noise
        return low + (high - low) * _uniform(generator)


@dataclass(frozen=True)
class Protocol:
    """One acquisition of patches.

    Attributes
    ----------
    shape : tuple of int
        Of the patches.
    axis : int
        Across the slices.
    thickness, distance : float
        Of slices, and between their centres, voxels.
    profile : str
    noise, told : float
        Standard deviation, and what the network is told.
    offset : float
        Where the first slice lies: share, between 0 and 1, of the room that whole slices leave.
    """

    shape: tuple[int, ...]
    axis: int
    thickness: float
    distance: float
    profile: str
    noise: float
    told: float
    offset: float

    def operator(self) -> LinearOperator:
        """From patches to their slices."""
        target = Grid(self.shape, np.eye(4))
        extent = self.shape[self.axis]
        slices = max(1, math.floor(extent / self.distance))
        shape, affine = list(self.shape), np.eye(4)
        shape[self.axis] = slices
        affine[self.axis, self.axis] = self.distance
        room = extent - slices * self.distance
        affine[self.axis, 3] = self.offset * room + 0.5 * self.distance - 0.5
        return acquisition(
            Grid(shape, affine),
            reference=target,
            slice_thickness=self.thickness,
            slice_profile=self.profile,
            through_plane=self.axis,
        )


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _log_uniform(ends: tuple[float, float], generator: torch.Generator) -> float:
    low, high = (math.log(end) for end in ends)
    return math.exp(low + (high - low) * _uniform(generator))
