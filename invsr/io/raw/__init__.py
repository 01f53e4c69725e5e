"""k-space files: ISMRMRD, fastMRI, BART and numpy's arrays, read as `RawData` or `NonCartesianData`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy.typing as npt
from torch import Tensor

from invsr.errors import InvsrError
from invsr.io.formats import require_readable
from invsr.io.raw.arrays import read_array
from invsr.io.raw.cfl import read_cfl
from invsr.io.raw.fastmri import read_fastmri
from invsr.io.raw.guard import opened, reading
from invsr.io.raw.mrd import is_mrd, read_mrd
from invsr.io.raw.trajectory import Placement, holds_trajectory, read_along, read_archive
from invsr.noncartesian import NonCartesianData
from invsr.raw import ALL_AXES, RawData

__all__ = ["is_raw", "load_maps", "load_raw"]

HDF5, ARRAYS, BART = (".h5", ".hdf5", ".mrd"), (".npy", ".npz"), (".cfl", ".hdr")


def is_raw(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is one of k-space; a .hdr is one if a .cfl lies beside it, else half of a NIfTI pair."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".hdr":
        return path.with_suffix(".cfl").exists()
    return ending in (*HDF5, *ARRAYS, ".cfl")


def load_raw(
    path: str | os.PathLike[str],
    *,
    spacing: float | Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    axes: Sequence[int] | None = None,
    slice_thickness: float | None = None,
    index: int | None = None,
    n_coil_axes: int | None = None,
    trajectory: str | os.PathLike[str] | None = None,
    matrix: Sequence[int] | None = None,
) -> RawData | NonCartesianData:
    """Read k-space: ISMRMRD and fastMRI (.h5, .hdf5, .mrd), BART (.cfl with .hdr), or an array (.npy, .npz).

    ISMRMRD says where its voxels lie, fastMRI how large they are; of the others the caller tells. What the reader
    changed or left out is in `notes`.

    Radial and spiral k-space becomes `NonCartesianData`: lines of ISMRMRD that hold their trajectory; arrays and BART's
    files with the trajectory in a file beside them; a .npz of the arrays `samples`, `trajectory`, and `spacing` or
    `affine`.

    Parameters
    ----------
    path : str or path
    spacing : float or three, mm, optional
        Voxel spacing of the image, which is centred in the world; not of ISMRMRD.
    affine : array_like, shape (4, 4), optional
        From voxel indices of the image to world millimetres (RAS+), instead of the spacing or of what the file says.
        Where readout oversampling is removed, of the image without it.
    axes : sequence of {0, 1, 2}, optional
        Fourier axes of arrays and BART's files; by default all that have more than one sample.
    slice_thickness : float, mm, optional
        Instead of what the file says.
    index : int, optional
        Which image of an ISMRMRD file of several contrasts, repetitions, sets or cardiac phases, counted from 0.
    n_coil_axes : {0, 1}, optional
        Whether the first axis of an array is one of coils. By default it is one of four axes, and of three if it is
        the shortest and of 128 at most.
    trajectory : str or path, optional
        In cycles per field of view. Beside a .cfl file of 1 x readout x shots x coils, one of 3 x readout x shots, as
        BART's `traj` writes it; beside a .npy file of (coils, readout, shots) or (coils, readout, shots, slices), one
        of (readout, shots, 2 or 3).
    matrix : two or three of int, optional
        Voxels of the image along the axes of such a trajectory; by default the smallest even numbers that hold it, and
        a note says what field of view follows.

    Raises
    ------
    InvsrError
        When the file cannot be used, an option does not belong to its format, or a package is missing.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> kspace = np.ones((8, 64, 48), np.complex64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/slice.npy", kspace)
    ...     raw = load_raw(folder + "/slice.npy", spacing=(1, 1, 5))
    >>> raw.n_coils, raw.axes, raw.grid.shape
    (8, (0, 1), (64, 48, 1))
    """
    path = Path(path)
    ending = path.suffix.lower()
    options = {"spacing": spacing, "axes": axes, "index": index, "n_coil_axes": n_coil_axes}
    if trajectory is not None or (ending == ".npz" and holds_trajectory(path)):
        if ending not in (*ARRAYS, *BART):
            raise InvsrError(f"{path}: a trajectory beside it has no meaning for a file of this kind: leave it out")
        _require_unused(path, options, "axes", "index", "n_coil_axes")
        placed = Placement(spacing, affine, matrix, slice_thickness)
        return read_archive(path, placed) if trajectory is None else read_along(path, Path(trajectory), placed)
    if matrix is not None:
        raise InvsrError(
            f"{path}: a matrix (command line: --raw-matrix) is chosen for a trajectory only, beside arrays or BART's "
            "files: leave it out"
        )
    if ending in ARRAYS:
        _require_unused(path, options, "index")
        return read_array(
            path,
            spacing=spacing,
            affine=affine,
            axes=axes,
            slice_thickness=slice_thickness,
            n_coil_axes=n_coil_axes,
        )
    if ending in BART:
        _require_unused(path, options, "index", "n_coil_axes")
        return read_cfl(path, spacing=spacing, affine=affine, axes=axes, slice_thickness=slice_thickness)
    if ending not in HDF5:
        known = ", ".join((*HDF5, *BART, *ARRAYS))
        raise InvsrError(f"{path}: is no file of k-space that is read ({known}): convert it first (to ISMRMRD)")
    require_readable(path)
    with reading(path), opened(path) as file:
        lines, kspace = is_mrd(file), "kspace" in file
        held = ", ".join(list(file)[:10]) or "nothing"
    if not lines and not kspace:
        raise InvsrError(
            f"{path}: holds {held}: neither lines of ISMRMRD (xml, data) nor fastMRI's kspace: convert it to one first"
        )
    if lines:
        _require_unused(path, options, "spacing", "axes", "n_coil_axes")
        return read_mrd(path, affine=affine, slice_thickness=slice_thickness, index=index)
    _require_unused(path, options, "axes", "index", "n_coil_axes")
    return read_fastmri(path, spacing=spacing, affine=affine, slice_thickness=slice_thickness)


def load_maps(path: str | os.PathLike[str]) -> Tensor:
    """Coil sensitivities (coils, i, j, k) from an array (.npy, .npz) or a .cfl; as `load_raw`."""
    return load_raw(path, spacing=1.0, axes=ALL_AXES).samples[0]


def _require_unused(path: Path, options: Mapping[str, object], *names: str) -> None:
    """An option that the format has no use for is an error."""
    given = [name for name in names if options[name] is not None]
    if given:
        raise InvsrError(f"{path}: {', '.join(given)} cannot be chosen for a file of this kind: leave it out")
