"""Equilibria: gradients against back-propagation through every step, memory, and what is said when it fails."""

import warnings

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_grids import noise
from torch import nn

from invsr.errors import InvsrError, InvsrWarning
from invsr.models.networks import DnCNN
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.levels import peak
from invsr.operators import Stack, acquisition
from invsr.priors import Denoiser, Prior, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Status, discrepancy
from invsr.solvers.equilibrium import INITIAL_LEVEL, Equilibrium
from invsr.solvers.plug_and_play import LAST_LEVEL, PRIOR_WEIGHT, smooth_guess
from invsr.solvers.residuals import chi2
from invsr.solvers.steps import Problem
from invsr.testing.phantoms import centred_grid

F64 = torch.float64
STEPS = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}
GRID = centred_grid((8, 7, 6), 1.0)
SIGMA = 0.05
TIGHT = {"rtol": 1e-8, "max_iter": 200, "backward_rtol": 1e-8, "backward_max_iter": 200}


class Contraction(Prior):
    """Between the image and a learnt mean over its neighbours, more of the latter the more noise there is."""

    def __init__(self, factor=0.9):
        super().__init__()
        torch.manual_seed(0)
        self.factor = factor
        self.taps = nn.Parameter(torch.randn(27, dtype=F64))
        self.edges = nn.Parameter(0.3 * torch.randn(1, 1, 3, 3, 3, dtype=F64))

    def prox(self, v, sigma):
        padded = F.pad(v, (1,) * 6, mode="circular")
        mean = F.conv3d(padded, self.taps.softmax(0).reshape(1, 1, 3, 3, 3))
        share = sigma / (sigma + 0.06)
        return self.factor * (v + share * (mean - v)) + 0.02 * torch.tanh(F.conv3d(padded, self.edges))


def scan(thickness=3):
    operator = acquisition(GRID.coarsen((1, 1, thickness)), reference=GRID)
    points = torch.from_numpy(GRID.points() - GRID.centre)
    truth = torch.exp(-points.square().sum(-1) / 8)[None, None]
    y = operator(truth)
    return operator, y + SIGMA * noise(*y.shape, seed=3), truth


def model(step="hqs", **options):
    return Equilibrium(STEPS[step](), Contraction(), **options).double()


def unrolled(net, operator, y, n_iter=200):
    """The same, every step in the graph."""
    back = operator.adjoint(y)
    level = ((net.log_level.exp() * INITIAL_LEVEL) ** 2 + SIGMA**2) ** 0.5
    problem, lam = Problem(operator, net.prior, back, y), net.log_weight.exp() * PRIOR_WEIGHT * SIGMA**2
    rho = lam / level**2
    if isinstance(net.step, PGD):
        lam, rho = problem.norm * level**2, problem.norm
    state = net.step.start(problem, torch.zeros_like(back))
    for _ in range(n_iter):
        state = net.step(state, problem, lam, rho)
    state = net.step.start(problem, state.x)
    for k in range(net.n_ending):
        level = net.ending.level[k].exp() * SIGMA * LAST_LEVEL ** ((k + 1) / net.n_ending)
        lam = net.ending.weight[k].exp() * PRIOR_WEIGHT * SIGMA**2
        if isinstance(net.step, PGD):
            lam = problem.norm * level**2
        state = net.step(state, problem, lam, lam / level**2)
    return state.x


def gradients(net, x, truth, y):
    """Of a loss that weighs all voxels differently, per parameter and for the data."""
    names, leaves = zip(*net.named_parameters(), strict=True)
    loss = ((x - truth).square() * (1 + noise(*x.shape, seed=4).abs())).sum()
    found = torch.autograd.grad(loss, [*leaves, y], allow_unused=True)
    return {name: g for name, g in zip([*names, "data"], found, strict=True) if g is not None}


def difference(a, b):
    return float(((a - b).norm() / b.norm()).detach())


