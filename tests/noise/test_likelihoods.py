"""Likelihoods: majorisers, descent, residual statistics, limits."""

import math

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.noise.likelihoods import L1, Gaussian, Huber, Rician, likelihood

SIGMA = 0.7
ALL = [Gaussian(SIGMA), Rician(SIGMA), Huber(SIGMA), Huber(SIGMA, 0.3), L1(SIGMA), L1(SIGMA, 2.0)]
IDS = [repr(model) for model in ALL]


def each(model, y, p):
    """nll of every datum by itself."""
    return torch.stack([model.negative_log_likelihood(a, b) for a, b in zip(y, p, strict=True)])


def random_data(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y, p, q = 6 * torch.rand(3, n, dtype=torch.float64, generator=generator)
    return y, p - 1, q - 1  # predictions may be negative


@pytest.mark.parametrize("model", ALL, ids=IDS)
def test_majoriser_touches_at_p_and_lies_above_elsewhere(model):
    y, p, q = random_data(300)
    t = model.target(y, p)

    def bound(x):
        return each(model, y, p) + ((x - t) ** 2 - (p - t) ** 2) / (2 * SIGMA**2)

    assert (bound(q) - each(model, y, q)).min() > -1e-12
    # Touching to first order: the gap closes quadratically, with at most the curvature of the majoriser
    # (and, for the Rician, that of log I0, at most (y / sigma^2)^2).
    h = 1e-3
    for step in (-h, h):
        gap = bound(p + step) - each(model, y, p + step)
        assert (gap > -1e-12).all()
        assert (gap <= (1 + y**2 / SIGMA**2) * h**2 / SIGMA**2).all()


@pytest.mark.parametrize("model", ALL, ids=IDS)
def test_target_is_prediction_minus_gradient(model):
    y, p, _ = random_data(50)
    p.requires_grad_()
    (gradient,) = torch.autograd.grad(model.negative_log_likelihood(y, p), p)
    torch.testing.assert_close(model.target(y, p), p - SIGMA**2 * gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", ALL, ids=IDS)
def test_iterations_find_the_minimum_of_a_scalar_problem(model):
    # One unknown a measured several times, one outlier: A = ones, the data step is the mean of the targets.
    y = torch.tensor([2.0, 2.3, 1.8, 2.1, 9.0], dtype=torch.float64)
    a = y.mean()
    costs = []
    for _ in range(1000):
        p = a.expand_as(y)
        costs.append(float(model.negative_log_likelihood(y, p)))
        a = model.target(y, p).mean()
    assert (np.diff(costs) <= 1e-12).all()
    line = torch.linspace(0, 9, 9001, dtype=torch.float64)
    brute = line[torch.stack([model.negative_log_likelihood(y, v.expand_as(y)) for v in line]).argmin()]
    assert abs(float(a - brute)) < 2e-3


def test_l1_and_huber_shrug_off_the_outlier():
    y = torch.tensor([2.0, 2.3, 1.8, 2.1, 9.0], dtype=torch.float64)
    found = {}
    for model in (Gaussian(0.1), Huber(0.1), L1(0.1)):
        a = y.mean()
        for _ in range(1000):
            a = model.target(y, a.expand_as(y)).mean()
        found[type(model).__name__] = float(a)
    assert found["Gaussian"] == pytest.approx(3.44)
    assert abs(found["Huber"] - 2.1) < 0.15
    assert found["L1"] == pytest.approx(2.1, abs=0.01)  # the median


@pytest.mark.parametrize("a", [0.0, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("kind", ["gaussian", "rician", "huber", "l1"])
def test_standardised_residual_has_zero_mean_and_unit_variance(kind, a):
    n = 200_000
    generator = torch.Generator().manual_seed(1)
    real, imaginary = SIGMA * torch.randn(2, n, dtype=torch.float64, generator=generator)
    y = torch.hypot(a + real, imaginary) if kind == "rician" else a + real
    r = likelihood(kind, SIGMA).standardised_residual(y, torch.full_like(y, a))
    # Five standard errors; at a = 0 the Rician r is exponential with fourth central moment 9.
    assert abs(float(r.mean())) < 5 / math.sqrt(n)
    assert abs(float(r.var()) - 1) < 5 * math.sqrt(8 / n)


def test_rician_nll_is_the_density():
    # Unlike the others it has a known normaliser: y / s^2 exp(-nll) integrates to 1 over y for every a.
    y = torch.linspace(0, 30, 100_001, dtype=torch.float64)
    for a in (0.0, 1.0, 5.0):
        nll = (y**2 + a**2) / (2 * SIGMA**2) - torch.log(torch.special.i0(y * a / SIGMA**2))
        finite = torch.isfinite(nll)
        ours = each(Rician(SIGMA), y[:100], torch.full((100,), a, dtype=torch.float64))
        torch.testing.assert_close(ours, nll[:100])
        density = (y / SIGMA**2 * torch.exp(-nll))[finite]
        assert float(torch.trapezoid(density, y[finite])) == pytest.approx(1, abs=1e-6)


def test_rician_becomes_gaussian_at_high_snr():
    y, p = torch.tensor([1000.0, 1000.5]), torch.tensor([999.0, 1001.0])
    rician, gaussian = Rician(SIGMA), Gaussian(SIGMA)
    # t = y - s^2 / (2 p) + ...
    torch.testing.assert_close(rician.target(y, p), gaussian.target(y, p), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        rician.standardised_residual(y, p), gaussian.standardised_residual(y, p), rtol=5e-3, atol=5e-3
    )
    difference = each(rician, y, p) - each(gaussian, y, p)  # only the slow log sqrt(y p) is left
    assert float(difference.diff().abs()) < 2e-3


def test_rician_is_stable_at_huge_and_zero_arguments():
    y = torch.tensor([0.0, 1e6, 1e6, 0.0], requires_grad=True)
    p = torch.tensor([0.0, 1e6, 0.0, 1e6], requires_grad=True)
    model = Rician(1e-2)
    for value in (model.target(y, p), model.negative_log_likelihood(y, p), model.standardised_residual(y, p)):
        gradients = torch.autograd.grad(value.sum(), (y, p))
        assert torch.isfinite(value).all() and all(torch.isfinite(g).all() for g in gradients)
    assert model.target(y, p)[0] == 0


def test_huber_becomes_gaussian_for_large_delta():
    y, p, _ = random_data(100)
    wide, gaussian = Huber(SIGMA, 1e6), Gaussian(SIGMA)
    torch.testing.assert_close(wide.target(y, p), y)
    torch.testing.assert_close(wide.negative_log_likelihood(y, p), gaussian.negative_log_likelihood(y, p))


def test_l1_tails_have_slope_eps_and_huber_tails_slope_delta():
    y = torch.tensor([1000.0, 1001.0], dtype=torch.float64) * SIGMA
    zero = torch.zeros_like(y)
    assert float(each(L1(SIGMA, 0.1), y, zero).diff()) == pytest.approx(0.1, rel=1e-6)
    assert float(each(Huber(SIGMA, 2.0), y, zero).diff()) == pytest.approx(2.0)


@pytest.mark.parametrize("model", [Gaussian(SIGMA), Huber(SIGMA), L1(SIGMA)], ids=lambda m: type(m).__name__)
def test_complex_data(model):
    y = torch.tensor([3 + 4j, 0.1j], dtype=torch.complex128)
    turn = torch.polar(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))
    zero = torch.zeros_like(y)
    torch.testing.assert_close(model.target(y, zero).abs(), model.target(y.abs(), zero.abs()))
    torch.testing.assert_close(model.target(turn * y, zero), turn * model.target(y, zero))
    torch.testing.assert_close(
        model.negative_log_likelihood(y, zero), model.negative_log_likelihood(y.abs(), zero.abs())
    )


@pytest.mark.parametrize("model", ALL, ids=IDS)
def test_shape_dtype_and_scalar(model):
    y = torch.rand(1, 1, 3, 4, 2)
    p = torch.rand(1, 1, 3, 4, 2)
    for value in (model.target(y, p), model.standardised_residual(y, p)):
        assert value.shape == y.shape and value.dtype == torch.float32
    assert model.negative_log_likelihood(y, p).shape == ()
    with pytest.raises(InvsrError, match=r"\(1, 1, 3, 4, 2\).*\(3, 4, 2\)"):
        model.target(y, p[0, 0])


def test_by_name_and_bad_input():
    assert likelihood("Rician", 2.0) == Rician(2.0)
    assert likelihood("l1", 2.0).sigma == 2.0
    with pytest.raises(InvsrError, match="'poisson'.*gaussian, rician, huber, l1"):
        likelihood("poisson", 1.0)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvsrError, match="sigma is"):
            likelihood("gaussian", bad)
    with pytest.raises(InvsrError, match="delta is"):
        Huber(1.0, 0.0)
    with pytest.raises(InvsrError, match="-0.5.*gaussian"):
        Rician(1.0).target(torch.tensor([1.0, -0.5]), torch.ones(2))
    with pytest.raises(InvsrError, match="complex"):
        Rician(1.0).target(torch.ones(2, dtype=torch.complex64), torch.ones(2))
