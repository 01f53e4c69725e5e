"""Grid: positions, refinement, coarsening, overlap, axes, equality, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest

from invsr.errors import InvsrError
from invsr.grid import SAME_POSITION, Grid

SEEDS = range(20)


def rotation(rng):
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def random_grid(seed, turn=rotation):
    """Oblique, permuted, flipped, odd and even, sometimes one voxel thin."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    axes = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine[:3, :3] = turn(rng) @ axes * rng.uniform(0.3, 7, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    shape = rng.integers(2, 12, 3)
    if seed % 4 == 0:
        shape[rng.integers(3)] = 1
    return Grid(shape, affine)


def upright(rng):
    return np.eye(3)


def diagonal(*spacing, shape=(4, 5, 6), origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


# Positions ------------------------------------------------------------------------------------------


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


# Refine and coarsen ---------------------------------------------------------------------------------


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


# Relations ------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0), (2, -1, 2), (2, 2, 2, 2)])
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
