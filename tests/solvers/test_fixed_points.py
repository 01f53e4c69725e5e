"""Fixed points of the steps against dense algebra."""

import numpy as np
import pytest
import torch
from small_grids import noise
from smoother import F64, GRID, STEPS, Smoother, problem, repeat

from invsr.numerics.linear import largest_eigenvalue
from invsr.operators import acquisition
from invsr.priors import TV, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Status, iterate, solve_quadratic


def dense(function, shape):
    columns = torch.eye(int(np.prod(shape)), dtype=F64).reshape(-1, 1, 1, *shape)
    return torch.stack([function(column[None, 0]).flatten() for column in columns], 1)


def smooth_problem(strength=1.0):
    operator = acquisition(GRID, 1.0)
    return problem(operator, noise(1, 1, *GRID.shape).cumsum(2) * 0.3, Smoother(strength))


def fixed_point(task, sigma, rho, kind):
    """By dense algebra, from the table in `invsr.solvers.steps`."""
    shape = task.operator.domain.shape
    gram = dense(task.operator.gram, shape)
    smooth = dense(lambda x: task.prior.prox(x, sigma), shape)
    one, b = torch.eye(len(gram), dtype=F64), task.back_projection.flatten()
    if kind == "gradient":  # grad f(x) + rho (x - D(x)) = 0
        return torch.linalg.solve(gram + rho * (one - smooth), b)
    return torch.linalg.solve(one - smooth @ (one - gram / rho), smooth @ b / rho)  # x = D(x - grad f(x) / rho)


@pytest.mark.parametrize(
    "step, kind",
    [
        (HQS(), "gradient"),
        (RED(accelerate=True), "gradient"),
        (RED(), "gradient"),
        (ADMM(), "prox"),
        (PGD(accelerate=True), "prox"),
        (PGD(), "prox"),
    ],
)
def test_fixed_points_are_those_of_the_table(step, kind):
    task = smooth_problem()
    sigma, rho = 1.0, task.norm
    found = repeat(step, task, rho * sigma**2, rho, 400).x.flatten()
    torch.testing.assert_close(found, fixed_point(task, sigma, rho, kind), rtol=0, atol=1e-6)
    other = fixed_point(task, sigma, rho, "prox" if kind == "gradient" else "gradient")
    assert float((found - other).norm() / other.norm()) > 0.02  # the two rows of the table are not the same


@pytest.mark.parametrize("make", [PGD, RED])
def test_momentum_saves_iterations(make):
    # A weak prior: what the scan does not see comes slowly.
    task = smooth_problem(strength=0.3)
    sigma, rho = 1.0, task.norm
    aim = fixed_point(task, sigma, rho, "prox" if make is PGD else "gradient")

    def iterations(step):
        state = step.start(task, torch.zeros_like(task.back_projection))
        for n in range(2000):
            if float((state.x.flatten() - aim).norm() / aim.norm()) < 1e-3:
                return n
            state = step(state, task, rho * sigma**2, rho)
        raise AssertionError("not reached")

    assert iterations(make(accelerate=True)) < 0.6 * iterations(make())


@pytest.mark.parametrize("name", STEPS)
def test_quadratic_prior_on_the_volume(name):
    operator, y, lam = acquisition(GRID, 1.0), noise(1, 1, *GRID.shape), 0.05
    found = iterate(STEPS[name](), operator, y, Tikhonov("identity"), lam=lam, max_iter=2000, rtol=1e-12)
    # HQS and RED see the prior through its envelope: 1 / lam + 1 / rho in the place of 1 / lam.
    rho = {"hqs": 1.0, "red": largest_eigenvalue(operator.gram, operator.adjoint(y))}.get(name)
    weight = lam if rho is None else 1 / (1 / lam + 1 / rho)
    expected = solve_quadratic(operator, y, Tikhonov("identity"), lam=weight)
    assert found.status is Status.CONVERGED
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-5)


def test_quadratic_prior_on_differences():
    operator, y = acquisition(GRID, 1.0), noise(1, 1, *GRID.shape)
    found = iterate(ADMM(), operator, y, Tikhonov(), lam=0.05, max_iter=3000, rtol=1e-10)
    torch.testing.assert_close(found.x, solve_quadratic(operator, y, Tikhonov(), lam=0.05).x, rtol=0, atol=1e-4)


def test_splitting_total_variation_without_a_dual_rounds_its_corner():
    # min_z lam |z| + rho/2 |Kx - z|^2 is lam times Huber's function of Kx with its corner at lam / rho.
    operator, y, lam, rho = acquisition(GRID, 1.0), noise(1, 1, *GRID.shape).cumsum(2) * 0.2, 0.03, 0.3
    split = repeat(HQS(), problem(operator, y, TV()), lam, rho, 500).x
    whole = repeat(ADMM(), problem(operator, y, TV(huber=lam / rho)), lam, rho, 500).x
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-4)
    sharp = repeat(ADMM(), problem(operator, y, TV()), lam, rho, 500).x
    assert float((split - sharp).abs().max()) > 0.01


@pytest.mark.parametrize("prior", [Tikhonov("identity"), TV()], ids=["tikhonov", "tv"])
def test_admm_stays_at_its_minimum_when_the_penalty_changes(prior):
    # The minimum of f + lam R does not depend on rho; the dual, in units of 1 / rho, does.
    task = problem(acquisition(GRID, 1.0), noise(1, 1, *GRID.shape).cumsum(2) * 0.2, prior)
    state = repeat(ADMM(), task, 0.05, 0.5, 1500)
    for rho in (2.0, 0.1):
        after = repeat(ADMM(), task, 0.05, rho, 3, state)
        assert float((after.x - state.x).norm() / state.x.norm()) < 1e-5
