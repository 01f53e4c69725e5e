"""Steps and their driver: fixed points against dense algebra, descent, weights from iteration to iteration."""

import importlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from registry import CASES, SMALL, noise

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import UNet
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.differences import gradient
from invsr.numerics.levels import peak
from invsr.numerics.linear import largest_eigenvalue
from invsr.operators import Diagonal, Identity, KSpaceFilter, Stack, acquisition
from invsr.priors import TV, Denoiser, Prior, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Schedule, Status, iterate, likelihood, solve_quadratic
from invsr.solvers.residuals import as_tuple, chi2, like_data
from invsr.solvers.steps import Problem
from invsr.solvers.weighting import CHI2_LEAST, CHI2_TOLERANCE, ENDING
from invsr.testing.phantoms import centred_grid, shapes

driver = importlib.import_module("invsr.solvers.plug_and_play")

GRID = Grid((4, 5, 2), np.diag([1.0, 1.2, 3.0, 1.0]))
F64 = torch.float64
STEPS = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}


class Smoother(Prior):
    """A symmetric linear denoiser, ``(I + (strength sigma)^2 L)^-1`` with the periodic Laplacian L."""

    def __init__(self, strength=10.0):
        super().__init__()
        self.strength = strength

    def prox(self, v, sigma):
        a, b, c = (4 * torch.sin(torch.pi * torch.fft.fftfreq(n, dtype=v.real.dtype)) ** 2 for n in v.shape[-3:])
        laplacian = a[:, None, None] + b[:, None] + c
        axes = (-3, -2, -1)
        out = torch.fft.ifftn(torch.fft.fftn(v, dim=axes) / (1 + (self.strength * sigma) ** 2 * laplacian), dim=axes)
        return out if v.is_complex() else out.real


def dense(function, shape):
    columns = torch.eye(int(np.prod(shape)), dtype=F64).reshape(-1, 1, 1, *shape)
    return torch.stack([function(column[None, 0]).flatten() for column in columns], 1)


def problem(operator, y, prior):
    back = operator.adjoint(y)
    return Problem(operator, prior, back, y)


def repeat(step, task, lam, rho, n, state=None):
    state = step.start(task, torch.zeros_like(task.back_projection)) if state is None else state
    for _ in range(n):
        state = step(state, task, lam, rho)
    return state


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


def network(tail=1.0):
    torch.manual_seed(0)
    made = GradientStep(UNet(dim=3, channels=(4, 8), activation="elu")).double().requires_grad_(False)
    made.network.tail.weight.mul_(tail)
    return made


def plain(net):
    return Denoiser(net, dim=3, symmetries=False, crop=False, bfloat16=False)


# Fixed points ---------------------------------------------------------------------------------------


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


# Descent --------------------------------------------------------------------------------------------


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


def test_steps_refuse_priors_that_they_cannot_use():
    operator, y = Identity(GRID), noise(1, 1, *GRID.shape)
    for step, name in ((PGD(), "PGD"), (RED(), "RED"), (HQS(descend=True), "descent")):
        with pytest.raises(InvsrError, match=f"{name} needs a prior on the volume"):
            iterate(step, operator, y, TV(), lam=0.1)
    with pytest.raises(InvsrError, match="needs a prior with a cost, and Smoother has none"):
        iterate(HQS(descend=True), operator, y, Smoother(), sigma=0.1)


# Operators ------------------------------------------------------------------------------------------


def inpainting():
    return Diagonal(SMALL, (noise(*SMALL.shape, seed=5) > -0.5).double())


def blur():
    a, b, c = (torch.exp(-((3 * torch.fft.fftfreq(n, dtype=F64)) ** 2)) for n in SMALL.shape)
    return KSpaceFilter(SMALL, torch.fft.fftshift(a[:, None, None] * b[:, None] * c))


