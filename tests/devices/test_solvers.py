"""Priors, networks, likelihoods, steps and their drivers on CUDA give what they give on the CPU."""

from contextlib import nullcontext

import pytest
import torch
from compare import assert_same, everywhere
from small_grids import noise

from invsr.models.deviation import DeviationNetwork
from invsr.models.gradient_step import GradientStep
from invsr.models.joint import JointUNet
from invsr.models.networks import DnCNN, Network, UNet
from invsr.models.shuffled import ShuffledUNet
from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import L1, Gaussian, Huber, Masked, Rician
from invsr.noise.sampling import add_noise
from invsr.operators import Stack, acquisition
from invsr.priors import TV, Denoiser, JointTV, Prior, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Step, Unrolled, iterate, solve_quadratic
from invsr.solvers.equilibrium import Equilibrium
from invsr.solvers.spline import cubic
from invsr.testing.phantoms import centred_grid, shapes
from invsr.training.losses import LOSSES, combined
from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.uncertainty.evidence import split_evidence
from invsr.uncertainty.posterior import sample_posterior
from invsr.uncertainty.predicted import PredictedDeviation

GRID = centred_grid((10, 12, 8), 1.0)
SIGMA = 0.05
THOROUGH = pytest.mark.thorough
NETWORKS = {
    "UNet 2-D": lambda: UNet(2, (4, 6), blocks=1),
    "UNet 2.5-D": lambda: UNet(2, (4, 6), blocks=1, neighbours=2),
    "UNet 3-D": lambda: UNet(3, (4, 6), blocks=1),
    "joint": lambda: JointUNet(3, (4, 6), blocks=1),
    "ShuffledUNet": lambda: ShuffledUNet(3, (4, 6), blocks=1),
    "DnCNN": lambda: DnCNN(3, 4, depth=3),
    "gradient step": lambda: GradientStep(UNet(3, (4, 6), blocks=1, activation="elu")),
    "deviation": lambda: DeviationNetwork((4, 6), detail=2),
}


def network(name="UNet 3-D"):
    torch.manual_seed(0)
    return NETWORKS[name]().double().requires_grad_(False)


def denoiser(name="UNet 3-D", **options):
    return Denoiser(network(name), **{"bfloat16": False, **options})


def scan(thickness=2):
    """An operator, its data and the truth."""
    A = acquisition(GRID.coarsen((1, 1, thickness)), reference=GRID)
    truth = shapes(GRID, n_samples=12, size=10.0, dtype=torch.float64)
    y = A(truth)
    return A, y + SIGMA * noise(*y.shape), truth


def stack():
    parts = [scan(2), scan(4)]
    return Stack([one[0] for one in parts]), tuple(one[1] for one in parts), parts[0][2]


def compare(function, inputs, device, rtol=1e-8):
    """A function of tensors and modules, on copies of these on either device."""
    expected = function(*inputs())
    assert_same(function(*everywhere(inputs(), device)), expected, device, rtol)


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_nothing_is_left_out():
    def ours(kind):
        return {one for one in subclasses(kind) - {kind} if one.__module__.startswith("invsr.")}

    assert ours(Step) == set(STEPS.values())
    assert ours(Network) == {type(network(name)) for name in NETWORKS}
    public = {one for one in ours(Prior) if not one.__name__.startswith("_")}
    assert public == {type(make()) for make in PRIORS.values()}


# Priors, networks -----------------------------------------------------------------------------------