# Values and gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ending", [0, 2])
@pytest.mark.parametrize("step", STEPS)
def test_implicit_gradient_is_that_of_all_steps(step, n_ending):
    operator, y, truth = scan(2 if step == "red" else 3)
    y.requires_grad_()
    net = model(step, n_ending=n_ending, **TIGHT)
    with torch.no_grad():
        net.log_level += 0.3
        net.log_weight -= 0.2
        if n_ending:
            net.ending.level += torch.tensor([0.3, 1.0])
            net.ending.weight += torch.tensor([0.2, -0.3])
    torch.set_warn_always(True)  # by default it warns once per process
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = net(operator, y, SIGMA)
        found = gradients(net, x, truth, y)
    torch.set_warn_always(False)
    full = unrolled(net, operator, y)
    expected = gradients(net, full, truth, y)
    assert difference(x, full) < 1e-6 and net.last.status is net.last_backward.status is Status.CONVERGED
    assert set(found) == set(expected)
    assert ("log_weight" in found) == (step != "pgd")  # its step length leaves no room for a weight
    for name, gradient in expected.items():
        assert difference(found[name], gradient) < 1e-3, name


@pytest.mark.parametrize("step", ["hqs", "admm", "pgd"])
def test_jacobian_free_gradient_points_the_same_way(step):
    operator, y, truth = scan()
    y.requires_grad_()
    exact, cheap = model(step, **TIGHT), model(step, backward="jacobian_free", **TIGHT)
    a = gradients(exact, exact(operator, y, SIGMA), truth, y)
    b = gradients(cheap, cheap(operator, y, SIGMA), truth, y)
    assert cheap.last_backward is None and a.keys() == b.keys()
    a, b = (torch.cat([gradient.flatten() for gradient in one.values()]) for one in (a, b))
    assert difference(b, a) > 0.05
    assert float(torch.dot(a, b) / (a.norm() * b.norm())) > 0.5


def test_gradient_of_the_slice_thickness():
    # Operators with parameters solve by conjugate gradients, which end at a tolerance of their own.
    operator, y, truth = scan()
    operator.width.requires_grad_()
    net = model("hqs", rtol=1e-5, backward_rtol=1e-5)

    def loss():
        return (net(operator, y, SIGMA) - truth).square().sum()

    (slope,) = torch.autograd.grad(loss(), operator.width)
    values = []
    with torch.no_grad():
        for change in (0.05, -0.1):
            operator.width[2] += change
            values.append(float(loss()))
    assert float(slope[2]) == pytest.approx((values[0] - values[1]) / 0.1, rel=0.02)


@pytest.mark.parametrize("method", ["broyden", "plain"])
def test_methods_agree(method):
    operator, y, truth = scan()
    y.requires_grad_()
    one, other = model("admm", **TIGHT), model("admm", method=method, **TIGHT)
    a, b = one(operator, y, SIGMA), other(operator, y, SIGMA)
    assert difference(a, b) < 1e-6
    b = gradients(other, b, truth, y)
    for name, gradient in gradients(one, a, truth, y).items():
        assert difference(b[name], gradient) < 1e-5, name
    if method == "plain":
        assert one.last.n_iter < 0.7 * other.last.n_iter


def test_gradient_does_not_depend_on_its_scale():
    # Squares of 1e-30 are 0 in float32: the backward solve must not take that for convergence.
    operator, y, truth = scan()
    net = Equilibrium(HQS(), Contraction().float())
    scaled = []
    for scale in (1.0, 1e-30):
        loss = scale * (net(operator, y.float(), SIGMA) - truth.float()).square().sum()
        scaled.append(torch.autograd.grad(loss, net.prior.taps)[0].double() / scale)
    assert difference(scaled[1], scaled[0]) < 1e-3


def test_prior_on_differences():
    operator, y, truth = scan()
    net = Equilibrium(ADMM(), Tikhonov(), **TIGHT).double()

    def loss():
        return (net(operator, y, SIGMA) - truth).square().sum()

    level, weight = torch.autograd.grad(loss(), [net.log_level, net.log_weight])
    assert net.last.v.shape == (3, *truth.shape)
    values = []
    with torch.no_grad():
        for change in (1e-3, -2e-3):
            net.log_weight += change
            values.append(float(loss()))
    assert float(weight) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)
    # With a cost, the level only sets ADMM's penalty, on which its minimum does not depend.
    assert abs(float(level)) < 1e-3 * abs(float(weight))