OPERATORS = {
    "inpainting": inpainting,
    "blur": blur,
    **{
        name: CASES[name].build
        for name in (
            "sampling, gap",
            "sampling, in-plane gaussian",
            "moved scan",
            "k-space crop",
            "k-space mask, real volumes",
            "k-space mask",
            "k-space mask, coils",
            "stack of orthogonal scans",
            "stack with an oblique scan",
        )
    },
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("step", STEPS)
def test_every_step_takes_every_operator(name, step):
    operator = OPERATORS[name]()
    points = torch.from_numpy(operator.domain.points() - operator.domain.centre)
    truth = torch.exp(-points.square().sum(-1) / 8)[None, None]
    if name in CASES and CASES[name].complex_domain:
        truth = truth * torch.exp(1j * points[..., 0] / 4)
    clean, sigma = operator(truth), 0.03
    y = like_data(tuple(a + sigma * noise(*a.shape, dtype=a.dtype, seed=1) for a in as_tuple(clean)), clean)
    solution = iterate(STEPS[step](), operator, y, Smoother(), sigma=sigma, max_iter=100, rtol=1e-4)
    likelihoods = tuple(Gaussian(sigma) for _ in as_tuple(y))
    start = torch.zeros_like(operator.adjoint(y))
    assert bool(solution.x.isfinite().all()) and solution.x.dtype == truth.dtype
    assert solution.chi2 < 0.5 * chi2(operator, likelihoods, y, operator(start))
    assert float((solution.x - truth).norm() / truth.norm()) < 0.5


@pytest.mark.parametrize("name", STEPS)
def test_volumes_of_a_batch_do_not_mix(name):
    operator = acquisition(GRID, 1.0)
    y = noise(2, 1, *GRID.shape)
    task = problem(operator, y, Smoother())
    both = repeat(STEPS[name](), task, 0.05, 1.0, 20).x
    for n in (0, 1):
        alone = repeat(STEPS[name](), replace(task, back_projection=task.back_projection[n : n + 1]), 0.05, 1.0, 20).x
        torch.testing.assert_close(both[n : n + 1], alone, rtol=0, atol=1e-10)


# The driver -----------------------------------------------------------------------------------------


def scan_of_shapes(sigma=0.03):
    grid = centred_grid((16, 14, 12), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 3)), reference=grid)
    clean = operator(shapes(grid, n_samples=4, size=16.0, dtype=F64))
    return operator, clean + sigma * noise(*clean.shape)


@pytest.mark.parametrize("name", STEPS)
def test_history_follows_the_schedule(name):
    operator, y = scan_of_shapes()
    schedule = Schedule(0.2, 0.05, 6, 1e-3)
    solution = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03, schedule=schedule, max_iter=9, rtol=0.0)
    assert all({"lam", "sigma", "chi2", "change", "split"} <= set(entry) for entry in solution.history)
    levels = [entry["sigma"] for entry in solution.history]
    np.testing.assert_allclose(levels, [*np.geomspace(0.2, 0.05, 6), 0.05, 0.05, 0.05])
    lams = [entry["lam"] for entry in solution.history]
    if name in ("pgd", "red"):  # their penalty is the operator's norm, whatever the level
        np.testing.assert_allclose(lams, largest_eigenvalue(operator.gram, solution.x) * np.square(levels))
    else:
        np.testing.assert_allclose(lams, 1e-3)
    assert solution.status is Status.MAX_ITER and len(solution.history) == 9
    assert solution.lam == lams[-1] and solution.chi2 == solution.history[-1]["chi2"]
    assert schedule == Schedule(0.2, 0.05, 6, 1e-3)  # good for another run


def test_default_schedule_ends_below_the_noise():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother(), sigma=0.03)
    levels = [entry["sigma"] for entry in solution.history]
    first = driver.FIRST_LEVEL * peak(driver.smooth_guess(operator, y))
    assert (
        levels[0] == pytest.approx(first)
        and levels[HQS.n_levels - 1] == pytest.approx(driver.LAST_LEVEL * 0.03) == levels[-1]
    )
    early = solution.history[: HQS.n_levels - ENDING + 1]
    assert all(entry["lam"] == pytest.approx(driver.PRIOR_WEIGHT * 0.03**2) for entry in early)
    assert solution.status is Status.CONVERGED and solution.history[-1]["change"] < 2e-2
    given = iterate(HQS(), operator, y, Smoother(), sigma=0.03, lam=0.02, max_iter=1)
    assert given.lam == 0.02


