"""Where voxels lie: a shape and an affine in millimetres (RAS+, nibabel's axis order)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError

Array = npt.NDArray[np.float64]

# Two grids are the same grid when no corner is further apart than this share of a voxel.
SAME_POSITION = 1e-3
# Sine of the largest angle by which two voxel axes may miss being perpendicular. Headers store
# direction cosines in float32 and converters round them, hence not zero.
LARGEST_SHEAR = 5e-3
# Axes are fine whose spacing is less than this many times the finest.
FINE = 1.5


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels in world space.

    Parameters
    ----------
    shape : sequence of 3 int
        Voxels along the array axes i, j, k.
    affine : array_like, shape (4, 4)
        Maps voxel indices to millimetres: ``xyz = affine[:3, :3] @ ijk + affine[:3, 3]``, where
        integer indices are voxel *centres*. Column n belongs to array axis n.

    Raises
    ------
    InvsrError
        When the shape is not three positive counts, or the affine is not finite, singular or sheared.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid((4, 5, 2), np.diag([1.0, 1.0, 5.0, 1.0]))
    >>> grid.refine(1.0).shape
    (4, 5, 10)
    >>> grid.refine(1.0).origin      # the first 1 mm slice is centred 2 mm before the 5 mm one
    array([ 0.,  0., -2.])
    """

    shape: tuple[int, int, int]
    affine: Array

    def __init__(self, shape: Sequence[int], affine: npt.ArrayLike) -> None:
        try:
            counts = tuple(int(n) if int(n) == float(n) else 0 for n in shape)  # 0 is refused
        except (TypeError, ValueError, OverflowError):  # words, NaN and infinity, of a damaged file
            counts = ()
        if len(counts) != 3 or min(counts) < 1:
            raise InvsrError(f"a grid needs three positive voxel counts, not {shape}")
        matrix = np.array(affine, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise InvsrError("the affine is not a finite 4x4 matrix: repair the header's sform/qform")
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if not (lengths.min() > 0 and lengths.max() < np.inf and np.allclose(matrix[3], [0, 0, 0, 1])):
            raise InvsrError(f"the affine has voxel spacing {_mm(lengths)}: every spacing must be above zero")
        cosines = matrix[:3, :3] / lengths
        if abs(np.linalg.det(cosines)) < 1e-6:
            raise InvsrError("the affine is singular (two voxel axes are parallel): repair the header's sform/qform")
        shear = np.abs(cosines.T @ cosines - np.eye(3)).max()
        if shear > LARGEST_SHEAR:
            raise InvsrError(
                f"the affine is sheared: two voxel axes are {np.degrees(np.arcsin(min(shear, 1))):.2f} degrees off "
                "perpendicular; resample the scan onto a rectangular grid first"
            )
        matrix.flags.writeable = False
        object.__setattr__(self, "shape", counts)
        object.__setattr__(self, "affine", matrix)

    @classmethod
    def from_spacing(
        cls,
        shape: Sequence[int],
        spacing: float | Sequence[float],
        *,
        origin: Sequence[float] | None = None,
        centre: Sequence[float] | None = None,
        directions: npt.ArrayLike | None = None,
    ) -> Grid:
        """The grid of a voxel spacing in mm, for arrays that come without an affine.

        Parameters
        ----------
        shape : sequence of 3 int
        spacing : float or sequence of 3 float, mm
            Distance between voxel centres along i, j, k.
        origin : sequence of 3 float, mm, optional
            World position of the centre of voxel (0, 0, 0).
        centre : sequence of 3 float, mm, optional
            World position of the middle of the field of view, instead of `origin`; by default (0, 0, 0).
        directions : array_like, shape (3, 3), optional
            Direction cosines of the voxel axes, one per column; by default along x, y and z (right, anterior,
            superior).

        Raises
        ------
        InvsrError
            When a spacing is not above zero, the directions are not orthogonal unit vectors, or both `origin` and
            `centre` are given.

        Examples
        --------
        >>> Grid.from_spacing((256, 256, 24), (0.9, 0.9, 5.0), origin=(-115, -115, -60))
        Grid(256x256x24, 0.9x0.9x5 mm, origin -115x-115x-60 mm)
        >>> Grid.from_spacing((4, 4, 4), 1.0).centre
        array([0., 0., 0.])
        """
        if origin is not None and centre is not None:
            raise InvsrError("give either the origin of a grid or its centre, not both")
        if len(shape) != 3:
            raise InvsrError(f"a grid needs three positive voxel counts, not {tuple(shape)}")
        axes = np.eye(3) if directions is None else np.asarray(directions, float)
        if axes.shape != (3, 3) or not np.allclose(np.linalg.norm(axes, axis=0), 1, atol=LARGEST_SHEAR):
            raise InvsrError("directions of a grid are three unit vectors, the columns of a 3x3 matrix")
        axes = axes / np.linalg.norm(axes, axis=0)
        affine = np.eye(4)
        affine[:3, :3] = axes * _three(spacing)
        if origin is not None:
            affine[:3, 3] = _position(origin, "origin")
        else:
            middle = np.zeros(3) if centre is None else _position(centre, "centre")
            affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return cls(shape, affine)

    @property
    def spacing(self) -> Array:
        """Distance between voxel centres along each axis, mm, shape (3,)."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def directions(self) -> Array:
        """Unit vector of each voxel axis, one per column, shape (3, 3)."""
        return np.asarray(self.affine[:3, :3] / self.spacing)

    @property
    def origin(self) -> Array:
        """World position of the centre of voxel (0, 0, 0), mm, shape (3,)."""
        return np.asarray(self.affine[:3, 3])

    @property
    def centre(self) -> Array:
        """World position of the middle of the field of view, mm, shape (3,)."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @property
    def extent(self) -> Array:
        """Size of the field of view from outer face to outer face, mm, shape (3,)."""
        return np.asarray(self.spacing * np.array(self.shape))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @property
    def through_plane(self) -> int:
        """The axis of the thickest voxels; the last one where several are equal (within 1 %)."""
        spacing = self.spacing
        return int(np.flatnonzero(spacing > 0.99 * spacing.max())[-1])

    @property
    def fine_axes(self) -> tuple[int, ...]:
        """The axes whose spacing is less than 1.5 times the finest: those within the slices of a thick-slice scan."""
        return tuple(np.flatnonzero(self.spacing < FINE * self.spacing.min()).tolist())

    def to_world(self, ijk: npt.ArrayLike) -> Array:
        """World positions, mm, of voxel indices, both of shape (..., 3)."""
        return np.asarray(np.asarray(ijk, float) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_voxel(self, xyz: npt.ArrayLike) -> Array:
        """Voxel indices (fractional) of world positions in mm, both of shape (..., 3)."""
        offsets = np.asarray(xyz, float) - self.affine[:3, 3]
        return np.asarray(np.linalg.solve(self.affine[:3, :3], offsets[..., None])[..., 0])

    def points(self) -> Array:
        """World positions of all voxel centres, mm, shape (i, j, k, 3)."""
        return self.to_world(np.stack(np.meshgrid(*map(np.arange, self.shape), indexing="ij"), -1))

    def corners(self) -> Array:
        """World positions of the eight outer corners of the field of view, mm, shape (8, 3)."""
        unit = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(8, 3)
        return self.to_world(unit * np.array(self.shape) - 0.5)

    def contains(self, xyz: npt.ArrayLike, atol: float = 1e-6) -> npt.NDArray[np.bool_]:
        """Whether world positions (..., 3) lie in the field of view, faces included (`atol` in voxels)."""
        ijk = self.to_voxel(xyz)
        return np.asarray(((ijk >= -0.5 - atol) & (ijk <= np.array(self.shape) - 0.5 + atol)).all(-1))

    def overlaps(self, other: Grid) -> bool:
        """Whether the two fields of view share a volume (separating-axis test on the two boxes)."""
        gap = other.centre - self.centre
        axes = np.concatenate([self.directions.T, other.directions.T])
        crossed = np.cross(self.directions.T[:, None], other.directions.T[None]).reshape(-1, 3)
        lengths = np.linalg.norm(crossed, axis=1)
        axes = np.concatenate([axes, crossed[lengths > 1e-6] / lengths[lengths > 1e-6, None]])
        reach = np.abs(axes @ (self.directions * self.extent / 2)).sum(1)
        reach += np.abs(axes @ (other.directions * other.extent / 2)).sum(1)
        return bool((np.abs(axes @ gap) < reach - 1e-9).all())

    def part(self, low: Sequence[int], high: Sequence[int]) -> Grid:
        """The grid between two corners in voxels, `high` not included."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(low)
        return Grid([int(b - a) for a, b in zip(low, high, strict=True)], affine)

    def refine(self, spacing: float | Sequence[float]) -> Grid:
        """The grid of another spacing (mm, one or three) that covers this field of view edge to edge.

        The field of view keeps its centre. Where the spacing does not divide the extent, the new grid
        reaches past it by less than one new voxel, half on either side.
        """
        target = _three(spacing)
        exact = self.extent / target
        shape = np.maximum(np.ceil(exact - SAME_POSITION), 1).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = self.directions * target
        affine[:3, 3] = self.centre - affine[:3, :3] @ ((shape - 1) / 2)
        return Grid(tuple(shape), affine)

    def coarsen(self, spacing: float | Sequence[float]) -> Grid:
        """The grid of a coarser spacing (mm, one or three) laid from this one's first outer faces.

        Voxels that would reach past the far faces are left out.
        """
        target = _three(spacing)
        shape = np.floor(self.extent / target + SAME_POSITION).astype(int)
        if shape.min() < 1:
            raise InvsrError(f"voxels of {_mm(target)} do not fit into a field of view of {_mm(self.extent)}")
        affine = np.eye(4)
        affine[:3, :3] = self.directions * target
        affine[:3, 3] = self.to_world(np.full(3, -0.5)) + affine[:3, :3] @ np.full(3, 0.5)
        return Grid(tuple(shape), affine)

    def covering(self, points: npt.ArrayLike, margin: float = 0.0) -> Grid:
        """This grid with as many voxels more, or fewer, on each side as it takes to reach world points (n, 3).

        Voxels stay where they are. `margin`, in mm, is added all round.
        """
        ijk = self.to_voxel(points).reshape(-1, 3)
        reach = margin / self.spacing
        first = np.floor(ijk.min(0) - reach + 0.5 + SAME_POSITION).astype(int)
        last = np.ceil(ijk.max(0) + reach - 0.5 - SAME_POSITION).astype(int)
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(first)
        return Grid(np.maximum(last - first + 1, 1).tolist(), affine)

    def isotropic(self) -> Grid:
        """`refine` to the finest spacing of the three axes."""
        return self.refine(float(self.spacing.min()))

    def axes_in(self, other: Grid) -> tuple[int, int, int] | None:
        """For each axis of this grid, the parallel axis of `other` (either direction); None if oblique to it.

        Parallel means that over this field of view the two directions part by less than 5 % of a voxel.
        """
        cosines = self.directions.T @ other.directions
        order = np.abs(cosines).argmax(1)
        if len(set(order)) < 3:
            return None
        drift = np.sqrt(np.clip(1 - np.abs(cosines).max(1) ** 2, 0, None)) * self.extent / 2
        if (drift > 0.05 * min(self.spacing.min(), other.spacing.min())).any():
            return None
        return int(order[0]), int(order[1]), int(order[2])

    def __eq__(self, other: object) -> bool:
        """Same shape, and corners that agree to a thousandth of a voxel."""
        if not isinstance(other, Grid) or self.shape != other.shape:
            return False
        return bool(np.abs(self.corners() - other.corners()).max() <= SAME_POSITION * self.spacing.min())

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        return f"Grid({'x'.join(map(str, self.shape))}, {_mm(self.spacing)}, origin {_mm(self.origin)})"


def _position(values: Sequence[float], name: str) -> Array:
    position = np.asarray(values, float)
    if position.shape != (3,) or not np.isfinite(position).all():
        raise InvsrError(f"the {name} of a grid is three finite numbers in mm, not {values}")
    return position


def _three(spacing: float | Sequence[float]) -> Array:
    target = np.asarray(spacing, float)
    if target.shape not in ((), (1,), (3,)):
        raise InvsrError(f"spacing {spacing} mm: give one number or three")
    target = np.broadcast_to(target, 3).copy()
    if not (np.isfinite(target).all() and (target > 0).all()):
        raise InvsrError(f"spacing {spacing} mm: every spacing must be above zero")
    return np.asarray(target)


def _mm(values: npt.ArrayLike) -> str:
    return "x".join(f"{v:.4g}" for v in np.ravel(values)) + " mm"
