"""Resampling against scipy and against world positions."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators.transforms import Affine, Displacement, Rigid
from invsr.operators.warp import Resample
from invsr.testing.phantoms import constant, ramp

F64 = torch.float64


def turned(shape, spacing, degrees, shift=(0.0, 0.0, 0.0)):
    """A grid turned about its centre at the world origin, by angles about x, y and z."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [n for n in (0, 1, 2) if n != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        affine[:3, :3] = affine[:3, :3] @ turn
    affine[:3, :3] *= spacing
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


BIG = turned((20, 18, 16), (1.0, 1.1, 0.9), (0, 0, 0))
TARGETS = {
    "same": BIG,
    "oblique": turned((7, 6, 5), (1.0, 0.8, 1.3), (20, -10, 35), (0.4, -0.3, 0.2)),
    "flipped, permuted": Grid(
        (6, 5, 7),
        turned((6, 5, 7), 1.0, (0, 0, 0)).affine
        @ np.array([[0, 0, -1.0, 5], [1, 0, 0, 0], [0, -1, 0, 4], [0, 0, 0, 1]]),
    ),
    "singleton": turned((1, 6, 1), (2.0, 1.0, 3.0), (10, 0, 0)),
}


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("name", TARGETS)
def test_ramps_and_constants_stay_in_place(name, interpolation):
    target = TARGETS[name]
    operator = Resample(BIG, target, interpolation=interpolation)
    direction = (0.7, -0.4, 0.2)
    x = ramp(BIG, direction, dtype=F64)
    expected = ramp(target, direction, dtype=F64)
    deep = torch.from_numpy(
        (np.abs(BIG.to_voxel(target.points()) - (np.array(BIG.shape) - 1) / 2) < np.array(BIG.shape) / 2 - 1).all(-1)
    )
    assert deep.any()
    torch.testing.assert_close(operator(x)[0, 0][deep], expected[0, 0][deep], atol=1e-9, rtol=0)
    inside = torch.from_numpy(BIG.contains(target.points()))
    torch.testing.assert_close(operator(constant(BIG, 3.0, dtype=F64))[0, 0], 3.0 * inside.double())


def test_linear_is_scipys():
    target = TARGETS["oblique"]
    x = torch.randn((1, 1, *BIG.shape), dtype=F64, generator=torch.Generator().manual_seed(0))
    at = np.moveaxis(BIG.to_voxel(target.points()), -1, 0)
    expected = ndimage.map_coordinates(x[0, 0].numpy(), at, order=1)
    np.testing.assert_allclose(Resample(BIG, target)(x)[0, 0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_rigid_moves_a_blob_where_it_says(interpolation):
    centre = np.array([1.2, -0.7, 0.5])
    motion = [0.1, -0.2, 0.3, 0.8, -0.5, 0.6]

    def blob(points):
        return np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / 2.5**2)

    transform = Rigid(motion, centre=(0.3, 0.2, 0.1))
    x = torch.from_numpy(blob(BIG.points()))[None, None]
    target = turned((9, 9, 9), 0.9, (0, 0, 0))
    seen = Resample(BIG, target, transform, interpolation)(x)
    where = transform(torch.from_numpy(target.points().reshape(-1, 3))).reshape(*target.shape, 3)
    expected = blob(where.detach().numpy())
    # The error of interpolating a blob of sigma 2.5 voxels: h^2 / 8 x'' for linear, far less for cubic.
    assert np.abs(seen[0, 0].numpy() - expected).max() < (0.06 if interpolation == "linear" else 0.006)


def test_rigid_is_rodrigues_about_the_centre():
    axis, angle, centre = np.array([1.0, 2.0, -2.0]) / 3, 0.7, np.array([4.0, 5.0, 6.0])
    p = np.array([[1.0, -2.0, 0.5], centre])
    q = p - centre
    turned_points = (
        q * np.cos(angle)
        + np.cross(axis, q) * np.sin(angle)
        + axis * (q @ axis)[:, None] * (1 - np.cos(angle))
        + centre
    )
    found = Rigid([*(angle * axis), 1.0, 2.0, 3.0], centre)(torch.from_numpy(p))
    np.testing.assert_allclose(found.detach().numpy(), turned_points + [1, 2, 3], atol=1e-12)


def test_affine_and_displacement_agree_on_a_scaling():
    scale = np.array([1.05, 0.95, 1.02])
    affine = Affine(np.c_[np.diag(scale), np.zeros(3)])
    field = torch.from_numpy(np.moveaxis(BIG.points() * (scale - 1), -1, 0).copy())
    dense = Displacement(BIG, field)
    target = TARGETS["oblique"]
    x = torch.randn((1, 1, *BIG.shape), dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Resample(BIG, target, affine)(x), Resample(BIG, target, dense)(x))


def test_often_used_it_becomes_a_matrix_of_the_same_numbers():
    A = Resample(BIG, TARGETS["oblique"], Rigid([0.1, 0.2, 0.0, 1.0, 0.0, 0.0], BIG.centre))
    x, y = (torch.randn((1, 2, *g.shape), dtype=torch.complex128) for g in (A.domain, A.range))
    before = A(x), A.adjoint(y)
    assert not A._matrix_cache.made
    for _ in range(5):
        after = A(x), A.adjoint(y)
    assert A._matrix_cache.made
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_motion_is_recovered_by_gradient_descent():
    grid = turned((14, 14, 14), 1.0, (0, 0, 0))
    points = torch.from_numpy(grid.points())
    x = torch.exp(-0.5 * ((points - torch.tensor([2.0, -1.0, 0.5])) ** 2 / torch.tensor([6.0, 12.0, 20.0])).sum(-1))
    x = x[None, None]
    true = torch.tensor([0.05, -0.04, 0.06, 0.6, -0.4, 0.3], dtype=F64)
    with torch.no_grad():
        y = Resample(grid, grid, Rigid(true))(x)
    found = Rigid(torch.zeros(6, dtype=F64))
    found.requires_grad_()
    operator = Resample(grid, grid, found)
    optimiser = torch.optim.LBFGS(found.parameters(), max_iter=80, line_search_fn="strong_wolfe")

    def misfit():
        optimiser.zero_grad()
        loss = (operator(x) - y)[..., 2:-2, 2:-2, 2:-2].square().sum()
        loss.backward()
        return loss

    optimiser.step(misfit)
    assert float((found.motion - true).detach().abs().max()) < 0.01


def test_refuses():
    with pytest.raises(InvsrError, match="nearest"):
        Resample(BIG, BIG, interpolation="nearest")
    with pytest.raises(InvsrError, match="rigid motion"):
        Rigid([0.0, 1.0])
