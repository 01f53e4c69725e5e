"""Positions: voxels in the world and back, the field of view, what it contains."""

import numpy as np
import pytest
from random_grids import SEEDS, diagonal, random_grid


@pytest.mark.parametrize("seed", SEEDS)
def test_voxel_to_world_and_back(seed):
    grid = random_grid(seed)
    ijk = np.random.default_rng(seed).uniform(-5, 15, (4, 7, 3))
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(ijk)), ijk, atol=1e-9)
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(ijk[0, 0])), ijk[0, 0], atol=1e-9)
    one = np.append(ijk[1, 2], 1)
    np.testing.assert_allclose(grid.to_world(ijk[1, 2]), (grid.affine @ one)[:3], atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_geometry_of_the_field_of_view(seed):
    grid = random_grid(seed)
    points = grid.points()
    assert points.shape == (*grid.shape, 3) and points.size == 3 * grid.size
    np.testing.assert_allclose(points[0, 0, 0], grid.origin)
    np.testing.assert_allclose(points[-1, -1, -1], grid.to_world(np.array(grid.shape) - 1))
    np.testing.assert_allclose(points.reshape(-1, 3).mean(0), grid.centre, atol=1e-9)
    np.testing.assert_allclose(grid.corners().mean(0), grid.centre, atol=1e-9)
    np.testing.assert_allclose(grid.directions * grid.spacing, grid.affine[:3, :3], atol=1e-12)
    corners = grid.corners()
    assert np.linalg.norm(corners[-1] - corners[0]) == pytest.approx(np.linalg.norm(grid.extent))
    for axis in range(3):
        if grid.shape[axis] > 1:
            step = np.diff(points, axis=axis)
            np.testing.assert_allclose(np.linalg.norm(step, axis=-1), grid.spacing[axis])


@pytest.mark.parametrize("seed", SEEDS)
def test_contains_faces_included(seed):
    grid = random_grid(seed)
    assert grid.contains(grid.points()).all()
    assert grid.contains(grid.corners()).all()
    assert grid.contains(grid.centre)
    outward = (grid.corners() - grid.centre) * 1.001 + grid.centre
    assert not grid.contains(outward).any()
    assert grid.contains(outward, atol=0.1).all()


def test_through_plane_is_the_thickest_axis():
    assert diagonal(1, 1, 5).through_plane == 2
    assert diagonal(5, 1, 1).through_plane == 0
    assert diagonal(1, -3, 3.01).through_plane == 2
    assert diagonal(1, 3.2, 3).through_plane == 1
