"""k-space as it was measured, by one coil or several, and where its image lies: on a Cartesian grid."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid

ALL_AXES = (0, 1, 2)
Data = TypeVar("Data", bound="KSpaceData")


class KSpaceData:
    """What data on a Cartesian grid and off it have in common; `RawData` says what the attributes are."""

    samples: Tensor
    counts: Tensor
    grid: Grid
    axes: tuple[int, ...]
    name: str
    slice_axis: int | None
    slice_thickness: float | None
    noise: Tensor | None
    calibration: Tensor | None
    notes: tuple[str, ...]

    @property
    def n_coils(self) -> int:
        """Number of coils."""
        return int(self.samples.shape[1])

    @property
    def measured(self) -> Tensor:
        """Which samples were measured, bool, of the shape of counts."""
        return self.counts > 0

    @property
    def covered(self) -> Tensor:
        """Which frequencies of the matrix were measured, bool, shape `grid.shape`."""
        return self.binned(self.measured.float()) > 0

    def binned(self, values: Tensor) -> Tensor:
        """Sums of values of samples, of the shape of counts, at the frequencies of the matrix, shape `grid.shape`."""
        return values

    def with_samples(self: Data, samples: Tensor, **changes: object) -> Data:
        """The same acquisition with other samples, made of these ones, of other coils perhaps; `changes` by field.

        They are not checked again, which would take as long as an iteration.
        """
        found = copy.copy(self)
        for name, value in {"samples": samples, **changes}.items():
            object.__setattr__(found, name, value)
        return found

    def to(self: Data, device: torch.device | str) -> Data:
        """The same data on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return self.with_samples(**moved)

    def _check_coils(self) -> None:
        for what, beside in (("noise", self.noise), ("calibration", self.calibration)):
            if beside is not None and (len(beside) != self.n_coils or not beside.is_complex()):
                raise InvsrError(
                    f"{self.name}: {what} of {len(beside)} coils beside {self.n_coils}: give complex samples of each"
                )

    def _check_samples(self, samples: Tensor) -> None:
        bad = sum(int((~coil.isfinite()).sum()) for coil in samples[0])
        if bad:
            raise InvsrError(
                f"{self.name}: {bad} of its samples are NaN or infinite: repair the file, or leave them out"
            )
        if not bool(samples.any()):
            raise InvsrError(f"{self.name}: every sample is 0: there is nothing to reconstruct from it")

    def _check_slices(self) -> None:
        if self.slice_axis is not None and (self.slice_axis not in ALL_AXES or self.slice_axis in self.axes):
            raise InvsrError(
                f"{self.name}: slice axis {self.slice_axis} beside Fourier axes {self.axes}: give another one"
            )


