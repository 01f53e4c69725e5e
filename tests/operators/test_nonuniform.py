"""k-space off the grid: against the Cartesian operator and the sum written out; density of samples."""

import math
import sys

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import KSpaceMask, NonUniformKSpace, density_weights, kooshball, radial, spiral
from invsr.operators.base import LinearOperator
from invsr.testing.kspace import sensitivities

C128 = torch.complex128
GRID = Grid((8, 7, 6), np.diag([1.0, 1.2, 2.0, 1.0]))


def volume(shape, seed=0):
    return torch.randn((1, 1, *shape), dtype=C128, generator=torch.Generator().manual_seed(seed))


def whole_numbers(shape, axes):
    """All frequencies of a matrix, as a trajectory of one shot."""
    along = [torch.arange(shape[n]).double() - shape[n] // 2 for n in axes]
    return torch.stack(torch.meshgrid(*along, indexing="ij"), -1).reshape(-1, 1, len(axes))


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 1), (1, 2), (2, 0)])
@pytest.mark.parametrize("coils", [None, 3])
def test_at_whole_frequencies_it_is_the_cartesian_operator(axes, coils):
    maps = None if coils is None else volume((coils, *GRID.shape))[0, 0]
    x = volume(GRID.shape)
    A = NonUniformKSpace(GRID, whole_numbers(GRID.shape, axes), maps, axes=axes)
    B = KSpaceMask(GRID, torch.ones(GRID.shape, dtype=torch.float64), maps, axes=axes)
    expected = B(x).permute(0, 1, *(2 + n for n in axes), *(2 + n for n in (0, 1, 2) if n not in axes))
    torch.testing.assert_close(A(x).flatten(2), expected.flatten(2), rtol=0, atol=1e-12)
    torch.testing.assert_close(A.gram(x), B.gram(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 7, 3), (5, 6, 2)])
