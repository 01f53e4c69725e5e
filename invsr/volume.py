"""A scalar image in world space: its voxels as a tensor, and where they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image in world space.

    Parameters
    ----------
    data : Tensor, shape (1, 1, *grid.shape)
        Real intensities; kept as float32.
    grid : Grid
    name : str
        What messages call it: the file's name.
    slice_thickness, slice_spacing : float, optional
        Thickness of the slices and distance of their centres as the scanner reports them, mm.
    form_code : int
        NIfTI's code for the space the affine leads to (1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    slice_times : tuple of float, optional
        When each slice was acquired, seconds.
    slice_axis : {0, 1, 2}, optional
        The array axis across the slices, where the file says so.

    Raises
    ------
    InvsrError
        When the data do not fit the grid or are complex.

    Examples
    --------
    >>> import numpy as np, torch
    >>> volume = Volume(torch.zeros(1, 1, 4, 5, 2), Grid((4, 5, 2), np.diag([1, 1, 5, 1])))
    >>> volume.with_data(volume.data + 1).numpy().sum()
    np.float32(40.0)
    """

    data: Tensor
    grid: Grid
    name: str = "volume"
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    form_code: int = 1
    slice_times: tuple[float, ...] | None = None
    slice_axis: int | None = None

    def __post_init__(self) -> None:
        if tuple(self.data.shape) != (1, 1, *self.grid.shape):
            shape = tuple(self.data.shape)
            raise InvsrError(f"{self.name}: data of shape {shape} do not fit {self.grid}: use (1, 1, *grid.shape)")
        if self.data.is_complex():
            raise InvsrError(f"{self.name}: complex data: take the magnitude or one part first")
        object.__setattr__(self, "data", self.data.float())

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike | Tensor,
        spacing: float | Sequence[float] | None = None,
        *,
        affine: npt.ArrayLike | None = None,
        name: str = "volume",
        slice_thickness: float | None = None,
    ) -> Volume:
        """A volume of an array of any real type.

        Parameters
        ----------
        array : array_like, shape (i, j, k)
            Intensities.
        spacing : float or three, mm, optional
            Between voxel centres; axes then point right, anterior and superior, and the world's origin is the middle
            of the field of view.
        affine : array_like, shape (4, 4), optional
            Instead of `spacing`: from voxel indices to world millimetres (RAS+), as nibabel gives it.
        name : str
            What messages call it.
        slice_thickness : float, mm, optional

        Raises
        ------
        InvsrError
            When the array is not three-dimensional or complex, or not exactly one of spacing and affine is given.

        Examples
        --------
        >>> Volume.from_array(np.ones((4, 5, 2), np.uint16), spacing=(1, 1, 5)).grid
        Grid(4x5x2, 1x1x5 mm, origin -1.5x-2x-2.5 mm)
        """
        values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        if values.ndim != 3:
            raise InvsrError(f"{name}: an array of shape {values.shape}: a volume has three axes (i, j, k)")
        if np.iscomplexobj(values):
            raise InvsrError(f"{name}: complex data: take the magnitude or one part first")
        if affine is not None and spacing is None:
            grid = Grid(values.shape, affine)
        elif spacing is not None and affine is None:
            grid = Grid.from_spacing(values.shape, spacing)
        else:
            raise InvsrError(f"{name}: give either the voxel spacing in mm or the affine")
        data = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        return cls(data[None, None], grid, name, slice_thickness)

    def to(self, device: torch.device | str) -> Volume:
        """The same volume with its data on `device`."""
        return dataclasses.replace(self, data=self.data.to(device))

    def with_data(self, data: Tensor, grid: Grid | None = None) -> Volume:
        """The same volume with other data; on another grid the slices of the scan no longer exist."""
        if grid is None:
            return dataclasses.replace(self, data=data)
        no_slices = {"slice_thickness": None, "slice_spacing": None, "slice_times": None, "slice_axis": None}
        return dataclasses.replace(self, data=data, grid=grid, **no_slices)  # type: ignore[arg-type]  # by name

    def numpy(self) -> npt.NDArray[np.float32]:
        """The data as an array of shape (i, j, k), on the CPU."""
        return np.asarray(self.data.detach().cpu().numpy()[0, 0])


def require_signal(volume: Volume) -> None:
    """Raise unless the intensities are finite and differ somewhere; masks and phantoms need not pass, scans must."""
    low, high = volume.data.aminmax()  # NaN where any voxel is
    if not bool(low.isfinite() & high.isfinite()):
        count = int((~volume.data.isfinite()).sum())
        raise InvsrError(f"{volume.name}: {count} of its voxels are NaN or infinite: replace them")
    if bool(low == high):
        raise InvsrError(f"{volume.name}: every voxel is {float(low):g}: there is nothing to reconstruct from it")
