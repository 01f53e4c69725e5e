"""Random acquisitions, from whose data networks that are trained end to end reconstruct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from invsr.grid import Grid
from invsr.noise.likelihoods import Gaussian
from invsr.operators.base import LinearOperator
from invsr.operators.contrasts import Contrasts
from invsr.operators.profiles import PROFILES
from invsr.operators.scan_model import acquisition
from invsr.operators.stack import Stack
from invsr.operators.transforms import rigid_matrices
from invsr.solvers.contrasts import Contrast
from invsr.training.kspace import RandomKSpace, draw_kspace
from invsr.training.random_draws import integer, log_uniform, mixed_uniform, uniform, zero_or_uniform
from invsr.training.recipe import THINNEST

# With fewer slices a patch shows nothing about the direction across them.
LEAST_SLICES_OF_PATCH = 3
# Of several scans: how far they lie obliquely, radians, and the standard deviation of the logarithm of their noise.
LARGEST_TURN, SPREAD_OF_NOISE = math.pi / 6, 0.3


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
    thin : float
        Share of the acquisitions whose slices are thinner, by a factor down to `THINNEST`, at the same distance.
    stacks : float
        Share of the acquisitions that have two or three scans, most of them across different axes.
    oblique : float
        Share of those whose second and third scans are turned, by up to `LARGEST_TURN`.
    kspace : float
        Share of the acquisitions that are k-space (`invsr.training.kspace`) instead of slices.
    """

    thickness: tuple[float, float] = (2.0, 8.0)
    gap: float = 0.3
    noise: tuple[float, float] = (0.002, 0.04)
    profiles: Sequence[str] = PROFILES
    misjudged: float = 0.1
    thin: float = 0.0
    stacks: float = 0.0
    oblique: float = 0.0
    kspace: float = 0.0

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> RandomAcquisition | RandomKSpace:
        """A random acquisition of patches of a shape: one scan, with slices across the longest side, or, by their
        shares, several of a cube of about as many voxels, or k-space."""
        if self.kspace > 0 and uniform(generator) < self.kspace:
            noise, assumed = self._noise(generator)
            return draw_kspace(shape, noise, assumed, generator)
        return self._draw_scans(shape, generator)

    def _noise(self, generator: torch.Generator) -> tuple[float, float]:
        """Noise, and the estimate of it that the network is given."""
        noise = mixed_uniform(generator, *self.noise)
        return noise, noise * math.exp(self.misjudged * float(torch.randn((), generator=generator)))

    def _draw_scans(self, shape: Sequence[int], generator: torch.Generator) -> RandomAcquisition:
        several = self.stacks > 0 and uniform(generator) < self.stacks
        if several:
            shape = [side_of_cube(shape)] * 3
        axis = max(range(3), key=lambda n: shape[n])
        noise, assumed = self._noise(generator)
        scans = [self._scan(shape[axis], axis, generator)]
        if several:
            scans[0] = replace(scans[0], axis=integer(generator, 3))
            turned = uniform(generator) < self.oblique
            for _ in range(1 + integer(generator, 2)):
                scans.append(self._another(scans, shape[0], turned, generator))
        return RandomAcquisition(tuple(shape), tuple(scans), sigma=noise, assumed_sigma=assumed)

    def draw_contrasts(self, count: int, shape: Sequence[int], generator: torch.Generator) -> RandomContrasts:
        """Random acquisitions of several contrasts of a cube of about as many voxels as a patch has.

        One time in three all have their slices across the same axis, else each across one of its own, as long as there
        are; one time in five the last one is isotropic.
        """
        side = side_of_cube(shape)
        order = torch.randperm(3, generator=generator).tolist()
        alike = uniform(generator) < 1 / 3
        guided = count > 1 and uniform(generator) < 0.2
        found = []
        for n in range(count):
            one = replace(self, stacks=0.0)._draw_scans((side,) * 3, generator)
            scan = replace(one.scans[0], axis=order[0 if alike else n % 3])
            if guided and n == count - 1:
                scan = replace(scan, thickness=1.0, distance=1.0)
            found.append(replace(one, scans=(scan,)))
        return RandomContrasts(tuple(found))

    def _scan(self, side: int, axis: int, generator: torch.Generator) -> RandomScan:
        gap = zero_or_uniform(generator, self.gap)
        thickest = side / (LEAST_SLICES_OF_PATCH * (1 + gap))
        low = min(self.thickness[0], thickest)
        thickness = log_uniform(generator, low, min(self.thickness[1], thickest))
        distance = thickness * (1 + gap)
        if self.thin > 0 and uniform(generator) < self.thin:
            thickness *= uniform(generator, THINNEST, 1.0)
        profile = self.profiles[integer(generator, len(self.profiles))]
        return RandomScan(axis, thickness, distance, profile, offset=uniform(generator))

    def _another(self, scans: list[RandomScan], side: int, turned: bool, generator: torch.Generator) -> RandomScan:
        """One more scan: half of them of the first one's protocol, three in four across an axis that no other has."""
        first, other = scans[0], self._scan(side, 0, generator)
        if uniform(generator) < 0.5:
            other = replace(first, offset=other.offset)
        free = [n for n in range(3) if n not in {one.axis for one in scans}]
        fresh = uniform(generator) < 0.75
        axis = free[integer(generator, len(free))] if fresh else integer(generator, 3)
        noise = math.exp(SPREAD_OF_NOISE * float(torch.randn((), generator=generator)))
        turn = (0.0, 0.0, 0.0)
        if turned:
            direction = torch.randn(3, generator=generator)
            a, b, c = (uniform(generator, 0.0, LARGEST_TURN) * direction / direction.norm()).tolist()
            turn = (a, b, c)
        return replace(other, axis=axis, noise=noise, turn=turn)


