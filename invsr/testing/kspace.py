"""k-space of a known volume: coils around the field of view, a smooth phase, a sampling mask, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.noncartesian import NonCartesianData
from invsr.numerics.fourier import fourier
from invsr.operators.nonuniform import NonUniformKSpace
from invsr.raw import ALL_AXES, RawData, of_matrix
from invsr.testing.metrics import peak
from invsr.volume import Volume

# Of the coils, in half fields of view: distance from the centre and radius of the loop. Sixteen of them compress to
# twelve, as those of real head arrays do; smaller ones would each see a region of its own.
DISTANCE, RADIUS = 1.5, 1.0
# Coils are spread over the sphere up to this height, as a share of its radius: a dipole on the axis of the main field
# receives next to nothing from below it.
HEIGHT = 0.8
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
# Of the image's phase: waves that it is the sum of, their most turns over the field of view, standard deviation (rad).
WAVES, TURNS, SPREAD = 6, 0.75, 1.0


def simulate_kspace(
    volume: Volume,
    *,
    n_coils: int = 8,
    mask: Tensor | None = None,
    noise: float = 0.01,
    seed: int = 0,
    axes: Sequence[int] = ALL_AXES,
    phase: bool = True,
    matrix: Sequence[int] | None = None,
) -> tuple[RawData, Tensor, Tensor]:
    """k-space that a coil array measures of `volume`, the coil maps, and the complex image.

    ``y_c = m (F crop S_c x + sigma (n + i n') / sqrt(counts))`` with F orthonormal along `axes`. A smaller matrix keeps
    intensities: samples are scaled by the square root of the ratio of the matrix sizes.

    Parameters
    ----------
    volume : Volume
        Taken as the truth.
    n_coils : int
        Coils, from `sensitivities`; a single one is uniform.
    mask : Tensor, optional
        How often each sample is measured, of the shape of the matrix or broadcast to it; once each by default.
    noise : float
        Standard deviation as a share of the volume's peak (`invsr.testing.peak`), of the real and of the imaginary part
        of a sample that is measured once.
    seed : int
        Seed of the phases of image and coils, and of the noise.
    axes : sequence of {0, 1, 2}
        The Fourier axes; the one beside two of them lies across slices.
    phase : bool
        Whether the image gets a smooth phase; otherwise it is real.
    matrix : three of int, optional
        Samples along each axis, the volume's by default. Along a Fourier axis high frequencies are left out.

    Returns
    -------
    raw : RawData
        Its grid has the matrix size; image index ``n // 2`` lies where index ``N // 2`` of the volume does.
    maps : Tensor, shape (coils, *matrix), complex64
        At the voxels of `raw`; ``sum_c |S_c|^2 = 1``.
    image : Tensor, shape (1, 1, *volume.grid.shape), complex64
        The volume with its phase.

    Raises
    ------
    InvsrError
        When a number is out of range, or the mask or the matrix does not fit.

    Examples
    --------
    >>> raw, maps, image = simulate_kspace(Volume.from_array(torch.ones(8, 8, 6), 1.0), n_coils=4, matrix=(8, 4, 6))
    >>> raw.samples.shape, maps.shape, raw.grid.spacing
    (torch.Size([1, 4, 8, 4, 6]), torch.Size([4, 8, 4, 6]), array([1., 2., 1.]))
    """
    grid = volume.grid
    image, turns, generator = _received(volume, n_coils, noise, phase, seed)
    shape = _matrix(matrix, grid, axes)
    counts = torch.ones(shape) if mask is None else mask.float()
    try:
        counts = counts.expand(shape).clone()
    except RuntimeError:
        raise InvsrError(f"a mask of shape {tuple(counts.shape)} does not fit the matrix {shape}") from None
    fine = sensitivities(grid.shape, n_coils, turns)
    sigma = noise * peak(volume.data[0, 0].cpu()) if noise else 0.0
    spread = torch.where(counts > 0, sigma * counts.clamp(min=1e-30).rsqrt(), 0.0)
    kept = tuple(slice(size // 2 - n // 2, size // 2 - n // 2 + n) for _, n, size in _sizes(shape, grid))
    scale = math.sqrt(math.prod(shape) / grid.size)
    samples = torch.empty(1, n_coils, *shape, dtype=torch.complex64)
    for c in range(n_coils):
        y = scale * fourier(fine[c] * image[0, 0], axes)[kept]
        drawn = torch.randn(2, *shape, generator=generator)
        samples[0, c] = torch.where(counts > 0, y + spread * torch.complex(drawn[0], drawn[1]), 0)
    left = [n for n in ALL_AXES if n not in axes]
    across = left[0] if len(left) == 1 else None
    raw = RawData(samples, counts, of_matrix(grid, shape), tuple(axes), volume.name, across)
    maps = fine if shape == grid.shape else sensitivities(shape, n_coils, turns)
    return raw, maps, image


def simulate_noncartesian(
    volume: Volume,
    trajectory: Tensor,
    *,
    n_coils: int = 8,
    noise: float = 0.01,
    seed: int = 0,
    axes: Sequence[int] = (0, 1),
    phase: bool = True,
    matrix: Sequence[int] | None = None,
) -> tuple[NonCartesianData, Tensor, Tensor]:
    """k-space that a coil array measures of `volume` along a trajectory; as `simulate_kspace`.

    Parameters
    ----------
    volume : Volume
        Taken as the truth.
    trajectory : Tensor, shape (readout, shots, len(axes))
        Cycles per field of view, for instance of `invsr.operators.radial`.
    n_coils, noise, seed, phase
        As of `simulate_kspace`.
    axes : two or three of {0, 1, 2}
        The Fourier axes, one for each component; the one beside two of them lies across slices.
    matrix : three of int, optional
        Matrix of the image that `raw` is to become, the volume's by default; one that holds the trajectory.

    Returns
    -------
    raw : NonCartesianData
    maps : Tensor, shape (coils, *matrix), complex64
    image : Tensor, shape (1, 1, *volume.grid.shape), complex64

    Raises
    ------
    InvsrError
        When a number is out of range, or the trajectory or the matrix does not fit.

    Examples
    --------
    >>> from invsr.operators import radial
    >>> volume = Volume.from_array(torch.ones(8, 8, 6), 1.0)
    >>> raw, maps, image = simulate_noncartesian(volume, radial(9, 16, 8), n_coils=4)
    >>> raw.samples.shape, maps.shape
    (torch.Size([1, 4, 16, 9, 6]), torch.Size([4, 8, 8, 6]))
    """
    grid = volume.grid
    image, turns, generator = _received(volume, n_coils, noise, phase, seed)
    shape = _matrix(matrix, grid, axes)
    fine = sensitivities(grid.shape, n_coils, turns)
    operator = NonUniformKSpace(grid, trajectory, axes=axes)
    scale = math.sqrt(math.prod(shape) / grid.size)
    samples = torch.cat([scale * operator(coil * image) for coil in fine], 1)
    sigma = noise * peak(volume.data[0, 0].cpu()) if noise else 0.0
    drawn = torch.randn(2, *samples.shape, generator=generator)
    samples = samples + sigma * torch.complex(drawn[0], drawn[1])
    left = [n for n in ALL_AXES if n not in axes]
    across = left[0] if left else None
    raw = NonCartesianData(samples, trajectory, of_matrix(grid, shape), tuple(axes), volume.name, across)
    return raw, fine if shape == grid.shape else sensitivities(shape, n_coils, turns), image


def sensitivities(shape: Sequence[int], n_coils: int, turns: Tensor | None = None) -> Tensor:
    """What loops around the field of view receive: ``S_c = b_c exp(i turns_c) / sqrt(sum |b|^2)``, complex64.

    ``b = B_x - i B_y`` of a magnetic dipole, softened by the radius of the loop, that points to the centre, with the
    main field along the third array axis. Coils lie on a spiral around a sphere, in units of half the field of view,
    so that maps on grids of different sizes agree. One coil is uniform.

    Parameters
    ----------
    shape : three of int
    n_coils : int
    turns : Tensor, shape (coils,), rad, optional
        Phase of each receiver, 0 by default.

    References
    ----------
    Hoult (2000), Concepts Magn. Reson. 12, 173-187 (reciprocity: a coil receives the field that it would make).
    """
    if n_coils == 1:
        return torch.ones(1, *shape, dtype=torch.complex64)
    at = _positions(shape)
    maps = torch.empty(n_coils, *shape, dtype=torch.complex64)
    for c in range(n_coils):
        z = HEIGHT * (2 * (c + 0.5) / n_coils - 1)
        ring, angle = math.sqrt(1 - z * z), c * GOLDEN_ANGLE
        inward = [-ring * math.cos(angle), -ring * math.sin(angle), -z]
        away = [u + DISTANCE * m for u, m in zip(at, inward, strict=True)]
        square = away[0] ** 2 + away[1] ** 2 + away[2] ** 2 + RADIUS**2
        along = inward[0] * away[0] + inward[1] * away[1] + inward[2] * away[2]
        x, y = ((3 * along * a / square - m) * square**-1.5 for a, m in zip(away[:2], inward[:2], strict=True))
        maps[c] = torch.complex(x, -y)
    maps /= maps.abs().square().sum(0).sqrt()
    return maps if turns is None else maps * torch.polar(torch.ones_like(turns), turns)[:, None, None, None]


def random_phase(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A smooth random field: a few waves of less than a turn over the field of view; rad, shape (i, j, k)."""
    at = _positions(shape)
    total = torch.zeros(tuple(shape))
    for _ in range(WAVES):
        turns = TURNS * (2 * torch.rand(3, generator=generator) - 1)
        start = 2 * math.pi * torch.rand((), generator=generator)
        total += torch.cos(math.pi * sum(t * u for t, u in zip(turns, at, strict=True)) + start)
    return total * (SPREAD * math.sqrt(2 / WAVES))


def _received(
    volume: Volume, n_coils: int, noise: float, phase: bool, seed: int
) -> tuple[Tensor, Tensor, torch.Generator]:
    """The complex image, the phases of the receivers, and what draws the noise."""
    if n_coils < 1 or not (math.isfinite(noise) and noise >= 0):
        raise InvsrError(f"{n_coils} coils with noise {noise:g}: at least one coil, and noise from 0 up")
    generator = torch.Generator().manual_seed(seed)
    image = volume.data.cpu() + 0j
    if phase:
        image = image * torch.polar(torch.ones(()), random_phase(volume.grid.shape, generator))
    return image, 2 * math.pi * torch.rand(n_coils, generator=generator), generator


def _matrix(matrix: Sequence[int] | None, grid: Grid, axes: Sequence[int]) -> tuple[int, ...]:
    shape = grid.shape if matrix is None else tuple(int(n) for n in matrix)
    if len(shape) != 3 or any(n != size and not (0 < n < size and a in axes) for a, n, size in _sizes(shape, grid)):
        raise InvsrError(
            f"a matrix of {shape} for {grid}: give three sizes, smaller than the volume's along Fourier axes only"
        )
    return shape


def _positions(shape: Sequence[int]) -> list[Tensor]:
    """Per axis, distance from index ``N // 2`` in half fields of view, in broadcastable shapes."""
    along = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    return [((torch.arange(n) - n // 2) / (n / 2)).reshape(a) for n, a in zip(shape, along, strict=True)]


def _sizes(shape: Sequence[int], grid: Grid) -> list[tuple[int, int, int]]:
    return list(zip(ALL_AXES, shape, grid.shape, strict=True))
