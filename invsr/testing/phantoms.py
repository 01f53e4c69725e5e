"""Test volumes whose every edge lies at a known place in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid

Array = npt.NDArray[np.float64]
# Points evaluated at once, to bound memory.
MOST_POINTS = 2**18
# Bar periods in millimetres for a cube of 64 mm; they scale with the cube.
BAR_PERIODS = (6.0, 4.0, 2.5)


def centred_grid(shape: Sequence[int], spacing: float | Sequence[float] = 1.0) -> Grid:
    """An unrotated grid whose field of view is centred on the world's origin.

    Parameters
    ----------
    shape : sequence of 3 int
        Voxels along i, j, k.
    spacing : float or sequence of 3 float
        Voxel spacing, mm.

    Examples
    --------
    >>> centred_grid((4, 4, 2), (1, 1, 3)).origin
    array([-1.5, -1.5, -1.5])
    """
    return Grid.from_spacing(shape, spacing)


def shepp_logan(
    shape: Sequence[int], spacing: float | Sequence[float] = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Grid]:
    """The 3-D Shepp-Logan head as sigpy draws it, and the grid it lies on.

    The head fills the field of view: its unit is half the extent, ``n * spacing / 2`` mm, along each axis, and
    its centre is voxel ``n // 2``, which the grid puts at the world's origin. +x, +y, +z are i, j, k. Edges are
    hard (no partial volume); `shapes` has soft ones.

    Parameters
    ----------
    shape : sequence of 3 int
        Voxels along i, j, k.
    spacing : float or sequence of 3 float
        Voxel spacing, mm.
    dtype : torch.dtype
        Type of the volume returned.

    Returns
    -------
    tuple of Tensor, shape (1, 1, i, j, k), and Grid

    References
    ----------
    Shepp & Logan (1974), IEEE Trans. Nucl. Sci. 21, 21-43.

    Examples
    --------
    >>> x, grid = shepp_logan((16, 16, 8), (1, 1, 2))
    >>> x.shape, grid
    (torch.Size([1, 1, 16, 16, 8]), Grid(16x16x8, 1x1x2 mm, origin -8x-8x-8 mm))
    """
    centred = Grid.from_spacing(shape, spacing)
    grid = Grid.from_spacing(shape, spacing, origin=-centred.spacing * (np.array(centred.shape) // 2))
    import sigpy

    # sigpy's array axes are z, y, x. Its sums of tenths leave -1e-17 for 0.
    drawn = sigpy.shepp_logan(grid.shape[::-1], dtype=np.float64).T.round(6) + 0.0
    return _volume(drawn, dtype), grid


def shapes(
    grid: Grid, seed: int = 0, size: float = 64.0, n_samples: int = 256, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Ellipsoids, boxes, thin sheets and bars in a textured ellipsoid, drawn in world space.

    ``x[v] = mean of f over voxel v,  f(xyz) = sum_n amplitude_n(xyz) [xyz in solid n]``

    The phantom `f` is fixed by `seed` and `size` alone; the grid only says where to look, so one phantom can be
    drawn on a fine and on a coarse, an oblique or a cropped grid. The average runs over points at most
    ``size / n_samples`` mm apart, which gives edges their partial volume. Bars have 3 periods (``size / 64`` times
    6, 4 and 2.5 mm) along each of x, y, z, and sheets are 1 to 2 of those millimetres thick. Values lie in [0, 1.1].

    Parameters
    ----------
    grid : Grid
        Grid to draw on.
    seed : int
        Seed of the random places, sizes, orientations and amplitudes.
    size : float
        Edge of the cube about the world's origin that holds the phantom, mm.
    n_samples : int
        Sample points along that edge; the time taken grows with its cube, seconds for the default.
    dtype : torch.dtype
        Type of the volume returned.

    Returns
    -------
    Tensor, shape (1, 1, i, j, k)

    Raises
    ------
    InvsrError
        When `size` or `n_samples` is not above zero.

    Examples
    --------
    >>> shapes(centred_grid((16, 16, 8), (4, 4, 8)), n_samples=32).shape
    torch.Size([1, 1, 16, 16, 8])
    """
    if not (0 < size < np.inf and n_samples > 0):
        raise InvsrError(f"phantom of size {size} mm with {n_samples} samples: both must be above zero")
    rng = np.random.default_rng(seed)
    head, solids = _layout(rng, size)
    frequency = _random_rotation(rng)[:, :2] * (2 * np.pi * rng.uniform(3, 5, 2) / size)
    phase = rng.uniform(0, 2 * np.pi, 2)

    counts = np.maximum(np.ceil(grid.spacing * n_samples / size - 1e-6), 1).astype(int)
    inside = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in counts], indexing="ij"), -1).reshape(-1, 3)
    offsets = inside @ grid.affine[:3, :3].T
    centres = grid.points().reshape(-1, 3)
    values = np.zeros(len(centres))
    for solid in (head, *solids):
        # Only voxels that can touch the solid are sampled.
        reach = solid.half + np.linalg.norm(grid.spacing) / 2
        near = np.flatnonzero((np.abs((centres - solid.centre) @ solid.axes) <= reach).all(-1))
        for part in np.array_split(offsets, len(offsets) // MOST_POINTS + 1):
            for some in np.array_split(near, len(near) * len(part) // MOST_POINTS + 1):
                points = centres[some, None] + part
                drawn = solid.contains(points) * solid.amplitude
                if solid is head:
                    drawn = drawn * (1 + 0.1 * np.cos(points @ frequency + phase).sum(-1))
                values[some] += drawn.sum(-1) / len(offsets)
    return _volume(values.reshape(grid.shape), dtype)


def impulse(grid: Grid, index: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """One at voxel `index`, zero elsewhere; shape (1, 1, i, j, k).

    Raises
    ------
    InvsrError
        When the voxel lies outside the grid.

    Examples
    --------
    >>> impulse(centred_grid((3, 3, 3)), (1, 1, 0)).nonzero().tolist()
    [[0, 0, 1, 1, 0]]
    """
    where = tuple(int(n) for n in index)
    if len(where) != 3 or not all(0 <= n < size for n, size in zip(where, grid.shape, strict=True)):
        raise InvsrError(f"voxel {where} lies outside a grid of shape {grid.shape}: give three indices from 0 up")
    x = torch.zeros(1, 1, *grid.shape, dtype=dtype)
    x[(0, 0, *where)] = 1
    return x


def ramp(grid: Grid, direction: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """``x = direction . xyz`` at each voxel centre, xyz in mm; shape (1, 1, i, j, k).

    Raises
    ------
    InvsrError
        When `direction` is not three finite numbers.

    Examples
    --------
    >>> ramp(centred_grid((1, 1, 3), 2.0), (0, 0, 1)).flatten()
    tensor([-2.,  0.,  2.])
    """
    slope = np.asarray(direction, float)
    if slope.shape != (3,) or not np.isfinite(slope).all():
        raise InvsrError(f"ramp direction {direction}: give three finite numbers, per mm along x, y, z")
    return _volume(grid.points() @ slope, dtype)


def constant(grid: Grid, value: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """`value` everywhere; shape (1, 1, i, j, k).

    Examples
    --------
    >>> constant(centred_grid((1, 1, 2)), 3.0).flatten()
    tensor([3., 3.])
    """
    return torch.full((1, 1, *grid.shape), value, dtype=dtype)


@dataclass(frozen=True, eq=False)
class _Solid:
    """An ellipsoid or box: centre (3,) and half-lengths (3,) in mm, axes in the columns of `axes`, an amplitude."""

    centre: Array
    half: Array
    axes: Array
    amplitude: float
    is_box: bool

    def contains(self, xyz: Array) -> npt.NDArray[np.bool_]:
        own = (xyz - self.centre) @ (self.axes / self.half)
        inside = (np.abs(own) <= 1).all(-1) if self.is_box else (own**2).sum(-1) <= 1
        return np.asarray(inside)


def _layout(rng: np.random.Generator, size: float) -> tuple[_Solid, list[_Solid]]:
    """The head, and solids that share 27 cells of a 3x3x3 lattice, at most one (or one group of bars) in each."""
    cell = 0.24 * size
    lattice = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 3)
    cells = list(rng.permutation(lattice) * cell)
    head = _Solid(np.zeros(3), size * np.array([0.43, 0.48, 0.45]), np.eye(3), 0.5, False)

    def amplitude(centre: Array) -> float:
        # Cells on the lattice's edges and corners reach out of the head, where a dark solid would be negative.
        dark = np.count_nonzero(centre) < 2 and rng.random() < 0.7
        return float(rng.uniform(-0.35, -0.2) if dark else rng.uniform(0.2, 0.45))

    solids = []
    for period in BAR_PERIODS:
        width = period / 64 * size / 2
        for axis in range(3):
            centre = cells.pop()
            strength = amplitude(centre)
            half = np.full(3, 0.07 * size)
            half[axis] = width / 2
            for n in (-1, 0, 1):
                place = centre + 2 * width * n * np.eye(3)[axis]
                solids.append(_Solid(place, half, np.eye(3), strength, True))
    for kind in ["ellipsoid"] * 7 + ["box"] * 6 + ["sheet"] * 5:
        centre = cells.pop()
        # Half-diagonals stay below half a cell, so that neighbours never overlap.
        half = rng.uniform(0.03, 0.065, 3) * size
        if kind == "sheet":
            half = np.array([0.08 * size, 0.08 * size, rng.uniform(0.5, 1.0) / 64 * size])
        solids.append(_Solid(centre, half, _random_rotation(rng), amplitude(centre), kind != "ellipsoid"))
    return head, solids


def _random_rotation(rng: np.random.Generator) -> Array:
    return np.asarray(np.linalg.qr(rng.standard_normal((3, 3)))[0])


def _volume(values: Array, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)[None, None]
