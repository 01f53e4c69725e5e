"""Resampling between grids, with motion: rigid, affine, dense displacement.

Linear interpolation is `torch.nn.functional.grid_sample`, cubic is Keys' convolution. Both, and their
adjoints, have derivatives with respect to the volume and to the sampling positions
(`invsr.operators.interpolate`, the only module that knows `grid_sample`'s axis order).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators.base import LinearOperator, TensorState
from invsr.operators.interpolate import SLAB, Sample, extend, extend_adjoint, extended_shape, in_view, normalised
from invsr.operators.kept import KeptMatrix, applied

INTERPOLATIONS = ("linear", "cubic")


class _Matrix(nn.Module):
    """A transform that is a (4, 4) matrix on world points."""

    def matrix(self) -> Tensor:
        """T on world points, float64."""
        raise TypeError(f"{type(self).__name__} does not define matrix()")

    def forward(self, points: Tensor) -> Tensor:
        return _transformed(self.matrix(), points)


class Rigid(_Matrix):
    """Rotation about a centre, then translation: ``T(p) = R (p - c) + c + t``.

    Maps points of the *range* (scan) space to points of the domain (volume) space, mm.

    Parameters
    ----------
    motion : array_like, shape (6,)
        Rotation vector in radians (its direction is the axis, its length the angle; right-handed),
        then translation in mm. An ``nn.Parameter``; `requires_grad_()` makes it learnable.
    centre : array_like, shape (3,), mm
        World point about which to rotate: the grid's `centre` keeps rotation and translation apart.

    Examples
    --------
    >>> turn = Rigid([0, 0, torch.pi / 2, 10, 0, 0])
    >>> turn(torch.tensor([[1.0, 0.0, 0.0]])).round(decimals=6).tolist()
    [[10.0, 1.0, 0.0]]
    """

    motion: nn.Parameter
    centre: Tensor

    def __init__(self, motion: Tensor | npt.ArrayLike, centre: Tensor | npt.ArrayLike = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.motion = _parameter(motion, (6,), "rigid motion (rotation in radians, translation in mm)")
        self.register_buffer("centre", _parameter(centre, (3,), "centre of rotation in mm").data)

    def matrix(self) -> Tensor:
        return rigid_matrices(self.motion, self.centre)


class Affine(_Matrix):
    """Any affine map: ``T(p) = M p + t``, from points of the *range* (scan) space to the domain (volume) space, mm.

    Parameters
    ----------
    coefficients : array_like, 12 values or shape (3, 4)
        M and, in the last column, t in mm. An ``nn.Parameter``.
    """

    coefficients: nn.Parameter

    def __init__(self, coefficients: Tensor | npt.ArrayLike) -> None:
        super().__init__()
        values = torch.as_tensor(coefficients)
        values = values.reshape(3, 4) if values.numel() == 12 else values
        self.coefficients = _parameter(values, (3, 4), "affine map (matrix, then translation in mm)")

    def matrix(self) -> Tensor:
        wide = self.coefficients.double()
        return _homogeneous(wide[:, :3], wide[:, 3])


class Displacement(nn.Module):
    """Dense displacement: ``T(p) = p + u(p)``, from points of the *range* (scan) space to the domain space, mm.

    Parameters
    ----------
    grid : Grid
        On which u is given, any; between its voxels u is linear, beyond its field of view it keeps the
        value at the nearest edge.
    field : Tensor, shape (3, *grid.shape), mm
        World components (x, y, z) of u. An ``nn.Parameter``.
    """

    field: nn.Parameter

    def __init__(self, grid: Grid, field: Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.field = _parameter(field, (3, *grid.shape), "displacement field in mm", torch.as_tensor(field).dtype)

    def forward(self, points: Tensor) -> Tensor:
        matrix = torch.tensor(np.linalg.inv(self.grid.affine), device=points.device)
        at = normalised(_transformed(matrix, points.double()), self.grid.shape)
        moved: Tensor = Sample.apply(self.field[None], at.to(self.field.dtype)[:, None, None], False, None)
        return points + moved[0, :, :, 0, 0].mT.to(points.dtype)


class Resample(LinearOperator):
    """Values of a volume at the (moved) positions of another grid's voxels.

    ``y[m] = x(T(p_m))`` with p_m the world position of range voxel m. Positions outside the domain's
    field of view give 0. Between the outermost voxel centres and the faces of the field of view the edge
    is replicated, so that a constant stays constant up to the faces.

    Parameters
    ----------
    domain, range : Grid
        Any two; where they do not overlap the result is zero.
    transform : nn.Module, optional
        T, from points of the *range* (scan) space to points of the domain (volume) space: takes and
        returns world points, mm, shape (N, 3), float64. `Rigid`, `Affine`, `Displacement`, an
        ``nn.Sequential`` of them (first one first) or any other; by default nothing moves.
    interpolation : {"linear", "cubic"}
    reach : float, voxels
        How far beyond the outermost voxel centres positions see the volume: to its faces, by default.

    Raises
    ------
    InvsrError
        When the interpolation is unknown.

    References
    ----------
    Keys (1981), IEEE Trans. Acoust. Speech Signal Process. 29, 1153-1160.

    Examples
    --------
    >>> grid = Grid((3, 3, 3), np.eye(4))
    >>> A = Resample(grid, grid, Rigid([0, 0, 0, 1, 0, 0]))    # reads the volume 1 mm further along x
    >>> A(torch.arange(27.0).reshape(1, 1, 3, 3, 3))[0, 0, :, 0, 0].tolist()
    [9.0, 18.0, 0.0]
    """

    def __init__(
        self,
        domain: Grid,
        range: Grid,
        transform: nn.Module | None = None,
        interpolation: str = "linear",
        reach: float = 0.5,
    ) -> None:
        super().__init__(domain, range)
        if interpolation not in INTERPOLATIONS:
            raise InvsrError(f"unknown interpolation {interpolation!r}: use one of {', '.join(INTERPOLATIONS)}")
        self.transform = transform
        self.interpolation = interpolation
        self.reach = reach
        self._cache: dict[Any, tuple[Tensor, Tensor]] = {}
        self._kept = KeptMatrix()

    def _forward(self, x: Tensor) -> Tensor:
        volumes, cubic = real_volumes(x), self.interpolation == "cubic"
        matrix = self._matrix(x)
        if matrix is not None:
            return like_volumes(applied(matrix, volumes).reshape(1, -1, *self.range.shape), x)
        at, inside = self._positions(x)
        values = Sample.apply(extend(volumes) if cubic else volumes, at, cubic, None)
        return like_volumes(torch.where(inside, values, 0), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        shape, cubic = self.domain.shape, self.interpolation == "cubic"
        matrix = self._matrix(y)
        if matrix is not None:
            return like_volumes(applied(matrix.T, real_volumes(y)).reshape(1, -1, *shape), y)
        at, inside = self._positions(y)
        values = torch.where(inside, real_volumes(y), 0)
        volumes = Sample.apply(values, at, cubic, extended_shape(shape) if cubic else shape)
        return like_volumes(extend_adjoint(volumes, shape) if cubic else volumes, y)

    def _matrix(self, like: Tensor) -> Any:
        """A as a sparse matrix once it is used often; else None."""
        if self.interpolation == "cubic":  # 64 entries in each row
            return None
        return self._kept.of(self, like, 8 * self.range.size, lambda: self._samples(like))

    def _samples(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        at, inside = self._positions(like)
        self._cache = {}
        pairs = zip(torch.split(at.reshape(-1, 1, 3), SLAB), torch.split(inside.reshape(-1, 1), SLAB), strict=True)
        for part, seen in pairs:
            yield part, seen.to(part)

    # Where the samples lie --------------------------------------------------------------------------

    def _positions(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling positions (i, j, k, 3), as `Sample` takes them, and whether they see the volume.

        Kept from call to call, for the last device and dtype only, unless a derivative is asked for.
        """
        dtype = like.real.dtype
        tensors = [*self.parameters(), *self.buffers()]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return self._find_positions(like.device, dtype)
        state = (like.device, dtype, TensorState(self))
        if state not in self._cache:
            with torch.inference_mode(False), torch.no_grad():
                self._cache = {state: self._find_positions(like.device, dtype)}
        return self._cache[state]

    def _find_positions(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        to_world = torch.tensor(self.range.affine, device=device)
        to_voxel = torch.tensor(np.linalg.inv(self.domain.affine), device=device)
        if isinstance(self.transform, _Matrix):
            to_world = self.transform.matrix() @ to_world
        bends = not (self.transform is None or isinstance(self.transform, _Matrix))
        first = to_world if bends else to_voxel @ to_world
        size = torch.tensor(self.domain.shape, device=device)
        i, j, k = (torch.arange(n, dtype=torch.float64, device=device)[:, None] for n in self.range.shape)
        found, seen = [], []
        for part in torch.split(i, max(1, SLAB // (len(j) * len(k)))):
            p = (part * first[:3, 0] + first[:3, 3])[:, None, None] + (j * first[:3, 1])[:, None] + k * first[:3, 2]
            if bends:
                p = _transformed(to_voxel, self._moved(p.reshape(-1, 3))).reshape(p.shape)
            seen.append(in_view(p, size, self.reach))
            found.append((p if self.interpolation == "cubic" else normalised(p, self.domain.shape)).to(dtype))
        return torch.cat(found), torch.cat(seen)

    def _moved(self, points: Tensor) -> Tensor:
        moved: Tensor = self.transform(points)  # type: ignore[misc]  # only called where there is one
        if moved.shape != points.shape:
            raise InvsrError(
                f"the transform turned world points of shape {tuple(points.shape)} into {tuple(moved.shape)}: "
                "it must return one world point per point"
            )
        return moved.double()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}


def rigid_matrices(motion: Tensor, centre: Tensor) -> Tensor:
    """Matrices (..., 4, 4) of ``T(p) = R (p - c) + c + t``, float64.

    Parameters
    ----------
    motion : Tensor, shape (..., 6)
        Rotation vectors in radians, then translations in mm.
    centre : Tensor, shape (3,), mm
    """
    motion, centre = motion.double(), centre.double()
    x, y, z = motion[..., :3].unbind(-1)
    o = torch.zeros_like(x)
    skew = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*motion.shape[:-1], 3, 3)
    rotation = torch.linalg.matrix_exp(skew)
    return _homogeneous(rotation, centre + motion[..., 3:] - rotation @ centre)


def real_volumes(x: Tensor) -> Tensor:
    """(batch, channel, i, j, k), real or complex, as one batch of real channels."""
    parts = torch.stack([x.real, x.imag]) if x.is_complex() else x
    return parts.reshape(1, -1, *x.shape[2:])


def like_volumes(volumes: Tensor, x: Tensor) -> Tensor:
    """Undo `real_volumes`."""
    shape = (*x.shape[:2], *volumes.shape[2:])
    if x.is_complex():
        return torch.complex(*volumes.reshape(2, *shape).unbind(0))
    return volumes.reshape(shape)


def _transformed(matrix: Tensor, points: Tensor) -> Tensor:
    matrix = matrix.to(points.dtype)
    return points @ matrix[:3, :3].mT + matrix[:3, 3]


def _homogeneous(linear: Tensor, shift: Tensor) -> Tensor:
    bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=linear.dtype, device=linear.device)
    upper = torch.cat([linear, shift[..., None]], -1)
    return torch.cat([upper, bottom.expand(*shift.shape[:-1], 1, 4)], -2)


def _parameter(
    values: Tensor | npt.ArrayLike, shape: tuple[int, ...], what: str, dtype: torch.dtype = torch.float64
) -> nn.Parameter:
    tensor = torch.as_tensor(values).detach().to(dtype, copy=True)
    if tuple(tensor.shape) != shape:
        raise InvsrError(f"{what} takes shape {shape}, not {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise InvsrError(f"{what} holds values that are not finite: check the registration it came from")
    return nn.Parameter(tensor, requires_grad=False)
