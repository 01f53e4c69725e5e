"""Slices of a volume, each with a rigid motion of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.interpolation import Sample, in_view, like_volumes, normalised, real_volumes
from invsr.numerics.sparse import CachedSparseMatrix, applied
from invsr.operators.base import LinearOperator
from invsr.operators.profiles import AxisProfile, sampled_matrix
from invsr.operators.transforms import rigid_matrices

# Sampling points that are worked on at a time, to bound memory.
POINTS = 1 << 20
# Planes of a profile that weigh less than this share of the heaviest are left out.
LEAST_PLANE_WEIGHT = 5e-3


class Slices(LinearOperator):
    """Means over the slice profile along each slice's own normal, with a rigid motion for each slice.

    .. code-block:: text

        y[i, j, s] = sum_m w_m x(T_s(p_ijs + o_m n))

    with p the world position of a pixel, n the unit normal of the slices and w_m, o_m the profile in planes. Pixels are
    point samples: compose with a `Sampling` where they are larger than voxels. Between voxels the volume is linear.
    Samples that see half of their weight or more are normalised, others are 0.

    Parameters
    ----------
    domain, range : Grid
        Any two; slices lie across `through_plane` of `range`.
    profile : AxisProfile
    motion : array_like, shape (n_slices, 6), optional
        Rotation vectors in radians and translations in mm, as in `Rigid`; by default nothing moves. An
        ``nn.Parameter``: ``requires_grad_()`` makes it learnable.
    centre : array_like, shape (3,), mm, optional
        World point about which slices rotate; by default the middle of `range`.
    through_plane : {0, 1, 2}, optional
        Axis of `range` along which the slices are stacked; the one of the largest spacing by default.
    planes : float, mm, optional
        Distance between the planes that sample the profile; the smallest voxel spacing by default.
    reach : float, voxels
        Distance beyond the outermost voxel centres up to which samples see the volume; the default reaches its faces.

    Raises
    ------
    InvsrError
        When there is not one finite motion for each slice.

    References
    ----------
    Gholipour, Estroff, Warfield (2010), IEEE Trans. Med. Imaging 29, 1739-1758.
    Kuklisova-Murgasova et al. (2012), Med. Image Anal. 16, 1550-1564.

    Examples
    --------
    >>> from invsr.operators.profiles import profile_samples
    >>> volume = Grid((8, 8, 12), np.eye(4))
    >>> A = Slices(volume, volume.coarsen((1, 1, 4)), AxisProfile(*profile_samples("gaussian"), 4.0))
    >>> A(torch.ones(1, 1, 8, 8, 12))[0, 0, 0, 0].tolist()
    [1.0, 1.0, 1.0]
    """

    motion: nn.Parameter
    centre: Tensor
    offsets: Tensor
    weights: Tensor

    def __init__(
        self,
        domain: Grid,
        range: Grid,
        profile: AxisProfile,
        motion: Tensor | npt.ArrayLike | None = None,
        *,
        centre: Tensor | npt.ArrayLike | None = None,
        through_plane: int | None = None,
        planes: float | None = None,
        reach: float = 0.5,
    ) -> None:
        super().__init__(domain, range)
        self.axis = range.through_plane if through_plane is None else through_plane
        self.reach = reach
        n_slices = range.shape[self.axis]
        moved = torch.zeros(n_slices, 6) if motion is None else torch.as_tensor(motion).detach()
        if tuple(moved.shape) != (n_slices, 6) or not bool(moved.isfinite().all()):
            raise InvsrError(
                f"motion of shape {tuple(moved.shape)} for {n_slices} slices: give six finite numbers for each "
                "(rotation in radians, translation in mm)"
            )
        self.motion = nn.Parameter(moved.to(torch.float64, copy=True), requires_grad=False)
        self.register_buffer("centre", torch.as_tensor(range.centre if centre is None else centre, dtype=torch.float64))
        offsets, weights = _planes(profile, planes or float(domain.spacing.min()))
        self.register_buffer("offsets", offsets / float(range.spacing[self.axis]))  # in slices
        self.register_buffer("weights", weights)
        self._matrix_cache = CachedSparseMatrix()

    def _forward(self, x: Tensor) -> Tensor:
        volumes = real_volumes(x)
        matrix = self._matrix(x)
        if matrix is None:
            parts = ((Sample.apply(volumes, at, False, None) * share).sum(-1) for _, at, share in self.parts(x))
            y = torch.cat(list(parts), 2)
        else:
            y = applied(matrix, volumes)
        a, b = self.in_plane
        y = y.reshape(1, -1, self.range.shape[self.axis], self.range.shape[a], self.range.shape[b])
        return like_volumes(y.movedim(2, 2 + self.axis), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        a, b = self.in_plane
        matrix = self._matrix(y)
        rows = real_volumes(y).movedim(2 + self.axis, 2)
        if matrix is not None:
            return like_volumes(applied(matrix.T, rows).reshape(1, -1, *self.domain.shape), y)
        rows = rows.reshape(1, rows.shape[1], -1, self.range.shape[b])
        total: Tensor | float = 0.0
        for slices, at, share in self.parts(y):
            part = rows[:, :, slices.start * self.range.shape[a] : slices.stop * self.range.shape[a]]
            total = total + Sample.apply(part[..., None] * share, at, False, self.domain.shape)
        return like_volumes(total, y)  # type: ignore[arg-type]  # there is at least one slice

    def _matrix(self, like: Tensor) -> Any:
        """A as a sparse matrix, rows slice by slice, once it is used often; else None."""
        entries = self.range.size * len(self.offsets) * 8
        return self._matrix_cache.of(
            self,
            self.domain.shape,
            like,
            entries,
            lambda: ((at.flatten(0, 1), w.flatten(0, 1)) for _, at, w in self.parts(like)),
        )

    @property
    def in_plane(self) -> tuple[int, int]:
        """The two range axes within slices."""
        a, b = (n for n in (0, 1, 2) if n != self.axis)
        return a, b

    def matrices(self) -> Tensor:
        """Each slice's motion on world points, shape (n_slices, 4, 4), float64."""
        return rigid_matrices(self.motion, self.centre)

    def parts(self, like: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """A few slices at a time: which, where in the volume (rows, columns, planes, 3), and each plane's weight."""
        a, b = self.in_plane
        size = torch.tensor(self.domain.shape, device=like.device)
        n_slices, rows, columns = (self.range.shape[n] for n in (self.axis, a, b))
        at_once = max(1, POINTS // (rows * columns * len(self.offsets)))
        to_voxel = torch.tensor(np.linalg.inv(self.domain.affine), device=like.device)
        to_world = torch.tensor(self.range.affine, device=like.device)
        dtype = like.real.dtype
        matrices = (to_voxel @ self.matrices() @ to_world)[:, :3].to(dtype)
        weights = self.weights.to(dtype)
        i, j = (torch.arange(n, dtype=dtype, device=like.device)[:, None] for n in (rows, columns))
        for first in torch.arange(0, n_slices, at_once).tolist():
            slices = slice(first, min(first + at_once, n_slices))
            index = torch.arange(slices.start, slices.stop, dtype=dtype, device=like.device)
            m = matrices[slices].mT[:, :, None]  # (slice, column of the affine, 1, 3)
            across = (index[:, None] + self.offsets.to(dtype))[..., None]
            p = (i * m[:, a])[:, :, None, None] + (j * m[:, b])[:, None, :, None]
            p = p + (across * m[:, self.axis] + m[:, 3])[:, None, None]
            inside = in_view(p, size, self.reach)
            share = inside * weights
            kept = share.sum(-1, keepdim=True)
            share = torch.where(kept > 0.5, share / kept.clamp(min=0.5), 0.0)
            yield slices, normalised(p, self.domain.shape).flatten(0, 1), share.flatten(0, 1)


def _planes(profile: AxisProfile, spacing: float) -> tuple[Tensor, Tensor]:
    """Offsets in mm and weights of planes `spacing` apart that stand for a profile; what hardly weighs is left out."""
    offsets = profile.offsets.double() * profile.width
    reach = math.ceil(float(offsets.abs().max()) / spacing) + 2
    middle = torch.tensor([reach * spacing], dtype=torch.float64)
    weights = sampled_matrix(2 * reach + 1, spacing, middle, offsets, profile.weights.double())[0]
    at = (torch.arange(2 * reach + 1, dtype=torch.float64) - reach) * spacing
    heavy = torch.nonzero(weights.abs() >= LEAST_PLANE_WEIGHT * weights.abs().max())[:, 0]
    kept = slice(int(heavy[0]), int(heavy[-1]) + 1)
    return at[kept], weights[kept] / weights[kept].sum()