def side_of_cube(shape: Sequence[int]) -> int:
    """The multiple of 8, which every network takes, whose cube is nearest to the patch in size."""
    return max(8, 8 * round(float(np.cbrt(np.prod(shape))) / 8))


@dataclass(frozen=True)
class RandomScan:
    """One scan of patches.

    Attributes
    ----------
    axis : int
        Axis across the slices.
    thickness, distance : float
        Slice thickness, and distance between slice centres, voxels.
    profile : str
    offset : float
        Position of the first slice, as a share (0 to 1) of the margin that whole slices leave along the axis.
    noise : float
        Standard deviation of the noise relative to the first scan's.
    turn : (float, float, float)
        Rotation vector, radians, about the middle of the patch.
    """

    axis: int
    thickness: float
    distance: float
    profile: str
    offset: float
    noise: float = 1.0
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def operator(self, patch: Grid) -> LinearOperator:
        """The operator from patches on a grid to their slices."""
        extent = patch.shape[self.axis]
        slices = max(1, math.floor(extent / self.distance))
        shape, affine = list(patch.shape), np.eye(4)
        shape[self.axis] = slices
        affine[self.axis, self.axis] = self.distance
        room = extent - slices * self.distance
        affine[self.axis, 3] = self.offset * room + 0.5 * self.distance - 0.5
        rotation = rigid_matrices(torch.tensor([*self.turn, 0.0, 0.0, 0.0]), torch.zeros(3)).numpy()[:3, :3]
        affine[:3, :3] = rotation @ affine[:3, :3]
        affine[:3, 3] = patch.centre + rotation @ (affine[:3, 3] - patch.centre)
        return acquisition(
            Grid(shape, affine),
            reference=patch,
            slice_thickness=self.thickness,
            slice_profile=self.profile,
            through_plane=self.axis,
        )


@dataclass(frozen=True)
class RandomAcquisition:
    """One acquisition of patches: one scan, or several.

    Attributes
    ----------
    shape : tuple of int
        Shape of the patches.
    scans : tuple of RandomScan
    sigma, assumed_sigma : float
        Standard deviation of the noise of the first scan, and the estimate of it that the network is given.
    """

    shape: tuple[int, ...]
    scans: tuple[RandomScan, ...]
    sigma: float
    assumed_sigma: float

    def operator(self) -> LinearOperator:
        """The operator from patches to their slices: of several scans a stack, whose weights make their noise equal."""
        patch = Grid(self.shape, np.eye(4))
        operators = [one.operator(patch) for one in self.scans]
        return operators[0] if len(operators) == 1 else Stack(operators, [one.noise**-2 for one in self.scans])

    def measured(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Noisy data of patches, shape (batch, 1, *shape): a tuple of several scans."""
        y = self.operator()(clean)
        parts = y if isinstance(y, tuple) else (y,)
        noisy = tuple(part + self.sigma * torch.randn(part.shape, generator=generator) for part in parts)
        return noisy if isinstance(y, tuple) else noisy[0]


@dataclass(frozen=True)
class RandomContrasts:
    """One acquisition of patches of several contrasts, a channel each.

    Attributes
    ----------
    members : tuple of RandomAcquisition
    """

    members: tuple[RandomAcquisition, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the patches."""
        return self.members[0].shape

    @property
    def assumed_sigma(self) -> torch.Tensor:
        """The noise levels that the network is given, shape (contrast, 1, 1, 1)."""
        return torch.tensor([one.assumed_sigma for one in self.members]).view(-1, 1, 1, 1)

    def operator(self) -> Contrasts:
        """The operator from patches to the slices of all contrasts."""
        return Contrasts([one.operator() for one in self.members])

    def seen(self, operator: Contrasts, y: Sequence[torch.Tensor]) -> list[Contrast]:
        """What the operator measures of each contrast, with the noise levels that the network is given."""
        channels = zip(operator.channels, y, self.members, strict=True)
        told = [(one, part, member.assumed_sigma) for one, part, member in channels]
        return [Contrast(one, part, sigma, (Gaussian(sigma),)) for one, part, sigma in told]

    def measured(self, clean: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Noisy data of patches, shape (batch, contrast, *shape)."""
        channels = torch.split(clean, 1, 1)
        parts: list[torch.Tensor] = []
        for one, channel in zip(self.members, channels, strict=True):
            y = one.measured(channel, generator)
            parts += y if isinstance(y, tuple) else (y,)
        return tuple(parts)
