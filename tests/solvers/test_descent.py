"""Descent: steps that never raise the objective, and where they end."""

import itertools

import numpy as np
import pytest
import torch
from small_grids import noise
from smoother import F64

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import UNet
from invsr.numerics.levels import peak
from invsr.operators import acquisition
from invsr.priors import Denoiser
from invsr.solvers import HQS, Schedule, Status, iterate, likelihood
from invsr.solvers import plug_and_play as driver
from invsr.solvers.steps import Problem
from invsr.testing.phantoms import centred_grid, shapes


def network(tail=1.0):
    torch.manual_seed(0)
    made = GradientStep(UNet(dim=3, channels=(4, 8), activation="elu")).double().requires_grad_(False)
    made.network.tail.weight.mul_(tail)
    return made


def plain(net):
    return Denoiser(net, dim=3, symmetries=False, crop=False, bfloat16=False)


def descent(step, max_iter, tail=1.0, slices=4, **options):
    """A run at one noise level, its problem and data; x0 is the same in all."""
    grid = centred_grid((8, 8, 8), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 8 // slices)), reference=grid)
    y = operator(shapes(grid, n_samples=4, size=8.0, dtype=F64))
    y = (y + 0.05 * noise(*y.shape)).abs()
    y = y / peak(y)
    prior = plain(network(tail))
    schedule = Schedule(SIGMA, SIGMA, 1, LAM)
    solution = iterate(step, operator, y, prior, sigma=0.05, schedule=schedule, max_iter=max_iter, **options)
    return solution, Problem(operator, prior, operator.adjoint(y), y), y


SIGMA, LAM = 0.1, 0.02
RHO = LAM / SIGMA**2


@pytest.mark.parametrize("tail", [1.0, 4.0, 16.0])
def test_descent_never_raises_the_objective(tail):
    solution, task, y = descent(HQS(descend=True), 80, tail, rtol=0.0)
    first = task.objective(driver.smooth_guess(task.operator, y), LAM, RHO)
    values = np.array([first, *(entry["objective"] for entry in solution.history)])
    assert (np.diff(values) <= 1e-7 * values[:-1]).all() and values[-1] < 0.85 * first
    assert values[-1] == pytest.approx(task.objective(solution.x, LAM, RHO), rel=1e-9)
    if tail > 1:  # too steep a network for full steps: the same run without the guard diverges
        free, _, _ = descent(HQS(), 80, tail, rtol=0.0)
        assert not task.objective(free.x, LAM, RHO) < first


@pytest.mark.parametrize("tail", [1.0, 4.0])
def test_descent_ends_where_the_objective_is_stationary(tail):
    solution, task, y = descent(HQS(descend=True), 200, tail, slices=8, rtol=1e-7)
    assert solution.status is Status.CONVERGED

    def slope(x):
        return float((task.gradient(x) + RHO * (x - task.prior.prox(x, SIGMA))).norm())

    assert slope(solution.x) < 1e-5 * slope(driver.smooth_guess(task.operator, y))
    # The same by differences: `cost` and `prox` belong together.
    for seed in range(3):
        step = 1e-3 * noise(1, 1, 8, 8, 8, seed=seed)
        around = [task.objective(solution.x + share * step, LAM, RHO) for share in (1, -1)]
        assert min(around) > solution.history[-1]["objective"]


@pytest.mark.parametrize("model", ["huber", "l1", "rician"])
def test_descent_with_retargeted_data(model):
    # Majorise-minimise: the likelihood's own objective falls as well.
    made, values = likelihood(model, 0.05), []
    start = torch.full((1, 1, 8, 8, 8), 0.05, dtype=F64)  # far off: Huber's target then moves with the volume
    for n in (1, 4, 16, 64):
        solution, task, y = descent(HQS(descend=True), n, likelihood=made, x0=start, rtol=0.0)
        nll = made.negative_log_likelihood(y, task.operator(solution.x))
        values.append(float(0.05**2 * nll + LAM * task.prior.cost(solution.x, SIGMA)))
    assert all(after < before for before, after in itertools.pairwise(values))