def test_samples_are_the_sum_that_is_written_down(shape):
    grid, k = Grid(shape, np.eye(4)), spiral(3, 11, shape[:2]).double()
    x = volume(shape)
    at = [torch.arange(n).double() - n // 2 for n in shape[:2]]
    turns = k[..., 0, None, None] * at[0][:, None] / shape[0] + k[..., 1, None, None] * at[1] / shape[1]
    expected = torch.einsum("rsij,ijk->rsk", torch.exp(-2j * math.pi * turns), x[0, 0]) / math.sqrt(
        math.prod(shape[:2])
    )
    torch.testing.assert_close(NonUniformKSpace(grid, k, axes=(0, 1))(x)[0, 0], expected, rtol=0, atol=1e-12)


def iterations(operator, rho=1e-3):
    """Those until the residual is a thousandth of the right-hand side."""
    b = operator.adjoint(operator(volume(operator.domain.shape).to(torch.complex64)))
    rho *= operator.mean_eigenvalue()
    for n in range(2, 200, 2):
        x = operator.solve(b, rho, rtol=1e-9, max_iter=n).x
        if float((b - operator.normal(x, rho)).norm()) <= 1e-3 * float(b.norm()):
            return n
    raise AssertionError("it does not converge")


@pytest.mark.parametrize("coils", [None, 4])
@pytest.mark.parametrize("trajectory", [radial(60, 64, 32), spiral(8, 300, 32)])
def test_the_preconditioner_spares_iterations(coils, trajectory, monkeypatch):
    grid = Grid((32, 32, 1), np.eye(4))
    maps = None if coils is None else sensitivities(grid.shape, coils)
    operator = NonUniformKSpace(grid, trajectory, maps, axes=(0, 1))
    with_it = iterations(operator)
    monkeypatch.setattr(NonUniformKSpace, "_precondition", LinearOperator._precondition)
    without = iterations(operator)
    assert with_it < without and (trajectory.shape[1] < 60 or with_it < 0.6 * without)


def test_the_preconditioner_is_the_diagonal_in_k_space():
    grid = Grid((5, 4, 3), np.eye(4))
    for axes, coils in (((0, 1), None), ((0, 1), 3), ((0, 1, 2), 2)):
        maps = None if coils is None else volume((coils, *grid.shape))[0, 0]
        k = torch.rand(7, 5, len(axes), generator=torch.Generator().manual_seed(0)).double() * 3.8 - 1.9
        k[..., -1] *= 0.7
        operator = NonUniformKSpace(grid, k, maps, axes=axes)
        F = KSpaceMask(grid, torch.ones(grid.shape, dtype=torch.float64), axes=axes)
        waves = F.adjoint(torch.eye(grid.size, dtype=C128).reshape(-1, 1, *grid.shape))
        expected = operator(waves).abs().square().flatten(1).sum(1).reshape(grid.shape)
        if maps is None:  # the same for all positions
            expected = expected[..., :1]
        torch.testing.assert_close(operator._level("identity").double(), expected, rtol=1e-4, atol=1e-4)


def test_density_of_spokes_grows_with_the_distance_from_the_middle():
    k = radial(80, 64, 32)
    weights, radius = density_weights(k, (32, 32)), k.norm(dim=-1)
    # Half a cycle along a spoke, and the way to the next one: on average, as golden angles are not even.
    area = math.pi / 80 * 0.5
    for r in (2, 5, 8, 11, 14):
        assert float(weights[(radius - r).abs() < 0.3].mean()) == pytest.approx(r * area, rel=0.05)
    assert float(weights.sum()) == pytest.approx(math.pi * 16**2, rel=0.1)


def test_gridding_with_density_weights_gives_the_image():
    grid = Grid((32, 32, 1), np.eye(4))
    at = grid.points()[..., :2] - [15, 17]
    x = torch.from_numpy(np.exp(-0.5 * (at**2).sum(-1) / 9))[None, None] + 0j
    for k in (radial(80, 64, 32), spiral(16, 400, 32)):
        A = NonUniformKSpace(grid, k, weights=density_weights(k, (32, 32)).sqrt(), axes=(0, 1))
        assert float((A.gram(x) - x).norm() / x.norm()) < 0.05


def test_trajectories():
    k = radial(5, 9, (12, 6))
    assert k.shape == (9, 5, 2) and not k[4].any()
    assert k[0, 0].tolist() == pytest.approx([-12 * 4 / 9, 0.0])
    spokes = k / torch.tensor([12, 6])
    assert torch.allclose(spokes[0].norm(dim=-1), torch.tensor(4 / 9))
    turn = torch.atan2(spokes[8, 1, 1], spokes[8, 1, 0])
    assert math.degrees(float(turn)) == pytest.approx(111.246, abs=1e-3)
    ball = kooshball(400, 8, 8)
    assert torch.allclose(ball[0].norm(dim=-1), torch.tensor(4.0))
    assert float(ball[0].mean(0)[:2].norm()) < 0.1
    arms = spiral(4, 100, 16)
    assert not arms[0].any() and torch.allclose(arms[-1].norm(dim=-1), torch.tensor(8.0))


TRAJECTORY = radial(4, 8, 6)


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: NonUniformKSpace(GRID, 2 * TRAJECTORY, axes=(0, 1)),
            "from -6 to 4.5 cycles .* axis 0, beyond the 4 of",
        ),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY), "shape .8, 4, 2."),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY / 0, axes=(0, 1)), "NaN"),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY, axes=(0, 0)), "axes"),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY[:0], axes=(0, 1)), "no samples"),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY, torch.ones(2, 3, 3, 3), axes=(0, 1)), "coils"),
        (lambda: NonUniformKSpace(GRID, TRAJECTORY, weights=torch.ones(3, 3), axes=(0, 1)), "weights"),
        (lambda: density_weights(TRAJECTORY, (6,)), "two or three"),
        (lambda: radial(0, 8, 8), "above zero"),
        (lambda: spiral(3, 8, 8, turns=-1), "turns"),
    ],
)
def test_refuses(call, words):
    with pytest.raises(InvsrError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(InvsrError, match=r'takes the package finufft: pip install "invsr\[raw\]"'):
        NonUniformKSpace(GRID, TRAJECTORY, axes=(0, 1))(volume(GRID.shape))


def test_a_trajectory_that_became_nan_is_refused():
    operator = NonUniformKSpace(GRID, TRAJECTORY.clone(), axes=(0, 1))
    operator.trajectory[0, 0] = math.nan
    with pytest.raises(InvsrError, match="NaN or infinite"):
        operator(volume(GRID.shape))
