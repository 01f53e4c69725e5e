"""Maps of world points: rigid, affine, dense displacement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.interpolation import Sample, normalised


class MatrixTransform(nn.Module):
    """A transform that is a (4, 4) matrix on world points."""

    def matrix(self) -> Tensor:
        """T on world points, float64."""
        raise TypeError(f"{type(self).__name__} does not define matrix()")

    def forward(self, points: Tensor) -> Tensor:
        return transform_points(self.matrix(), points)


class Rigid(MatrixTransform):
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


class Affine(MatrixTransform):
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
        at = normalised(transform_points(matrix, points.double()), self.grid.shape)
        moved: Tensor = Sample.apply(self.field[None], at.to(self.field.dtype)[:, None, None], False, None)
        return points + moved[0, :, :, 0, 0].mT.to(points.dtype)


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


def transform_points(matrix: Tensor, points: Tensor) -> Tensor:
    """World points, shape (..., 3), under a (4, 4) matrix."""
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