def test_stack_of_scans():
    operator, y, truth = scan()
    y.requires_grad_()
    other = acquisition(GRID.coarsen((2, 1, 1)), reference=GRID)
    both, data = Stack([operator, other]), (y, other(truth))
    net = model("hqs", **(TIGHT | {"rtol": 1e-5, "backward_rtol": 1e-5}))
    found = gradients(net, net(both, data, SIGMA), truth, y)
    for name, gradient in gradients(net, unrolled(net, both, data, 60), truth, y).items():
        assert difference(found[name], gradient) < 1e-2, name  # conjugate gradients end at a tolerance
    assert net.solve(both, data, SIGMA).status is Status.CONVERGED


# Memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", ["implicit", "jacobian_free"])
def test_memory_does_not_grow_with_iterations(backward):
    operator, y, _ = scan()
    counts = []
    for n_iter in (5, 20):
        saved = []
        net = model("hqs", method="plain", backward=backward, rtol=0.0, max_iter=n_iter)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.append(t) or t, lambda t: t)
        with hooks, pytest.warns(InvsrWarning):
            net(operator, y, SIGMA)
        assert net.last.n_iter == n_iter
        counts.append(len(saved))
    assert 0 < counts[0] == counts[1]


def test_no_graph_without_gradients():
    operator, y, _ = scan()
    net = model(**TIGHT)
    with torch.no_grad():
        x = net(operator, y, SIGMA)
    assert not x.requires_grad
    torch.testing.assert_close(x, net(operator, y, SIGMA).detach(), rtol=0, atol=0)


# What is said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ending", [0, 2])
def test_solve_reports(monkeypatch, n_ending):
    monkeypatch.setattr(discrepancy, "CHI2_EXPECTED", (0.0, float("inf")))  # as it comes, whatever it leaves
    operator, y, truth = scan()
    y = y / peak(y)  # as the call without a report takes it
    net = model("admm", rtol=1e-6, max_iter=100, n_ending=n_ending)
    told = []
    found = net.solve(operator, y, SIGMA, progress=lambda done, _: told.append(done))
    assert told == sorted(told) and told[-1] == 1
    torch.testing.assert_close(found.x, net(operator, y, SIGMA).detach(), rtol=0, atol=1e-12)
    assert found.status is Status.CONVERGED and not found.x.requires_grad and found.grid == GRID
    assert [entry["change"] for entry in found.history] == list(net.last.history)
    assert found.chi2 == found.history[-1]["chi2"] == chi2(operator, (Gaussian(SIGMA),), y, operator(found.x))
    assert found.lam == pytest.approx(PRIOR_WEIGHT * SIGMA**2) and found.sigma == SIGMA
    short = model("admm", rtol=1e-6, max_iter=3)
    found = short.solve(operator, y, SIGMA, x0=torch.zeros_like(truth))
    assert found.status is Status.MAX_ITER and len(found.history) == 3
    assert any("max_iter = 3" in line for line in found.remarks())


def large_scan():
    grid = centred_grid((18, 16, 20), 1.0)
    operator = acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    points = torch.from_numpy(grid.points() - grid.centre)
    y = operator(torch.exp(-points.square().sum(-1) / 30)[None, None])
    return operator, y + SIGMA * noise(*y.shape, seed=3)


@pytest.mark.parametrize("step", ["hqs", "admm"])
def test_the_fixed_point_does_not_depend_on_the_start(step):
    operator, y = large_scan()
    rtol = 1e-3
    net, exact = model(step, rtol=rtol), model(step, rtol=1e-8, max_iter=200).solve(operator, y, SIGMA).x
    starts = (None, torch.zeros_like(exact), 3 * noise(*exact.shape, seed=5))
    found = [net.solve(operator, y, SIGMA, x0=start) for start in starts]
    for one in found:  # the prior contracts by 0.9, A* A does not expand
        assert one.status is Status.CONVERGED
        assert float((one.x - exact).norm() / exact.norm()) < rtol / (1 - 0.9)