PRIORS = {
    "tv": TV,
    "tv huber": lambda: TV(huber=0.5),
    "joint tv, nuclear": JointTV,
    "joint tv, euclidean": lambda: JointTV(norm="euclidean"),
    "tikhonov gradient": Tikhonov,
    "tikhonov identity": lambda: Tikhonov("identity"),
    "denoiser, tiles": lambda: denoiser("DnCNN", tile=2000, symmetries=2),
    "denoiser, planes": lambda: denoiser("UNet 2.5-D", planes="all"),
    "denoiser, gradient step": lambda: denoiser("gradient step"),
    "denoiser, half precision": lambda: Denoiser(network().float(), bfloat16=True),
    "denoiser, by itself": lambda: Denoiser(network().float()),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors(name, cuda):
    prior = PRIORS[name]()
    bare = prior.analysis == "gradient"

    def prox_and_cost(prior, v):
        cost = prior.cost(v, 0.1) if prior.is_denoiser else prior.cost(v)
        return prior.prox(v, 0.1) if cost is None else (prior.prox(v, 0.1), cost.detach())

    def inputs():
        v = noise(*((3,) if bare else ()), 1, 1, 12, 13, 20, seed=1)
        if getattr(prior, "coarse", False) is False:
            return [PRIORS[name](), v]
        return [PRIORS[name](), v.float()]

    # Of half precision: devices may differ in the last of its digits in every layer.
    compare(prox_and_cost, inputs, cuda, 1e-8 if getattr(prior, "coarse", False) is False else 0.05)


@pytest.mark.parametrize("name", ["tv", "denoiser, tiles"])
def test_priors_of_complex_volumes(name, cuda):
    shape = (3, 1, 1, 8, 8, 12) if name == "tv" else (1, 1, 8, 8, 12)
    v = noise(*shape, dtype=torch.complex128)
    compare(lambda prior, v: prior.prox(v, 0.1), lambda: [PRIORS[name](), v], cuda)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, cuda, request):
    device = request.config.option.device

    def value_and_gradients(net, x):
        net.requires_grad_()
        out = net(x, 0.1)
        if name == "gradient step" and device != "cuda":
            return out.detach()  # forward differentiation crashes on tensors that only pretend
        return (out, *torch.autograd.grad(out.square().sum(), list(net.parameters())))

    made = network(name)
    shape = (2, made.inputs, *[8] * made.dim)
    compare(value_and_gradients, lambda: [network(name), noise(*shape)], cuda)


# Likelihoods, noise, losses -------------------------------------------------------------------------