@dataclass(frozen=True, eq=False)
class RawData(KSpaceData):
    """k-space on a Cartesian grid, by one coil or several.

    Array axes i, j, k are those of the image: readout, phase encoding, and slices or partitions in most files.
    Along Fourier axes samples are frequencies, frequency zero at index ``N // 2`` (fftshift's order), of the
    orthonormal centred transform: image index ``N // 2`` has phase zero. Along the others they are positions.

    Parameters
    ----------
    samples : Tensor, shape (1, coils, i, j, k), complex
        Kept as complex64: the mean of all averages; 0 where nothing was measured, whatever is given.
    counts : Tensor, shape (i, j, k), real
        How often each sample was measured (its averages); 0 where it was not.
    grid : Grid
        Where the voxels of the image of this matrix size lie.
    axes : sequence of {0, 1, 2}
        The Fourier axes: (0, 1) for slices, (0, 1, 2) for three-dimensional acquisitions.
    name : str
        What messages call it: the file's name.
    slice_axis : {0, 1, 2}, optional
        The array axis across the slices of a two-dimensional acquisition, which is no Fourier axis; None for
        three-dimensional ones.
    slice_thickness : float, mm, optional
        Thickness of slices, as the scanner reports it.
    noise : Tensor, shape (coils, n), complex, optional
        Samples of noise alone, taken at the bandwidth of the data, of one average.
    calibration : Tensor, shape (coils, a, b, c), complex, optional
        Reference lines that are not part of the data: the middle of k-space on the same field of view and axes.
    notes : tuple of str
        What the reader changed or left out, in one line each.

    Raises
    ------
    InvsrError
        When shapes do not fit each other, samples are not complex, not finite or all zero, nothing was measured,
        or axes repeat.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 8, 8, 4, dtype=torch.complex64)
    >>> image[..., 4, 4, 2] = 1
    >>> raw = RawData(torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(image, (2, 3)), dim=(2, 3)), (2, 3)),
    ...     torch.ones(8, 8, 4), Grid.from_spacing((8, 8, 4), (1, 1, 5)), (0, 1), slice_axis=2)
    >>> raw.n_coils, int(raw.measured.sum())
    (1, 256)
    """

    samples: Tensor
    counts: Tensor
    grid: Grid
    axes: tuple[int, ...] = ALL_AXES
    name: str = "k-space"
    slice_axis: int | None = None
    slice_thickness: float | None = None
    noise: Tensor | None = None
    calibration: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, counted = tuple(self.samples.shape), tuple(self.counts.shape)
        if len(shape) != 5 or shape[0] != 1 or shape[2:] != self.grid.shape or counted != self.grid.shape:
            raise InvsrError(
                f"{self.name}: k-space of shape {shape} with counts of shape {counted} does not fit {self.grid}: use "
                "(1, coils, *grid.shape) and grid.shape"
            )
        if not self.samples.is_complex() or self.counts.is_complex():
            raise InvsrError(f"{self.name}: samples of {self.samples.dtype}: k-space is complex, its counts are real")
        axes = tuple(sorted(int(n) for n in self.axes))
        if not axes or not set(axes) <= set(ALL_AXES) or len(set(axes)) < len(axes):
            raise InvsrError(
                f"{self.name}: Fourier axes {tuple(self.axes)}: give one to three different ones of 0, 1, 2"
            )
        object.__setattr__(self, "axes", axes)
        self._check_slices()
        object.__setattr__(self, "counts", self.counts.float())
        measured = self.counts > 0
        if not bool(self.counts.isfinite().all() & (self.counts >= 0).all() & measured.any()):
            raise InvsrError(f"{self.name}: counts of samples must be finite, not below zero, and above it somewhere")
        samples = self.samples.to(torch.complex64)
        # One coil at a time: those of a large volume do not fit into memory twice.
        if any(bool(coil[~measured].any()) for coil in samples[0]):
            samples = torch.where(measured, samples, 0)
        self._check_samples(samples)
        object.__setattr__(self, "samples", samples)
        self._check_coils()

    @classmethod
    def from_array(
        cls,
        samples: npt.ArrayLike | Tensor,
        spacing: float | Sequence[float] | None = None,
        *,
        affine: npt.ArrayLike | None = None,
        axes: Sequence[int] = ALL_AXES,
        counts: npt.ArrayLike | Tensor | None = None,
        name: str = "k-space",
        slice_thickness: float | None = None,
    ) -> RawData:
        """k-space of an array; samples that are exactly 0 in all coils were not measured, unless `counts` tells.

        Parameters
        ----------
        samples : array_like, shape (coils, i, j, k) or (i, j, k), complex
        spacing : float or three, mm, optional
            Voxel spacing of the image of this matrix size, centred in the world.
        affine : array_like, shape (4, 4), optional
            Instead of `spacing`: from voxel indices of the image to world millimetres (RAS+).
        axes, counts, name, slice_thickness
            As of the class; beside two Fourier axes the third lies across slices.

        Raises
        ------
        InvsrError
            When the array has neither three nor four axes or is not complex, or not exactly one of spacing and affine
            is given.
        """
        values = samples.detach().cpu() if isinstance(samples, Tensor) else torch.from_numpy(np.array(samples))
        values = values[None] if values.ndim == 3 else values
        if values.ndim != 4 or not values.is_complex():
            raise InvsrError(
                f"{name}: {values.dtype} of shape {tuple(values.shape)}: k-space is complex, (coils, i, j, k) or "
                "(i, j, k)"
            )
        if (affine is None) == (spacing is None):
            raise InvsrError(f"{name}: give either the voxel spacing in mm or the affine")
        shape = tuple(values.shape[1:])
        grid = Grid.from_spacing(shape, spacing) if spacing is not None else Grid(shape, np.asarray(affine))
        if counts is None:
            taken = (values != 0).any(0)
        else:
            taken = torch.as_tensor(np.asarray(counts))
        left = [n for n in ALL_AXES if n not in axes]
        across = left[0] if len(left) == 1 else None
        return cls(values[None], taken.float(), grid, tuple(axes), name, across, slice_thickness)


def of_matrix(grid: Grid, shape: Sequence[int]) -> Grid:
    """The grid of another matrix size on the same field of view: index ``N // 2`` stays where it is."""
    affine = grid.affine.copy()
    affine[:3, :3] *= np.array(grid.shape) / np.array(shape)
    middle = grid.to_world([n // 2 for n in grid.shape])
    affine[:3, 3] = middle - affine[:3, :3] @ np.array([n // 2 for n in shape], float)
    return Grid(shape, affine)
