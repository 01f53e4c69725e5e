"""Resampling between grids, with motion: rigid, affine, dense displacement.

Linear interpolation is `torch.nn.functional.grid_sample`, cubic is Keys' convolution. Both, and their
adjoints, have derivatives with respect to the volume and to the sampling positions
(`invsr.numerics.interpolation`, the only module that knows `grid_sample`'s axis order).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.cache import StateCache, learnable
from invsr.numerics.interpolation import (
    SLAB,
    Sample,
    extend,
    extend_adjoint,
    extended_shape,
    in_view,
    like_volumes,
    normalised,
    real_volumes,
)
from invsr.numerics.sparse import CachedSparseMatrix, applied
from invsr.operators.base import LinearOperator
from invsr.operators.transforms import MatrixTransform, transform_points

INTERPOLATIONS = ("linear", "cubic")


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
        Distance beyond the outermost voxel centres up to which positions see the volume; the default reaches its faces.

    Raises
    ------
    InvsrError
        When the interpolation is unknown.

    References
    ----------
    Keys (1981), IEEE Trans. Acoust. Speech Signal Process. 29, 1153-1160.

    Examples
    --------
    >>> from invsr.operators import Rigid
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
        self._matrix_cache = CachedSparseMatrix()
        self._position_cache = StateCache(limit=1)

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
        return self._matrix_cache.of(self, self.domain.shape, like, 8 * self.range.size, lambda: self._samples(like))

    def _samples(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        at, inside = self._positions(like)
        self._position_cache = StateCache(limit=1)  # the matrix takes their place
        pairs = zip(torch.split(at.reshape(-1, 1, 3), SLAB), torch.split(inside.reshape(-1, 1), SLAB), strict=True)
        for part, seen in pairs:
            yield part, seen.to(part)

    # Where the samples lie --------------------------------------------------------------------------

    def _positions(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Sampling positions (i, j, k, 3), as `Sample` takes them, and whether they see the volume.

        They are kept for the last device and dtype, unless a gradient is required.
        """
        dtype = like.real.dtype
        if torch.is_grad_enabled() and learnable(self):
            return self._find_positions(like.device, dtype)
        key = (like.device, dtype)
        found: tuple[Tensor, Tensor] = self._position_cache.get(
            self, key, lambda: self._find_positions(like.device, dtype)
        )
        return found

    def _find_positions(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        to_world = torch.tensor(self.range.affine, device=device)
        to_voxel = torch.tensor(np.linalg.inv(self.domain.affine), device=device)
        if isinstance(self.transform, MatrixTransform):
            to_world = self.transform.matrix() @ to_world
        bends = not (self.transform is None or isinstance(self.transform, MatrixTransform))
        first = to_world if bends else to_voxel @ to_world
        size = torch.tensor(self.domain.shape, device=device)
        i, j, k = (torch.arange(n, dtype=torch.float64, device=device)[:, None] for n in self.range.shape)
        found, seen = [], []
        for part in torch.split(i, max(1, SLAB // (len(j) * len(k)))):
            p = (part * first[:3, 0] + first[:3, 3])[:, None, None] + (j * first[:3, 1])[:, None] + k * first[:3, 2]
            if bends:
                p = transform_points(to_voxel, self._moved(p.reshape(-1, 3))).reshape(p.shape)
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