@pytest.mark.parametrize("name", STEPS)
def test_the_weight_grows_where_noise_is_fitted(name):
    operator, y = scan_of_shapes()
    light = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03, schedule=Schedule(0.2, 0.0075, 10, 1e-6))
    solution = iterate(STEPS[name](), operator, y, Smoother(), sigma=0.03)
    assert light.chi2 < 0.6 and solution.status is Status.CONVERGED
    assert CHI2_LEAST * (1 - 2 * CHI2_TOLERANCE) <= solution.chi2 < 1.3 and solution.lam > light.lam


def test_no_convergence_before_the_last_level():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother(), sigma=0.03, lam=driver.PRIOR_WEIGHT * 0.03**2, rtol=1e3)
    assert solution.status is Status.CONVERGED and len(solution.history) == HQS.n_levels


def test_noise_is_estimated_for_denoisers():
    operator, y = scan_of_shapes()
    solution = iterate(HQS(), operator, y, Smoother())
    assert solution.sigma == estimate_sigma(y)
    assert solution.history[-1]["sigma"] == pytest.approx(driver.LAST_LEVEL * solution.sigma)


@pytest.mark.parametrize("name", STEPS)
def test_weights_out_of_range(name):
    operator, y = acquisition(GRID, 1.0), noise(1, 1, *GRID.shape)

    def run(data=y, a=operator, **options):
        return iterate(STEPS[name](), a, data, Smoother(), **options)

    for lam in (0.0, -1.0):
        with pytest.raises(InvsrError, match=f"lam is {lam}"):
            run(lam=lam, sigma=0.1)
    for sigma in (0.0, -1.0):
        with pytest.raises(InvsrError, match="give lam or sigma"):
            run(sigma=sigma)
        with pytest.raises(InvsrError, match=f"sigma is {sigma}"):
            run(sigma=sigma, lam=0.1)
    with pytest.raises(InvsrError, match="stack of 2: give sigma"):
        run((y, y), Stack([operator, operator]))
    with pytest.raises(InvsrError, match="max_iter is 0"):
        run(sigma=0.1, max_iter=0)


@pytest.mark.parametrize("kind", ["constant", "ramp"])
def test_smooth_guess_continues_what_it_sees(kind):
    grid = centred_grid((10, 9, 24), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    points = torch.from_numpy(grid.points())
    truth = (points @ torch.tensor([0.02, -0.03, 0.05], dtype=F64) + 1)[None, None]
    truth = torch.full_like(truth, 0.7) if kind == "constant" else truth
    found = driver.smooth_guess(operator, operator(truth))
    if kind == "constant":
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-6)
    else:
        # A slope costs, so that it is a little too small, most at the faces.
        assert float((found - truth)[..., 4:-4].abs().max()) < 0.02


def test_smooth_guess_explains_the_data():
    operator, y = scan_of_shapes(sigma=0.03)
    guess = driver.smooth_guess(operator, y)
    assert chi2(operator, (Gaussian(0.03),), y, operator(guess)) < 0.2
    spread = gradient(guess, [1.0] * 3, operator.boundary).square().sum()
    zeros = operator.solve(operator.adjoint(y), 1e-6, "identity").x  # the least volume, not the least slope
    assert float(spread) < float(gradient(zeros, [1.0] * 3, operator.boundary).square().sum())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.solves and name != "resample, nowhere"])
def test_largest_eigenvalue(name):
    # Never below: PGD's step would be too long.
    operator = CASES[name].build()
    shape = (CASES[name].channels, *operator.domain.shape)
    kind = torch.complex128 if CASES[name].complex_domain else F64
    units = torch.eye(int(np.prod(shape)), dtype=kind).reshape(-1, 1, *shape)
    with torch.no_grad():
        gram = torch.stack([operator.gram(unit).flatten() for unit in units], 1)
        expected = float(torch.linalg.eigvalsh(gram)[-1])
        found = largest_eigenvalue(operator.gram, torch.zeros((1, *shape), dtype=kind))
    assert expected <= found <= 1.02 * expected
