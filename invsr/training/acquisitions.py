"""Random acquisitions, from whose data networks that are trained end to end reconstruct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from invsr.grid import Grid
from invsr.operators.base import LinearOperator
from invsr.operators.profiles import PROFILES
from invsr.operators.scan_model import acquisition
from invsr.training.random_draws import integer, log_uniform, mixed_uniform, uniform, zero_or_uniform

# With fewer slices a patch shows nothing about the direction across them.
LEAST_SLICES_OF_PATCH = 3


@dataclass(frozen=True)
class Acquisitions:
    """Ranges of the random acquisitions; lengths are in voxels of the unknown.

    Attributes
    ----------
    thickness : (float, float)
        FWHM of the slice profile, voxels, log-uniform.
    gap : float
        Largest gap between slices as a share of the thickness; half of the acquisitions have no gap.
    noise : (float, float)
        Standard deviation as a share of the peak; half of the draws are uniform, half log-uniform.
    profiles : sequence of str
    misjudged : float
        Error of the noise level that the network is given, as the standard deviation of its logarithm.
    """

    thickness: tuple[float, float] = (2.0, 8.0)
    gap: float = 0.3
    noise: tuple[float, float] = (0.002, 0.04)
    profiles: Sequence[str] = PROFILES
    misjudged: float = 0.1

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> RandomAcquisition:
        """A random acquisition of patches of a shape; its slices lie across the longest side."""
        axis = max(range(3), key=lambda n: shape[n])
        thickest = shape[axis] / (LEAST_SLICES_OF_PATCH * (1 + self.gap))
        low = min(self.thickness[0], thickest)
        thickness = log_uniform(generator, low, min(self.thickness[1], thickest))
        gap = zero_or_uniform(generator, self.gap)
        profile = self.profiles[integer(generator, len(self.profiles))]
        noise = mixed_uniform(generator, *self.noise)
        misjudged = math.exp(self.misjudged * float(torch.randn((), generator=generator)))
        return RandomAcquisition(
            shape=tuple(shape),
            axis=axis,
            thickness=thickness,
            distance=thickness * (1 + gap),
            profile=profile,
            sigma=noise,
            assumed_sigma=noise * misjudged,
            offset=uniform(generator),
        )


@dataclass(frozen=True)
class RandomAcquisition:
    """One acquisition of patches.

    Attributes
    ----------
    shape : tuple of int
        Shape of the patches.
    axis : int
        Axis across the slices.
    thickness, distance : float
        Slice thickness, and distance between slice centres, voxels.
    profile : str
    sigma, assumed_sigma : float
        Standard deviation of the noise, and the estimate of it that the network is given.
    offset : float
        Position of the first slice, as a share (0 to 1) of the margin that whole slices leave along the axis.
    """

    shape: tuple[int, ...]
    axis: int
    thickness: float
    distance: float
    profile: str
    sigma: float
    assumed_sigma: float
    offset: float

    def operator(self) -> LinearOperator:
        """The operator from patches to their slices."""
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
