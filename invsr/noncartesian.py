"""k-space as it was measured off the Cartesian grid, radial or spiral, and where its image lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.raw import ALL_AXES, KSpaceData

# Samples may lie outside of k-space by so many cycles: rounding of files in single precision.
ROUNDING = 1e-3
# Voxels along the first two axes of a trajectory, at least: any fewer are those of another unit.
LEAST_MATRIX = 4


@dataclass(frozen=True, eq=False)
class NonCartesianData(KSpaceData):
    """k-space along a trajectory, by one coil or several: radial, spiral, slices of them, three-dimensional.

    Sample m is ``N^(-1/2) sum_n x[n] exp(-2 pi i sum_d k_d[m] (n_d - N_d // 2) / N_d)`` of the image x, N the number of
    voxels along the Fourier axes: image index ``N // 2`` has phase zero, as in `invsr.RawData`.

    Parameters
    ----------
    samples : Tensor, shape (1, coils, readout, shots, positions), complex
        Kept as complex64. Positions are those along the axis that is no Fourier axis (slices), a single one where all
        three are.
    trajectory : Tensor, shape (readout, shots, len(axes)), real
        k in cycles per field of view, from ``-N/2`` to ``N/2``, the same for all positions; component n runs along the
        n-th of `axes`. Kept as float32.
    grid : Grid
        Where the voxels of the image lie. Its matrix may be any that holds the trajectory.
    axes : two or three of {0, 1, 2}
        The Fourier axes.
    name : str
        What messages call it: the file's name.
    slice_axis : {0, 1, 2}, optional
        The array axis across the slices of a two-dimensional acquisition; None for three-dimensional ones.
    slice_thickness : float, mm, optional
        Thickness of slices, as the scanner reports it.
    noise : Tensor, shape (coils, n), complex, optional
        Samples of noise alone, taken at the bandwidth of the data.
    calibration : Tensor, shape (coils, a, b, c), complex, optional
        Reference lines on a Cartesian grid, as of `invsr.RawData`.
    notes : tuple of str
        What the reader changed or left out, in one line each.

    Attributes
    ----------
    counts : Tensor, shape (readout, shots, positions)
        Ones: every sample was measured once.

    Raises
    ------
    InvsrError
        When shapes do not fit each other, the trajectory leaves the k-space of the grid's matrix, or samples are not
        complex, not finite or all zero.

    Examples
    --------
    >>> from invsr.operators import radial
    >>> raw = NonCartesianData(torch.ones(1, 4, 32, 20, 3) + 0j, radial(20, 32, 16),
    ...     Grid.from_spacing((16, 16, 3), (1, 1, 5)), axes=(0, 1), slice_axis=2)
    >>> raw.n_coils, raw.n_shots
    (4, 20)
    """

    samples: Tensor
    trajectory: Tensor
    grid: Grid
    axes: tuple[int, ...] = ALL_AXES
    name: str = "k-space"
    slice_axis: int | None = None
    slice_thickness: float | None = None
    noise: Tensor | None = None
    calibration: Tensor | None = None
    notes: tuple[str, ...] = ()
    counts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        given = tuple(int(n) for n in self.axes)
        check_trajectory(self.trajectory, self.grid.shape, given, self.name)
        order = sorted(range(len(given)), key=given.__getitem__)
        object.__setattr__(self, "axes", tuple(given[n] for n in order))
        object.__setattr__(self, "trajectory", self.trajectory[..., order].float())
        shape = tuple(self.samples.shape)
        readout, shots = self.trajectory.shape[:2]
        positions = math.prod(self.grid.shape[n] for n in ALL_AXES if n not in self.axes)
        if len(shape) != 5 or shape[0] != 1 or shape[2:] != (readout, shots, positions):
            raise InvsrError(
                f"{self.name}: samples of shape {shape} do not fit a trajectory of {readout} samples in {shots} shots "
                f"and {positions} positions: use (1, coils, {readout}, {shots}, {positions})"
            )
        if not self.samples.is_complex():
            raise InvsrError(f"{self.name}: samples of {self.samples.dtype}: k-space is complex")
        self._check_slices()
        samples = self.samples.to(torch.complex64)
        self._check_samples(samples)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "counts", torch.ones((), device=samples.device).expand(shape[2:]))
        self._check_coils()

    @classmethod
    def from_array(
        cls,
        samples: npt.ArrayLike | Tensor,
        trajectory: npt.ArrayLike | Tensor,
        spacing: float | Sequence[float] | None = None,
        *,
        matrix: Sequence[int] | None = None,
        affine: npt.ArrayLike | None = None,
        name: str = "k-space",
        slice_thickness: float | None = None,
    ) -> NonCartesianData:
        """k-space of arrays, along axes (0, 1) of slices or all three.

        Parameters
        ----------
        samples : array_like, shape (coils, readout, shots, slices) or (coils, readout, shots), complex
        trajectory : array_like, shape (readout, shots, 2 or 3), real
            Cycles per field of view.
        spacing : float or three, mm, optional
            Voxel spacing of the image, which is centred in the world.
        matrix : two or three of int, optional
            Voxels along the axes of the trajectory; by default the smallest even numbers that hold it, and a note says
            what field of view follows.
        affine : array_like, shape (4, 4), optional
            Instead of `spacing`: from voxel indices of the image to world millimetres (RAS+).
        name, slice_thickness
            As of the class.

        Raises
        ------
        InvsrError
            When arrays do not fit, the trajectory is in another unit, or not exactly one of spacing and affine is
            given.
        """
        values, k = (
            torch.as_tensor(one if isinstance(one, Tensor) else np.array(one)) for one in (samples, trajectory)
        )
        values = values[..., None] if values.ndim == 3 else values
        if values.ndim != 4 or not values.is_complex():
            raise InvsrError(
                f"{name}: {values.dtype} of shape {tuple(values.shape)}: k-space is complex, (coils, readout, shots), "
                "with slices as a fourth axis"
            )
        if (affine is None) == (spacing is None):
            raise InvsrError(f"{name}: give either the voxel spacing in mm or the affine")
        axes = ALL_AXES[: k.shape[-1]] if k.ndim == 3 else ()
        k = k if k.is_floating_point() else k.real.double()
        check_trajectory(k, (2**31,) * 3, axes, name)
        reach = k.abs().amax((0, 1)).tolist()
        stated = matrix is not None
        if matrix is None:
            matrix = [2 * max(1, math.ceil(one - ROUNDING)) for one in reach]
        shape = [int(n) for n in matrix] + [values.shape[3]] * (len(axes) == 2)
        if len(matrix) != len(axes) or min(shape) < 1:
            raise InvsrError(
                f"{name}: a matrix of {tuple(matrix)} beside a trajectory along {len(axes)} axes: give as many sizes"
            )
        _require_cycles_per_view(reach, matrix, name)
        grid = Grid.from_spacing(shape, spacing) if spacing is not None else Grid(shape, np.asarray(affine))
        notes = () if stated else (_view_that_follows(grid, reach),)
        across = 2 if len(axes) == 2 else None
        return cls(values[None], k, grid, axes, name, across, slice_thickness, notes=notes)

    @property
    def n_shots(self) -> int:
        """Number of spokes, spiral arms, or other shots."""
        return int(self.trajectory.shape[1])

    def binned(self, values: Tensor) -> Tensor:
        sizes = torch.tensor([self.grid.shape[n] for n in self.axes]).to(self.trajectory.device)
        cells = (self.trajectory.round().long() + sizes // 2).clamp(min=0)
        cells = torch.minimum(cells, sizes - 1).reshape(-1, len(sizes))
        flat = cells[:, 0]
        for n, size in enumerate(sizes.tolist()[1:], 1):
            flat = flat * size + cells[:, n]
        rows = values.reshape(len(flat), -1)
        found = torch.zeros(int(sizes.prod()), rows.shape[1], dtype=rows.dtype, device=rows.device)
        found = found.index_add_(0, flat, rows).reshape(*sizes.tolist(), -1)
        others = [n for n in ALL_AXES if n not in self.axes]
        return found.movedim(-1, others[0]) if others else found[..., 0]


def _require_cycles_per_view(reach: Sequence[float], matrix: Sequence[int], name: str) -> None:
    """Refuse what a trajectory in another unit looks like: far too small."""
    most, said = max(reach), "x".join(f"{one:.4g}" for one in reach)
    found = None
    if most <= 0.5 + ROUNDING:
        found = "as one in cycles per voxel does"
    elif abs(most / math.pi - 1) < ROUNDING:
        found = "as one in radian per voxel does"
    elif min(matrix[:2]) < LEAST_MATRIX:
        found = f"and the matrix is {'x'.join(map(str, matrix))}, not {LEAST_MATRIX} voxels or more"
    if found:
        raise InvsrError(
            f"{name}: its trajectory reaches {said}, {found}: scale it to cycles per field of view, so that it reaches "
            "half of the matrix"
        )


def _view_that_follows(grid: Grid, reach: Sequence[float]) -> str:
    sizes, spacing = grid.shape[: len(reach)], grid.spacing.tolist()
    view = "x".join(f"{size * mm:.4g}" for size, mm in zip(sizes, spacing, strict=False))
    cycles = "x".join(f"{one:.4g}" for one in reach)
    return (
        f"field of view {view} mm, matrix {'x'.join(map(str, sizes))}, as its trajectory reaches {cycles} cycles per "
        "field of view (--raw-matrix states another)"
    )


def check_trajectory(trajectory: Tensor, shape: Sequence[int], axes: Sequence[int], name: str = "k-space") -> None:
    """Refuse a trajectory that is not one of an image matrix.

    Parameters
    ----------
    trajectory : Tensor, shape (readout, shots, len(axes))
        Cycles per field of view.
    shape : three of int
        The image's matrix.
    axes : two or three of {0, 1, 2}
        Fourier axes, one for each component.
    name : str
        What messages call the data.

    Raises
    ------
    InvsrError
    """
    if len(axes) not in (2, 3) or len(set(axes)) < len(axes) or not set(axes) <= set(ALL_AXES):
        raise InvsrError(
            f"{name}: Fourier axes {tuple(axes)} of a trajectory: give two or three different ones of 0, 1, 2"
        )
    if trajectory.ndim != 3 or trajectory.shape[2] != len(axes) or not trajectory.is_floating_point():
        raise InvsrError(
            f"{name}: a trajectory of shape {tuple(trajectory.shape)}, {trajectory.dtype}: give real numbers, "
            f"(readout, shots, {len(axes)})"
        )
    if not trajectory.numel():
        raise InvsrError(f"{name}: a trajectory of shape {tuple(trajectory.shape)} holds no samples")
    values = trajectory.detach()
    if not bool(values.isfinite().all()):
        raise InvsrError(f"{name}: its trajectory holds NaN or infinite values: repair it, or leave those shots out")
    for d, n in enumerate(axes):
        low, high = float(values[..., d].min()), float(values[..., d].max())
        if max(-low, high) > shape[n] / 2 + ROUNDING:
            raise InvsrError(
                f"{name}: its trajectory runs from {low:.4g} to {high:.4g} cycles per field of view along axis {n}, "
                f"beyond the {shape[n] / 2:g} of {shape[n]} voxels: take a larger matrix (a finer spacing), or "
                "scale the trajectory"
            )