def test_it_starts_from_a_coarser_grid():
    operator, y = large_scan()
    net, shapes, told = model(rtol=1e-3), [], []
    prox = net.prior.prox
    net.prior.prox = lambda v, sigma: shapes.append(tuple(v.shape[2:])) or prox(v, sigma)
    found = net.solve(operator, y, SIGMA, progress=lambda done, _: told.append(done))
    coarse, fine = (9, 8, 10), (18, 16, 20)
    assert set(shapes) == {coarse, fine} and shapes[0] == coarse and shapes[-1] == fine
    assert told == sorted(told) and told[-1] == 1
    n_fine = len(found.history)
    assert shapes[-n_fine:] == [fine] * n_fine  # no evaluation but those of the search
    from_guess = net.solve(operator, y, SIGMA, x0=smooth_guess(operator, y))
    assert found.history[0]["change"] < from_guess.history[0]["change"]  # it is nearer to the fixed point


def test_warns_when_it_does_not_converge():
    operator, y, _ = scan()
    with pytest.warns(InvsrWarning, match=r"^forward fixed point of HQS .* after 3 iterations .* raise max_iter"):
        x = model(max_iter=3)(operator, y, SIGMA)
    assert bool(x.isfinite().all())
    net = model(**(TIGHT | {"backward_max_iter": 2}))
    loss = net(operator, y, SIGMA).square().sum()
    with pytest.warns(InvsrWarning, match=r"^backward fixed point of HQS .* after 2 iterations .* backward_max_iter"):
        loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_expansive_prior_is_reported():
    operator, y, _ = scan()
    net = Equilibrium(HQS(), Contraction(factor=2.5), method="plain", max_iter=30).double()
    with pytest.warns(InvsrWarning, match="contracts"):
        x = net(operator, y, SIGMA)
    assert bool(x.isfinite().all()) and net.solve(operator, y, SIGMA).status is not Status.CONVERGED


def test_refuses_what_it_cannot_do():
    network = DnCNN(dim=3, channels=4, depth=3)
    for step, prior, options, match in (
        (HQS(), Contraction(), {"method": "newton"}, "'newton': use anderson, broyden, plain"),
        (HQS(), Contraction(), {"backward": "exact"}, "'exact': use implicit or jacobian_free"),
        (HQS(), Contraction(), {"backward_max_iter": 0}, "backward_max_iter 0: give at least 1"),
        (HQS(), Contraction(), {"n_ending": -1}, "n_ending is -1"),
        (HQS(descend=True), Contraction(), {}, "without"),
        (HQS(), Denoiser(network), {}, "symmetries=False"),
        (HQS(), Denoiser(lambda v, sigma: v, dim=2, symmetries=False), {}, "planes='all'"),
    ):
        with pytest.raises(InvsrError, match=match):
            Equilibrium(step, prior, **options)
    operator, y, _ = scan()
    Equilibrium(HQS(), Denoiser(network, symmetries=False))
    with pytest.raises(InvsrError, match=r"sigma is 0.0"):
        model()(operator, y, 0.0)


def test_last_steps_lead_on_from_the_fixed_point_and_measure_expansion():
    operator, y, _ = scan()
    net = model("hqs", n_ending=1, **TIGHT)
    for search in (False, True):
        x, _ = net.last_steps(operator, y, SIGMA, n_before=200, search=search)
        torch.testing.assert_close(x, net(operator, y, SIGMA), rtol=1e-6, atol=1e-7)
    # Far from it, a step's image of a step is shorter by about as much as T contracts, and longer where it expands.
    for factor, contracts in ((0.9, True), (1.6, False)):
        early = Equilibrium(HQS(), Contraction(factor)).double()
        _, expansion = early.last_steps(operator, y, SIGMA, n_before=3)
        assert (expansion.item() < 1) is contracts
        expansion.backward()
        assert float(early.prior.taps.grad.abs().max()) > 0
