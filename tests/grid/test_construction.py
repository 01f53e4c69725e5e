"""Grids as they are made: copies, what is refused, and from numbers in millimetres."""

import copy
import pickle

import numpy as np
import pytest
from random_grids import SEEDS, diagonal, random_grid

from invsr.errors import InvsrError
from invsr.grid import Grid

# Construction ---------------------------------------------------------------------------------------


def test_singleton_axes():
    grid = diagonal(1, 1, 5, shape=(1, 1, 1))
    assert grid.size == 1
    np.testing.assert_allclose(grid.centre, grid.origin)
    assert grid.refine(1).shape == (1, 1, 5)
    assert grid.refine(1).coarsen((1, 1, 5)) == grid


def test_the_affine_is_a_copy_that_cannot_be_changed():
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 7
    assert grid.origin[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 7


def test_copies_and_pickles_equal_the_original():
    grid = random_grid(1)
    assert copy.deepcopy(grid) == grid
    assert pickle.loads(pickle.dumps(grid)) == grid


def test_repr_names_shape_spacing_and_origin():
    assert repr(diagonal(1, 2, 3.3, origin=(0, -7, 0.5))) == "Grid(4x5x6, 1x2x3.3 mm, origin 0x-7x0.5 mm)"


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0), (2, -1, 2), (2, 2, 2, 2), (2.7, 2, 2)])
def test_refuses_shapes(shape):
    with pytest.raises(InvsrError, match="three positive voxel counts"):
        Grid(shape, np.eye(4))


def bad_affines():
    def changed(**entries):
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        for key, value in entries.items():
            affine[int(key[1]), int(key[2])] = value
        return affine

    parallel = changed()
    parallel[:3, 1] = 2 * parallel[:3, 0]
    return {
        "3x3": (np.eye(3), "not a finite 4x4"),
        "nan": (changed(_03=np.nan), "not a finite 4x4"),
        "inf": (changed(_00=np.inf), "not a finite 4x4"),
        "overflowing": (changed(_00=1e200), "spacing infx2x3 mm"),
        "zero column": (changed(_11=0), "spacing 1x0x3 mm"),
        "last row": (changed(_30=1), "affine"),
        "parallel columns": (parallel, "singular"),
        "sheared": (changed(_01=0.05), r"sheared: .* 1\.43 degrees"),
    }


@pytest.mark.parametrize(("affine", "message"), bad_affines().values(), ids=bad_affines())
def test_refuses_affines(affine, message):
    with pytest.raises(InvsrError, match=message) as caught:
        Grid((4, 4, 4), affine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_shear_is_refused_however_the_grid_lies_but_rounding_is_not(seed):
    grid = random_grid(seed)
    for shear, refused in ((0.0049, False), (0.0051, True)):
        sheared = np.eye(3)
        sheared[0, 1] = shear
        affine = grid.affine.copy()
        affine[:3, :3] = grid.directions @ sheared * grid.spacing
        if refused:
            with pytest.raises(InvsrError, match="sheared"):
                Grid(grid.shape, affine)
        else:
            Grid(grid.shape, affine)


# From numbers in millimetres ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_grids_from_numbers_in_millimetres(seed):
    expected = random_grid(seed)
    directions = expected.directions
    for where in ({"origin": expected.origin}, {"centre": expected.centre}):
        assert Grid.from_spacing(expected.shape, expected.spacing, directions=directions, **where) == expected
    upright = Grid.from_spacing(expected.shape, 1.5)
    np.testing.assert_allclose(upright.centre, 0, atol=1e-12)
    np.testing.assert_array_equal(upright.directions, np.eye(3))
    np.testing.assert_array_equal(upright.spacing, 1.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spacing": 0.0}, "above zero"),
        ({"spacing": (1, np.nan, 1)}, "above zero"),
        ({"spacing": (1, 2)}, "one number or three"),
        ({"spacing": np.ones((2, 3))}, "one number or three"),
        ({"origin": (0, 0, 0), "centre": (0, 0, 0)}, "not both"),
        ({"origin": (0, 0)}, "three finite numbers"),
        ({"centre": (0, 0, np.inf)}, "three finite numbers"),
        ({"directions": np.diag([1.0, 1.0, 5.0])}, "unit vectors"),
        ({"directions": np.eye(4)}, "unit vectors"),
        ({"directions": np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1.0]])}, "parallel"),
        ({"shape": (4, 4)}, "three positive"),
        ({"shape": (4, 0, 4)}, "three positive"),
    ],
)
def test_refuses_numbers_that_make_no_grid(given, message):
    with pytest.raises(InvsrError, match=message):
        Grid.from_spacing(**{"shape": (4, 5, 6), "spacing": 1.0} | given)


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [((1, 1, 1), (0, 1, 2)), ((0.9, 0.8, 5), (0, 1)), ((5, 1, 1.49), (1, 2)), ((1, 1.5, 5), (0,))],
)
def test_fine_axes_are_those_below_one_and_a_half_times_the_finest(spacing, axes):
    assert Grid.from_spacing((4, 5, 6), spacing).fine_axes == axes
