"""Solvers against closed forms and independent implementations."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation
from skimage.restoration import denoise_tv_chambolle

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.differences import gradient
from invsr.numerics.linear import conjugate_gradient
from invsr.operators import Identity, Stack, acquisition
from invsr.priors import TV, Tikhonov
from invsr.solvers import ADMM, Huber, Status, cubic, iterate, likelihood, solve_quadratic
from invsr.solvers.weighting import CHI2_TARGET, CHI2_TOLERANCE
from invsr.testing.phantoms import centred_grid, shapes

GRID = Grid((6, 5, 3), np.diag([1.0, 1.2, 3.0, 1.0]))
F64 = torch.float64


def noise(shape, seed=0):
    return torch.randn((1, 1, *shape), dtype=F64, generator=torch.Generator().manual_seed(seed))


def dense(function, shape):
    columns = torch.eye(int(np.prod(shape)), dtype=F64).reshape(-1, 1, 1, *shape)
    return torch.stack([function(column[None, 0]).flatten() for column in columns], 1)


def differences(operator):
    spacing = operator.domain.spacing.tolist()
    return dense(lambda x: gradient(x, spacing, operator.boundary), operator.domain.shape)


@pytest.mark.parametrize("analysis", ["identity", "gradient"])
def test_tikhonov_is_the_closed_form(analysis):
    operator = acquisition(GRID, 1.0)
    y = noise(GRID.shape)
    solution = solve_quadratic(operator, y, Tikhonov(analysis), lam=0.07)
    a = dense(operator, operator.domain.shape)
    k = differences(operator) if analysis == "gradient" else torch.eye(a.shape[1], dtype=F64)
    expected = torch.linalg.solve(a.T @ a + 0.07 * k.T @ k, a.T @ y.flatten())
    torch.testing.assert_close(solution.x.flatten(), expected, rtol=1e-4, atol=1e-5)  # CG to 1e-5 where not direct


@pytest.mark.parametrize("analysis", ["identity", "gradient"])
@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_tikhonov_weight_meets_the_discrepancy(analysis, sigma):
    grid = centred_grid((20, 18, 16), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    y = operator(shapes(grid, n_samples=8, size=20.0, dtype=F64))
    y = y + sigma * noise(y.shape[2:])
    solution = solve_quadratic(operator, y, Tikhonov(analysis), sigma=sigma)
    assert solution.status is Status.CONVERGED
    assert abs(solution.chi2 / CHI2_TARGET - 1) < CHI2_TOLERANCE
    assert solution.chi2 == pytest.approx(float(((operator(solution.x) - y) / sigma).square().mean()), rel=1e-6)


def test_tv_denoising_agrees_with_scikit_image():
    grid = centred_grid((16, 14, 12), 1.0)
    noisy = shapes(grid, n_samples=8, size=16.0, dtype=F64) + 0.1 * noise(grid.shape)
    lam = 0.1
    ours = iterate(ADMM(), Identity(grid), noisy, TV(), lam=lam, x0=noisy, max_iter=2000, rtol=1e-7)
    # Minimises ||x - y||^2 / (2 weight) + TV(x) over the same forward differences.
    theirs = denoise_tv_chambolle(noisy[0, 0].numpy(), weight=lam, eps=1e-9, max_num_iter=20000)
    assert ours.status is Status.CONVERGED

    def objective(x):
        cost = TV().cost(gradient(x, grid.spacing.tolist(), ("neumann",) * 3))
        return float(0.5 * (x - noisy).square().sum() + lam * cost)

    other = torch.from_numpy(theirs)[None, None]
    assert objective(ours.x) <= objective(other) * (1 + 1e-5)
    assert float((ours.x - other).abs().max()) < 0.01


@pytest.mark.parametrize("huber", [0.0, 0.05])
def test_tv_superresolution_reaches_the_objective_of_a_primal_dual_loop(huber):
    operator = acquisition(GRID, 1.0, slice_thickness=2.5)
    y = noise(GRID.shape).cumsum(2).cumsum(4) * 0.2
    lam = 0.05
    solution = iterate(ADMM(), operator, y, TV(huber), lam=lam, max_iter=1500, rtol=1e-7)
    a, k = dense(operator, operator.domain.shape).numpy(), differences(operator).numpy()
    target = y.flatten().numpy()
    # Chambolle & Pock (2011), algorithm 1, on matrices, both terms in the dual.
    step = 0.99 / np.linalg.norm(np.vstack([a, k]), 2)
    a, k = csr_matrix(a), csr_matrix(k)
    x = average = np.zeros(a.shape[1])
    p, q = np.zeros(a.shape[0]), np.zeros(k.shape[0])
    for _ in range(6000):
        p = (p + step * (a @ average - target)) / (1 + step)
        q = (q + step * k @ average) / (1 + step * huber / lam)
        length = np.sqrt((q.reshape(3, -1) ** 2).sum(0))
        q = (q.reshape(3, -1) / np.maximum(1, length / lam)).ravel()
        before, x = x, x - step * (a.T @ p + k.T @ q)
        average = 2 * x - before

    def objective(z):
        cost = float(TV(huber).cost(torch.from_numpy(k @ z).reshape(3, -1)))
        return 0.5 * np.sum((a @ z - target) ** 2) + lam * cost

    assert objective(solution.x.flatten().numpy()) == pytest.approx(objective(x), rel=1e-4)


def test_automatic_weight_of_tv():
    grid = centred_grid((20, 18, 16), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    y = operator(shapes(grid, n_samples=8, size=20.0, dtype=F64))
    y = y + 0.03 * noise(y.shape[2:])
    solution = iterate(ADMM(), operator, y, TV(), sigma=0.03, max_iter=200, rtol=1e-4)
    assert solution.status is Status.CONVERGED
    assert abs(solution.chi2 / CHI2_TARGET - 1) < 2 * CHI2_TOLERANCE
    again = iterate(ADMM(), operator, y, TV(), lam=solution.lam, max_iter=300, rtol=1e-5)
    assert float((again.x - solution.x).norm() / again.x.norm()) < 0.02  # the path to the weight leaves no trace


def test_running_out_of_iterations_is_a_status():
    seen = []
    y = noise(GRID.shape)
    solution = iterate(
        ADMM(), acquisition(GRID, 1.0), y, TV(), lam=0.1, max_iter=3, progress=lambda *report: seen.append(report)
    )
    assert solution.status is Status.MAX_ITER and len(solution.history) == 3
    assert [done for done, _ in seen] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [figures for _, figures in seen] == solution.history


def test_majorise_minimise_reaches_the_robust_minimum():
    # Denoising by Tikhonov with a Huber likelihood separates into voxels: solve one by hand.
    grid = Grid((2, 2, 2), np.eye(4))
    y = torch.tensor([0.1, 5.0], dtype=F64).repeat(4).reshape(1, 1, 2, 2, 2)
    found = iterate(
        ADMM(), Identity(grid), y, Tikhonov("identity"), lam=0.5, likelihood=Huber(1.0, 1.0), max_iter=500, rtol=1e-9
    )
    # |y - x| <= 1: y - x = x / 2; beyond: slope 1 = x / 2.
    expected = torch.tensor([0.1 / 1.5, 2.0], dtype=F64).repeat(4).reshape(1, 1, 2, 2, 2)
    torch.testing.assert_close(found.x, expected, atol=1e-4, rtol=0)


def test_stack_of_two_scans_as_one_problem():
    volume = Grid((6, 6, 6), np.eye(4))
    parts = [acquisition(volume.coarsen(step), reference=volume) for step in ((1, 1, 3), (2, 1, 1))]
    stack = Stack(parts, weights=[1.0, 0.25])
    y = tuple(noise(part.range.shape, seed) for seed, part in enumerate(parts))
    solution = solve_quadratic(stack, y, Tikhonov(), lam=0.1)
    a = torch.cat([w * dense(part, volume.shape) for w, part in zip((1.0, 0.5), parts, strict=True)])
    k = differences(stack)
    expected = torch.linalg.solve(a.T @ a + 0.1 * k.T @ k, a.T @ torch.cat([part.flatten() for part in y]))
    torch.testing.assert_close(solution.x.flatten(), expected, rtol=1e-3, atol=1e-4)


def test_weights_are_required():
    operator, y = Identity(GRID), noise(GRID.shape)
    for solve in (
        lambda **k: iterate(ADMM(), operator, y, TV(), **k),
        lambda **k: solve_quadratic(operator, y, Tikhonov(), **k),
    ):
        with pytest.raises(InvsrError, match="give lam or sigma"):
            solve()
        with pytest.raises(InvsrError, match="lam is -1"):
            solve(lam=-1.0)
    with pytest.raises(InvsrError, match="TV is not quadratic"):
        solve_quadratic(operator, y, TV(), lam=1.0)


def test_cubic_is_scipys_spline_at_true_positions():
    rng = np.random.default_rng(0)
    scan = Grid((9, 8, 6), np.diag([1.0, 1.0, 4.0, 1.0]))
    target = scan.refine(1.0)
    data = rng.random(scan.shape).astype(np.float32)
    found = cubic(torch.from_numpy(data)[None, None], scan, target)[0, 0].numpy()
    k = (np.arange(24) + 0.5) / 4 - 0.5
    at = np.meshgrid(np.arange(9.0), np.arange(8.0), k, indexing="ij")
    np.testing.assert_allclose(found, ndimage.map_coordinates(data, at, order=3, mode="nearest"), atol=1e-5)
    constant = cubic(torch.full((1, 1, *scan.shape), 3.0), scan, target)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0))


def test_cubic_is_scipys_spline_on_axes_in_another_order_and_direction():
    data = np.random.default_rng(0).random((9, 8, 6)).astype(np.float32)
    scan = Grid(data.shape, np.diag([1.0, 1.0, 4.0, 1.0]))
    # Beyond the field of view on both sides of the slices.
    target = Grid((30, 8, 12), np.array([[0, 0, 0.7, 0.2], [0, -1, 0, 7], [1.1, 0, 0, -3], [0, 0, 0, 1]]))
    at = np.moveaxis(scan.to_voxel(target.points()), -1, 0)
    expected = ndimage.map_coordinates(data, at, order=3, mode="nearest")
    found = cubic(torch.from_numpy(data)[None, None], scan, target)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_conjugate_gradient():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((30, 30))
    matrix = torch.from_numpy(root @ root.T + np.eye(30))
    b = torch.from_numpy(rng.standard_normal(30))
    expected = torch.from_numpy(np.linalg.solve(matrix.numpy(), b.numpy()))
    plain = conjugate_gradient(lambda x: matrix @ x, b, rtol=1e-12, max_iter=500)
    assert plain.status is Status.CONVERGED and plain.residual <= 1e-12
    torch.testing.assert_close(plain.x, expected)
    inverse = torch.linalg.inv(matrix)
    exact = conjugate_gradient(lambda x: matrix @ x, b, preconditioner=lambda r: inverse @ r, rtol=1e-10)
    assert exact.n_iter <= 2
    warm = conjugate_gradient(lambda x: matrix @ x, b, x0=expected, rtol=1e-8)
    assert warm.n_iter == 0
    assert conjugate_gradient(lambda x: matrix @ x, b, rtol=1e-12, max_iter=2).status is Status.MAX_ITER
    assert conjugate_gradient(lambda x: -(matrix @ x), b).status is Status.BREAKDOWN
    assert not conjugate_gradient(lambda x: matrix @ x, torch.zeros_like(b)).x.any()
    assert conjugate_gradient(lambda x: matrix @ x, b, rtol=0.0, max_iter=2).n_iter == 2


def test_conjugate_gradients_stop_by_the_error_where_eigenvalues_differ():
    # As the middle of k-space, where spokes cross, outweighs the rest.
    generator = torch.Generator().manual_seed(0)
    size = torch.cat([torch.full((3,), 1e6), 1 + torch.rand(60, generator=generator)]).double()
    x = torch.randn(63, dtype=torch.float64, generator=generator)
    about = size * torch.cat([torch.ones(3), 1 + 5 * torch.rand(60, generator=generator)])
    found = conjugate_gradient(lambda v: size * v, size * x, preconditioner=lambda r: r / about, rtol=1e-2)
    assert found.status is Status.CONVERGED and float((found.x - x).norm() / x.norm()) < 2e-2


def test_scale_of_the_data_does_not_matter_to_the_tolerance():
    operator = 2.0 * Identity(GRID)
    b = noise(GRID.shape)
    small = operator.solve(1e-8 * b, 0.3, "gradient", rtol=1e-8)
    large = operator.solve(b, 0.3, "gradient", rtol=1e-8)
    torch.testing.assert_close(small.x * 1e8, large.x)


def test_cubic_keeps_world_positions_between_oblique_grids():
    def turned(grid, *angles):
        affine = grid.affine.copy()
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        affine[:3, :3] = turn @ affine[:3, :3]
        affine[:3, 3] = grid.centre + turn @ (grid.origin - grid.centre)
        return Grid(grid.shape, affine)

    scan = turned(Grid((32, 30, 12), np.diag([-1.0, 1.2, 3.0, 1.0])), 20, -10, 35)
    target = turned(
        Grid((24, 26, 22), np.array([[0, 1.1, 0, -30], [1, 0, 0, 2], [0, 0, -1, 28], [0, 0, 0, 1.0]])), 5, 7, 0
    )

    def spot(points):
        return np.exp(-0.5 * ((points - scan.centre) ** 2).sum(-1) / 6.0**2)

    found = cubic(torch.from_numpy(spot(scan.points()))[None, None], scan, target)[0, 0].numpy()
    inside = (np.abs(scan.to_voxel(target.points()) / (np.array(scan.shape) - 1) - 0.5) < 0.4).all(-1)
    assert inside.mean() > 0.2
    assert np.abs(found - spot(target.points()))[inside].max() < 0.01


@pytest.mark.parametrize("name", ["gaussian", "rician", "huber", "l1"])
def test_likelihoods_lower_their_own_objective(name):
    grid = centred_grid((16, 16, 16), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    y = (operator(shapes(grid, n_samples=8, size=16.0, dtype=F64)) + 0.05 * noise((16, 16, 4))).abs()
    model, lam = likelihood(name, 0.05), 0.05
    start = operator.adjoint(y)
    early, late = (
        iterate(ADMM(), operator, y, TV(), lam=lam, likelihood=model, x0=start, max_iter=n) for n in (15, 60)
    )

    def objective(x):  # lam is the weight against sigma^2 times the negative log-likelihood
        slope = gradient(x, grid.spacing.tolist(), operator.boundary)
        return float(0.05**2 * model.negative_log_likelihood(y, operator(x)) + lam * TV().cost(slope))

    assert objective(late.x) < objective(early.x) * 1.001
    assert objective(late.x) < objective(start)
    assert np.isfinite(late.gain)
