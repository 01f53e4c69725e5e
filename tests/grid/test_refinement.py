"""Grids refined, coarsened and extended: faces, corners, and what is refused."""

import numpy as np
import pytest
from random_grids import SEEDS, diagonal, random_grid

from invsr.errors import InvsrError
from invsr.grid import SAME_POSITION, Grid


@pytest.mark.parametrize("seed", SEEDS)
def test_refine_covers_the_field_of_view_edge_to_edge(seed):
    grid = random_grid(seed)
    target = grid.spacing / np.random.default_rng(seed + 100).uniform(0.7, 6, 3)
    fine = grid.refine(target)
    np.testing.assert_allclose(fine.spacing, target)
    np.testing.assert_allclose(fine.directions, grid.directions, atol=1e-12)
    np.testing.assert_allclose(fine.centre, grid.centre, atol=1e-9)
    assert fine.contains(grid.corners(), atol=SAME_POSITION).all()
    beyond = (fine.extent - grid.extent) / target
    assert (beyond > -SAME_POSITION - 1e-9).all() and (beyond < 1).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ratio", [(1, 1, 1), (1, 1, 5), (2, 3, 4), (1.0000004, 0.9999996, 4.0000002)])
def test_refine_by_whole_ratios_keeps_the_corners(seed, ratio):
    grid = random_grid(seed)
    fine = grid.refine(grid.spacing / ratio)
    assert fine.shape == tuple(np.array(grid.shape) * np.round(ratio).astype(int))
    np.testing.assert_allclose(fine.corners(), grid.corners(), atol=1e-5 * grid.extent.max())


@pytest.mark.parametrize(("n", "step", "expected"), [(7, 5.0, 35), (8, 3.3, 27), (3, 2.5, 8), (1, 4.0, 4), (1, 0.4, 1)])
def test_refine_to_one_millimetre(n, step, expected):
    fine = diagonal(1, 1, step, shape=(2, 2, n)).refine(1)
    assert fine.shape == (2, 2, expected)
    assert fine.origin[2] - 0.5 == pytest.approx(-step / 2 - (expected - n * step) / 2)


def test_refine_accepts_one_spacing_or_three():
    grid = diagonal(1, 2, 4)
    assert grid.refine(2.0) == grid.refine((2.0, 2.0, 2.0))
    assert grid.isotropic() == grid.refine(1.0)
    assert grid.isotropic().shape == (4, 10, 24)


@pytest.mark.parametrize("seed", SEEDS)
def test_coarsen_starts_at_the_first_faces(seed):
    grid = random_grid(seed)
    target = np.minimum(grid.spacing * np.random.default_rng(seed + 200).uniform(1, 5, 3), grid.extent)
    coarse = grid.coarsen(target)
    np.testing.assert_allclose(coarse.spacing, target)
    np.testing.assert_allclose(coarse.directions, grid.directions, atol=1e-12)
    np.testing.assert_allclose(coarse.to_world([-0.5] * 3), grid.to_world([-0.5] * 3), atol=1e-9)
    left_out = (grid.extent - coarse.extent) / target
    assert (left_out > -SAME_POSITION - 1e-9).all() and (left_out < 1).all()
    assert grid.contains(coarse.corners(), atol=SAME_POSITION * 5).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_coarsen_undoes_refine_by_whole_ratios(seed):
    grid = random_grid(seed)
    assert grid.refine(grid.spacing / (1, 2, 5)).coarsen(grid.spacing) == grid


@pytest.mark.parametrize("spacing", [0, -1, np.nan, np.inf, (1, 1, 0)])
@pytest.mark.parametrize("method", ["refine", "coarsen"])
def test_refuses_spacings(method, spacing):
    with pytest.raises(InvsrError, match="every spacing must be above zero"):
        getattr(diagonal(1, 1, 1), method)(spacing)


def test_coarsen_refuses_voxels_larger_than_the_field_of_view():
    with pytest.raises(InvsrError, match=r"voxels of 1x1x7 mm do not fit into .* 4x5x6 mm"):
        diagonal(1, 1, 1).coarsen((1, 1, 7))


def test_covering_keeps_voxels_in_place_and_reaches_the_points():
    grid = Grid((4, 5, 6), random_grid(1).affine)
    corners = grid.to_world([[-3.2, 0.0, 1.0], [2.0, 7.6, 5.0]])
    found = grid.covering(corners)
    assert found.contains(corners).all()
    offset = grid.to_voxel(found.origin)
    np.testing.assert_allclose(offset, offset.round(), atol=1e-9)
    np.testing.assert_allclose(offset, [-3, 0, 1], atol=1e-9)
    assert found.shape == (6, 9, 5)
    # The field of view itself covers itself; a margin adds voxels on every side.
    assert grid.covering(grid.corners()) == grid
    assert grid.covering(grid.corners(), margin=1.0).shape == tuple(
        n + 2 * int(np.ceil(1.0 / s - 1e-3)) for n, s in zip(grid.shape, grid.spacing, strict=True)
    )
