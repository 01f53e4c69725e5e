"""Two grids: overlap, axes in common, equality."""

import numpy as np
import pytest
from random_grids import SEEDS, diagonal, random_grid, rotation, upright

from invsr.grid import SAME_POSITION, Grid


def distance(a, b, n_iter=20_000):
    """Gap between two boxes, mm, by alternating projections."""

    def nearest(grid, xyz):
        return grid.to_world(np.clip(grid.to_voxel(xyz), -0.5, np.array(grid.shape) - 0.5))

    x = nearest(a, b.centre)
    for _ in range(n_iter):
        y = nearest(b, x)
        moved, x = x, nearest(a, y)
        if np.linalg.norm(moved - x) < 1e-10:
            break
    return np.linalg.norm(x - y)


@pytest.mark.parametrize("turn", [rotation, upright])
def test_overlap_against_projections_and_points(turn):
    seen = {True: 0, False: 0}
    for seed in range(60):
        a, b = random_grid(seed, turn), random_grid(seed + 1000, turn)
        towards = np.random.default_rng(seed).standard_normal(3)
        towards /= np.linalg.norm(towards)
        # Around the distance at which they part.
        reach = np.linalg.norm(a.extent) / 2 + np.linalg.norm(b.extent) / 2
        affine = b.affine.copy()
        affine[:3, 3] += a.centre - b.centre + towards * reach * np.random.default_rng(seed).uniform(0.1, 0.8)
        b = Grid(b.shape, affine)
        found = a.overlaps(b)
        assert found == b.overlaps(a)
        if a.contains(b.refine(b.extent / 12).points()).any():
            assert found
        gap = distance(a, b)
        if gap < 1e-7 or gap > 1e-3:
            assert found == (gap < 1e-7), (seed, gap)
            seen[found] += 1
    assert min(seen.values()) > 10


def test_boxes_crossed_without_a_corner_in_the_other_overlap():
    long_x = diagonal(10, 1, 1, shape=(9, 1, 1), origin=(-40, 0, 0))
    long_y = diagonal(1, 10, 1, shape=(1, 9, 1), origin=(0, -40, 0))
    assert not long_x.contains(long_y.corners()).any() and not long_y.contains(long_x.corners()).any()
    assert long_x.overlaps(long_y)


def test_touching_faces_do_not_overlap():
    a = diagonal(1, 1, 1)
    assert not a.overlaps(diagonal(1, 1, 1, origin=(4, 0, 0)))
    assert a.overlaps(diagonal(1, 1, 1, origin=(3.99, 0, 0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_axes_in_finds_permutations_and_flips(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(seed)
    order = rng.permutation(3)
    affine = np.eye(4)
    affine[:3, :3] = grid.directions[:, order] * rng.choice([-1, 1], 3) * rng.uniform(0.5, 3, 3)
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    other = Grid((5, 6, 7), affine)
    # Column n of `other` is axis order[n] of `grid`.
    assert other.axes_in(grid) == tuple(order)
    assert grid.axes_in(other) == tuple(np.argsort(order))


@pytest.mark.parametrize("seed", SEEDS)
def test_axes_in_refuses_oblique_grids_and_forgives_rounding(seed):
    grid = random_grid(seed)

    def turned(degrees):
        angle = np.radians(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine = grid.affine.copy()
        affine[:3, :3] = affine[:3, :3] / grid.spacing @ turn * grid.spacing
        return Grid(grid.shape, affine)

    assert grid.axes_in(turned(1e-5)) == (0, 1, 2)
    assert grid.axes_in(Grid(grid.shape, grid.affine.astype(np.float32))) == (0, 1, 2)
    # A voxel's twentieth over the longest of the two turned axes.
    limit = np.degrees(np.arcsin(min(1, 0.05 * grid.spacing.min() / (grid.extent[:2].max() / 2))))
    assert grid.axes_in(turned(0.9 * limit)) == (0, 1, 2)
    assert grid.axes_in(turned(1.1 * limit)) is None
    assert grid.axes_in(turned(45)) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_equality_holds_to_a_thousandth_of_a_voxel(seed):
    grid = random_grid(seed)

    def shifted(mm):
        affine = grid.affine.copy()
        affine[0, 3] += mm
        return Grid(grid.shape, affine)

    step = SAME_POSITION * grid.spacing.min()
    assert grid == shifted(0.9 * step) and hash(grid) == hash(shifted(0.9 * step))
    assert grid != shifted(1.1 * step)
    assert grid == Grid(grid.shape, grid.affine.astype(np.float32))
    assert grid != Grid(np.array(grid.shape) + (0, 1, 0), grid.affine)
    # The same origin, but a spacing that drifts off over the field of view.
    affine = grid.affine.copy()
    affine[:3, :3] *= 1.01
    assert grid != Grid(grid.shape, affine)
    assert grid != "grid" and grid is not None
