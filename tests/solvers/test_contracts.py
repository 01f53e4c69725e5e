"""Steps and priors of one's own, as short as the guides write them; runs that diverge say so."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.models.networks import DnCNN
from invsr.noise.likelihoods import Gaussian, Huber, Masked, Rician, likelihood
from invsr.noise.sampling import add_noise
from invsr.operators import Diagonal, KSpaceMask, Stack, acquisition
from invsr.priors import TV, Denoiser, Prior, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Equilibrium, State, Status, Step, Unrolled, iterate
from invsr.solvers.state import Problem
from invsr.testing.phantoms import centred_grid, shapes

GRID = centred_grid((12, 10, 12), 1.0)
SIGMA = 0.02


class ISTA(Step):
    explicit = True

    def __init__(self, length=1.0):
        self.length = length

    def __call__(self, state, problem, lam, rho):
        step = self.length / problem.norm
        x = problem.prior.prox(state.x - step * problem.gradient(state.x), (lam * step) ** 0.5)
        return State(x=x, v=x)


class L1(Prior):
    def prox(self, v, sigma):
        return v.sign() * (v.abs() - sigma**2).clamp(min=0)

    def cost(self, z, sigma=0.0):
        return z.abs().sum()


class Mean(Prior):
    """D(v, sigma), and nothing else: the Wiener filter that knows the power of detail."""

    def prox(self, v, sigma):
        smooth = torch.nn.functional.avg_pool3d(v, 3, 1, 1, count_include_pad=False)
        return smooth + (v - smooth) * 0.1**2 / (0.1**2 + sigma**2)


def scan(factor=3.0):
    """An operator whose norm is far from 1, and data."""
    operator = factor * acquisition(GRID.coarsen((1, 1, 3)), reference=GRID)
    clean = operator(shapes(GRID, n_samples=4, size=12.0))
    return operator, add_noise(clean, SIGMA, generator=torch.Generator().manual_seed(0))


def test_ista_of_ones_own_reaches_the_minimum():
    operator, y = scan()
    y = y.double()
    found = iterate(ISTA(), operator, y, L1(), lam=0.05, max_iter=1000, rtol=0.0)
    expected = iterate(PGD(accelerate=True), operator, y, L1(), lam=0.05, max_iter=1000, rtol=0.0)
    problem = Problem(operator, L1(), operator.adjoint(y), y)
    assert problem.objective(found.x, 0.05, 1.0) == pytest.approx(problem.objective(expected.x, 0.05, 1.0), rel=0.01)


@pytest.mark.parametrize("step", [ISTA(), HQS(), ADMM()], ids=["ista", "hqs", "admm"])
def test_a_denoiser_without_further_words_explains_the_data(step):
    operator, y = scan(1.0)
    found = iterate(step, operator, y, Mean(), sigma=SIGMA)
    assert 0.7 <= found.chi2 <= 1.3 and not any("chi2" in line for line in found.remarks())
    assert found.history[0]["sigma"] > 2 * found.history[-1]["sigma"]  # lowered along a schedule


def test_ista_of_ones_own_in_the_trained_drivers():
    operator, y = scan(1.0)
    assert bool(Unrolled(ISTA(), Mean(), 3)(operator, y, SIGMA).isfinite().all())
    assert bool(Unrolled(ISTA(), Mean(), 3).solve(operator, y, SIGMA).x.isfinite().all())
    deq = Equilibrium(ISTA(), Mean(), max_iter=200)
    assert deq.solve(operator, y, SIGMA).status is Status.CONVERGED


def test_the_norm_is_computed_once_and_only_when_asked_for(monkeypatch):
    from invsr.solvers import state

    calls, real = [], state.largest_eigenvalue
    monkeypatch.setattr(state, "largest_eigenvalue", lambda *a: calls.append(1) or real(*a))
    operator, y = scan()
    iterate(ADMM(), operator, y, TV(), sigma=SIGMA, max_iter=5)
    assert calls == []
    iterate(ISTA(), operator, y, L1(), lam=0.05, likelihood=Huber(SIGMA), max_iter=5)  # re-targeted problems share it
    assert calls == [1]


@pytest.mark.parametrize("driver", [Unrolled, Equilibrium])
@pytest.mark.parametrize("step", [PGD(), RED()])
def test_gradients_in_the_operator_pass_through_the_length_of_the_step(driver, step):
    # The step is one over the operator's norm, which changes with the operator, too.
    operator, y = scan(1.0)
    limits = {"rtol": 1e-9, "max_iter": 1000, "backward_rtol": 1e-6, "backward_max_iter": 1000}
    options = {"n_steps": 3} if driver is Unrolled else limits
    network, y = driver(step, Mean(), **options).double(), y.double()
    width = operator.operator.width.requires_grad_()
    (slope,) = torch.autograd.grad(network(operator, y, SIGMA).square().sum(), width)
    values, there = [], width.detach().clone()
    for change in (1e-4, -1e-4):
        with torch.no_grad():
            width[2] = there[2] + change
            values.append(float(network(operator, y, SIGMA).square().sum()))
    assert float(slope[2]) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)


def test_explicit_steps_refuse_differences():
    operator, y = scan()
    with pytest.raises(InvsrError, match="ISTA needs a prior on the volume, not on its differences: use ADMM"):
        iterate(ISTA(), operator, y, TV(), lam=0.1)


def test_what_the_package_declares():
    assert [step.explicit for step in (HQS(), ADMM(), PGD(), RED())] == [False, False, True, True]
    assert [step.penalty_method for step in (HQS(), ADMM(), PGD(), RED())] == [True, False, False, True]
    assert HQS(descend=True).descends and not HQS().descends
    assert not any(prior.is_denoiser for prior in (TV(), Tikhonov(), L1())) and Mean().is_denoiser
    network = DnCNN(dim=2, channels=4, depth=3)
    assert Denoiser(network).is_denoiser and not Denoiser(network).deterministic
    assert not Denoiser(network, symmetries=False).deterministic  # random planes
    assert Denoiser(network, symmetries=False, planes="all").deterministic and Mean().deterministic
    models = (Gaussian(1.0), Rician(1.0), Huber(1.0), likelihood("l1", 1.0), Masked(Gaussian(1.0), torch.ones(1) > 0))
    assert [one.retargets for one in models] == [False, True, True, True, True]


# Divergence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [L1(), Mean()], ids=["l1", "denoiser"])
def test_too_long_a_step_diverges_with_a_name(prior):
    operator, y = scan()
    found = iterate(ISTA(length=8.0), operator, y, prior, lam=1e-3, sigma=SIGMA, max_iter=200)
    assert found.status is Status.DIVERGED and len(found.history) < 40
    (line,) = found.remarks()
    assert "diverged after" in line and "Problem.norm" in line


def test_a_denoiser_that_amplifies_diverges():
    class Louder(Prior):
        def prox(self, v, sigma):
            return 3 * v

    hidden = torch.ones(GRID.shape)
    hidden[:6] = 0  # where the data say nothing, nothing holds the volume back
    operator = Diagonal(GRID, hidden)
    y = operator(shapes(GRID, n_samples=4, size=12.0))
    found = iterate(HQS(), operator, y, Louder(), sigma=SIGMA, x0=y + 0.1)
    assert found.status is Status.DIVERGED and "amplifies" in found.remarks()[0]


def test_values_that_are_not_finite_stop_the_run():
    class Broken(Prior):
        def prox(self, v, sigma):
            return v * float("nan")

    operator, y = scan(1.0)
    found = iterate(HQS(), operator, y, Broken(), sigma=SIGMA)
    assert found.status is Status.DIVERGED and len(found.history) == 1
    assert Unrolled(PGD(), Broken(), 2).solve(operator, y, SIGMA).status is Status.DIVERGED


@pytest.mark.parametrize("start", [1e3, 0.0])
def test_a_bad_first_guess_is_no_divergence(start):
    operator, y = scan(1.0)
    x0 = torch.full((1, 1, *GRID.shape), start)
    found = iterate(ADMM(), operator, y, TV(), sigma=SIGMA, x0=x0, max_iter=200)
    assert found.status is Status.CONVERGED and found.chi2 < 1.3


def test_complex_runs_that_miss_the_data_say_so():
    operator = KSpaceMask(GRID, torch.ones(GRID.shape))
    clean = operator(shapes(GRID, n_samples=4, size=12.0) + 0j)
    y = add_noise(clean, SIGMA, "complex", torch.Generator().manual_seed(0))
    good = iterate(ADMM(), operator, y, TV(), sigma=SIGMA, max_iter=100)
    assert good.status is Status.CONVERGED and not any("chi2" in line for line in good.remarks())
    quiet = iterate(ADMM(), operator, y, TV(), sigma=SIGMA / 3, lam=0.2, max_iter=100)
    assert any("chi2 is" in line for line in quiet.remarks())
    short = iterate(ADMM(), operator, y, TV(), sigma=SIGMA, max_iter=1)
    assert any("max_iter = 1" in line and "raise max_iter" in line for line in short.remarks())


def test_a_stack_of_real_scans_is_retargeted_scan_by_scan():
    operator = Stack([acquisition(GRID.coarsen((1, 1, 3)), reference=GRID)] * 2)
    y = operator(shapes(GRID, n_samples=4, size=12.0))
    x = torch.zeros(1, 1, *GRID.shape)
    problem = Problem(operator, L1(), operator.adjoint(y), y)
    assert problem.retargeted((Gaussian(1.0),) * 2, y, x) is problem
    moved = problem.retargeted((Gaussian(1.0), Huber(0.01)), y, x)
    assert torch.equal(moved.target[0], y[0]) and float(moved.target[1].abs().max()) < 0.014


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"y": "list"}, "as a tuple, not as a list"),
        ({"y": "one"}, "tuple of 2 tensors"),
        ({"likelihood": Gaussian(0.1)}, "1 for 2 scans"),
        ({"likelihood": (Gaussian(0.1),) * 3}, "3 for 2 scans"),
        ({"likelihood": [Gaussian(0.1)] * 2}, "as a tuple, not as a list"),
    ],
)
def test_data_and_likelihoods_are_one_for_each_scan(options, says):
    operator = Stack([acquisition(GRID.coarsen((1, 1, 3)), reference=GRID)] * 2)
    y = operator(shapes(GRID, n_samples=4, size=12.0))
    given = {"list": list(y), "one": y[0]}.get(options.get("y"), y)
    with pytest.raises(InvsrError, match=says):
        iterate(ADMM(), operator, given, TV(), sigma=SIGMA, likelihood=options.get("likelihood"))
    with pytest.raises(InvsrError, match=says):
        Unrolled(HQS(), Mean(), 2).solve(operator, given, SIGMA, likelihood=options.get("likelihood"))


def test_one_scan_is_no_tuple():
    operator, y = scan()
    with pytest.raises(InvsrError, match="one tensor as y, not a tuple"):
        iterate(ADMM(), operator, (y,), TV(), sigma=SIGMA)
