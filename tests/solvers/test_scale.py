"""Units do not matter: data times c give a volume times c, after as many iterations."""

import numpy as np
import pytest
import torch

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import UNet
from invsr.noise.sampling import add_noise
from invsr.numerics.levels import peak
from invsr.operators import KSpaceMask, acquisition
from invsr.priors import TV, Denoiser, Prior, Tikhonov
from invsr.solvers import ADMM, HQS, PGD, RED, Equilibrium, Unrolled, iterate, likelihood, solve_quadratic
from invsr.testing.phantoms import centred_grid, shapes
from invsr.uncertainty import sample_posterior

GRID = centred_grid((12, 10, 12), 1.0)
SIGMA = 0.02
F64 = torch.float64


class Bent(Prior):
    """A denoiser that knows bright tissue at 1: of other intensities it makes something else."""

    def prox(self, v, sigma):
        return v - 0.3 * sigma * v.abs().clamp(max=1.5) * torch.tanh(2 * v.abs()) * torch.sgn(v)


class L1(Prior):
    def prox(self, v, sigma):
        return torch.sgn(v) * (v.abs() - sigma**2).clamp(min=0)

    def cost(self, z, sigma=0.0):
        return z.abs().sum()


def gradient_step():
    torch.manual_seed(0)
    network = GradientStep(UNet(dim=3, channels=(4, 8), activation="elu")).double().requires_grad_(False)
    return Denoiser(network, dim=3)


def solver(make, **options):
    return lambda A, y, sigma: make(**options).double().solve(A, y, sigma)


def iterated(step, prior, noise=None, **options):
    def run(A, y, sigma):
        model = None if noise is None else likelihood(noise, sigma)
        return iterate(step, A, y, prior, sigma=sigma, likelihood=model, max_iter=40, **options)

    return run


RUNS = {
    "tv": iterated(ADMM(), TV()),
    "tv, rician": iterated(ADMM(), TV(), "rician"),
    "tv, huber": iterated(ADMM(), TV(), "huber"),
    "l1": iterated(PGD(accelerate=True), L1()),
    "tikhonov": lambda A, y, sigma: solve_quadratic(A, y, Tikhonov(), sigma=sigma),
    "tikhonov, iterated": iterated(ADMM(), Tikhonov()),
    "tikhonov on the volume": iterated(HQS(), Tikhonov("identity")),
    "pnp, hqs": iterated(HQS(), Bent()),
    "pnp, admm": iterated(ADMM(), Bent()),
    "pnp, pgd": iterated(PGD(), Bent()),
    "pnp, red": iterated(RED(), Bent()),
    "pnp, descent": iterated(HQS(descend=True), gradient_step()),
    "unrolled": solver(lambda: Unrolled(HQS(), Bent(), 4)),
    "unrolled, pgd": solver(lambda: Unrolled(PGD(), Bent(), 4)),
    "equilibrium": solver(lambda: Equilibrium(HQS(), Bent())),
    "equilibrium, pgd": solver(lambda: Equilibrium(PGD(), Bent())),
}


def scan(operator):
    truth = shapes(GRID, n_samples=4, size=12.0, dtype=F64)
    if operator.complex_range:
        truth = truth * torch.exp(1j * torch.linspace(-1, 1, 12, dtype=F64)[:, None, None])
    clean = operator(truth)
    y = add_noise(clean, SIGMA, "complex" if clean.is_complex() else "rician", torch.Generator().manual_seed(0))
    return y if clean.is_complex() else y / peak(y)


def slices():
    return acquisition(GRID.coarsen((1, 1, 3)), reference=GRID)


def k_space():
    return KSpaceMask(GRID, (torch.rand(GRID.shape, generator=torch.Generator().manual_seed(1)) < 0.6).double())


@pytest.mark.parametrize("unit", [1e3, 1e-3])
@pytest.mark.parametrize("name", RUNS)
def test_the_volume_has_the_unit_of_the_data(name, unit):
    operator = slices()
    y = scan(operator)
    one, other = RUNS[name](operator, y, SIGMA), RUNS[name](operator, unit * y, unit * SIGMA)
    assert len(one.history) == len(other.history) and one.status is other.status
    torch.testing.assert_close(other.x / unit, one.x, rtol=0, atol=1e-6)
    assert other.chi2 == pytest.approx(one.chi2, rel=1e-5) and other.gain == pytest.approx(one.gain)
    assert other.sigma == unit * SIGMA


@pytest.mark.parametrize("name", ["tv", "l1", "pnp, admm", "pnp, red", "unrolled"])
def test_so_has_that_of_k_space(name):
    operator = k_space()
    y = scan(operator)
    one, other = RUNS[name](operator, y, SIGMA), RUNS[name](operator, 1e3 * y, 1e3 * SIGMA)
    assert len(one.history) == len(other.history) and one.status is other.status
    torch.testing.assert_close(other.x / 1e3, one.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", [1e3, 1e-3])
def test_samples_have_the_unit_of_the_data(unit):
    operator = slices()
    y = scan(operator)
    one = sample_posterior(operator, y, Bent(), SIGMA, n_samples=2)
    other = sample_posterior(operator, unit * y, Bent(), unit * SIGMA, n_samples=2)
    torch.testing.assert_close(other.samples / unit, one.samples, rtol=0, atol=1e-6)
    torch.testing.assert_close(other.std / unit, one.std, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prior, power", [(TV(), 1), (L1(), 1), (Tikhonov("identity"), 0)])
def test_a_given_weight_means_the_objective_as_it_is_written(prior, power):
    # 1/2 ||A x - y||^2 + lam R(x) in the units of the data: lam grows with them as 1/2 ||.||^2 / R does.
    operator = slices()
    y = scan(operator)
    one = iterate(ADMM(), operator, y, prior, lam=0.02, max_iter=30, rtol=0.0)
    other = iterate(ADMM(), operator, 1e3 * y, prior, lam=0.02 * 1e3**power, max_iter=30, rtol=0.0)
    np.testing.assert_allclose(other.x / 1e3, one.x, atol=1e-3 if power else 1e-6)