LIKELIHOODS = {
    "gaussian": Gaussian(SIGMA),
    "rician": Rician(SIGMA),
    "huber": Huber(SIGMA, 1.5),
    "l1": L1(SIGMA, 0.01),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods(name, cuda):
    def of(y, prediction, inside):
        found = []
        for one in (LIKELIHOODS[name], Masked(LIKELIHOODS[name], inside)):
            found += [one.target(y, prediction), one.standardised_residual(y, prediction)]
            found.append(one.negative_log_likelihood(y, prediction))
        return tuple(found)

    y, prediction = noise(1, 1, 6, 7, 8).abs(), noise(1, 1, 6, 7, 8, seed=1).abs()
    compare(of, lambda: [y, prediction, y > 0.3], cuda)


def test_noise_is_estimated(cuda):
    truth = shapes(centred_grid((24, 24, 12)), n_samples=24, size=24.0)
    y = add_noise(truth, SIGMA, "rician", torch.Generator().manual_seed(0))
    for mask in (None, truth > 0):
        expected = estimate_sigma(y, mask=mask)
        assert estimate_sigma(y.to(cuda), mask=mask) == pytest.approx(expected, rel=1e-4)  # wherever the mask is
        assert estimate_sigma(y.to(cuda), mask=everywhere(mask, cuda)) == pytest.approx(expected, rel=1e-4)
    assert add_noise(truth.to(cuda), SIGMA).device.type == cuda.type


@pytest.mark.parametrize("name", [*LOSSES, "perceptual"])
def test_losses(name, cuda):
    def of(features, x, truth):
        return combined(f"{name} + physics", features)(x, truth, A.to(x.device), y.to(x.device), 0.1)

    grid = centred_grid((12, 12, 14))
    estimate, truth = noise(1, 1, *grid.shape), noise(1, 1, *grid.shape, seed=1)
    A = acquisition(grid.coarsen((1, 1, 2)), reference=grid)
    y = A(truth)
    compare(of, lambda: [network(), estimate, truth], cuda)


# Steps and drivers ----------------------------------------------------------------------------------

STEPS = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}
DRIVEN = {
    "tv": lambda: TV(),
    "denoiser": lambda: denoiser(symmetries=False, crop=False),
    "gradient step": lambda: denoiser("gradient step"),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("prior", ["denoiser", *(pytest.param(one, marks=THOROUGH) for one in ("tv", "gradient step"))])
@pytest.mark.parametrize("make", [pytest.param(scan, marks=THOROUGH), stack])
def test_iterate(name, prior, make, cuda):
    if prior == "tv" and name in ("pgd", "red"):
        return  # an analysis prior goes with a splitting

    def run(A, prior, y):
        step = HQS(descend=True) if (name, prior) == ("hqs", "gradient step") else STEPS[name]()
        return iterate(step, A, y, prior, sigma=SIGMA, max_iter=3).x

    _, y, _ = make()
    compare(run, lambda: [make()[0], DRIVEN[prior](), y], cuda)


@pytest.mark.parametrize(
    "name", ["rician", *(pytest.param(one, marks=THOROUGH) for one in ("gaussian", "huber", "l1"))]
)
def test_iterate_with_every_likelihood(name, cuda):
    def run(A, y):
        y = y.abs()
        kind = (Masked(LIKELIHOODS[name], y > 0.1),)
        return iterate(ADMM(), A, y, TV(), sigma=SIGMA, likelihood=kind, max_iter=3).x

    compare(run, lambda: list(scan()[:2]), cuda)


@pytest.mark.parametrize("make", [scan, stack])
def test_quadratic(make, cuda):
    def run(A, y):
        return solve_quadratic(A, y, Tikhonov(), sigma=SIGMA, max_iter=4).x

    compare(run, lambda: list(make()[:2]), cuda)


def test_cubic(cuda):
    A, y, _ = scan()
    compare(lambda y: cubic(y, A.range, A.domain), lambda: [y], cuda)


@pytest.mark.parametrize("name", ["hqs", *(pytest.param(name, marks=THOROUGH) for name in ("admm", "pgd"))])
@pytest.mark.parametrize("kind", [Unrolled, Equilibrium])
def test_trained_solvers_and_their_gradients(name, kind, cuda):
    def run(net, A, y):
        net.requires_grad_()
        out = net(A, y, SIGMA)
        slopes = torch.autograd.grad(out.square().sum(), list(net.parameters()), allow_unused=True)
        return (out, *(one for one in slopes if one is not None))

    def make():
        prior = denoiser(symmetries=False, crop=False)
        net = Unrolled(STEPS[name](), prior, 2) if kind is Unrolled else Equilibrium(STEPS[name](), prior, max_iter=4)
        return net.double()

    def solution(net, A, y):
        return net.requires_grad_(False).solve(A, y, SIGMA).x

    _, y, _ = scan()
    compare(solution, lambda: [make(), scan()[0], y], cuda)
    with pytest.warns() if kind is Equilibrium else nullcontext():  # four iterations are few
        compare(run, lambda: [make(), scan()[0], y], cuda)


# Uncertainty ----------------------------------------------------------------------------------------


def test_posterior_samples(cuda):
    def run(A, prior, y):
        drawn = sample_posterior(A, y, prior, SIGMA, n_samples=2)
        return drawn.mean, drawn.std

    _, y, _ = scan()
    compare(run, lambda: [scan()[0], denoiser(symmetries=False, crop=False), y], cuda)


def test_bootstrap(cuda):
    def run(A, y):
        def again(data):
            return solve_quadratic(A, data, Tikhonov(), lam=0.1).x

        return equivariant_bootstrap(again, A, again(y), y, SIGMA, n_samples=2)

    compare(run, lambda: list(scan()[:2]), cuda)


def test_predicted_deviation(cuda):
    grid = centred_grid((8, 8, 8), 1.0)

    def run(A, net, x):
        known = PredictedDeviation(net, {})
        factor = known.factor(lambda y: solve_quadratic(A, y, Tikhonov(), lam=0.1).x, A, x, SIGMA)
        return factor * known(A, x, SIGMA)

    operator = acquisition(grid.coarsen((1, 1, 2)), reference=grid)
    truth = shapes(grid, n_samples=12, size=10.0, dtype=torch.float64)
    compare(run, lambda: [operator, network("deviation"), truth], cuda)


def test_evidence(cuda):
    def run(A, x):
        found = split_evidence(A, x, SIGMA, 2.0)
        return found.data, found.share

    _, _, truth = scan()
    compare(run, lambda: [scan()[0], truth], cuda)
