"""Stated uncertainties: against a Gaussian posterior in closed form, and against the errors themselves."""

import math

import numpy as np
import pytest
import torch
from small_grids import noise

from invsr.errors import InvsrError
from invsr.operators import Identity, KSpaceMask, Stack, acquisition
from invsr.priors import Prior, Tikhonov
from invsr.solvers import likelihood
from invsr.solvers.residuals import n_measured
from invsr.testing.phantoms import centred_grid
from invsr.uncertainty import bootstrap
from invsr.uncertainty.bootstrap import Move, equivariant_bootstrap
from invsr.uncertainty.deviation import interval_deviation
from invsr.uncertainty.evidence import split_evidence
from invsr.uncertainty.posterior import WIDENING, Samples, sample_posterior
from invsr.uncertainty.replicas import noise_replicas

F64 = torch.float64
GRID = centred_grid((8, 8, 8), 1.0)
SIGMA, WIDTH = 0.1, 0.3


class White(Prior):
    """The denoiser of independent voxels with mean 0.5 and standard deviation WIDTH."""

    def prox(self, v, sigma):
        return 0.5 + (v - 0.5) * WIDTH**2 / (WIDTH**2 + sigma**2)


def data(operator, seed=1):
    truth = 0.5 + WIDTH * noise(1, 1, *GRID.shape, seed=seed)
    y = operator(truth)
    return truth, y + SIGMA * noise(*y.shape, seed=seed + 50)


def test_samples_of_a_gaussian_posterior():
    operator = acquisition(GRID.coarsen((1, 1, 2)), reference=GRID)
    _, y = data(operator)
    drawn = sample_posterior(operator, y, White(), SIGMA, n_samples=60, seed=3)
    # (A*A / sigma^2 + I / width^2)^-1, one column of voxels at a time: A acts along one axis.
    matrix = operator(torch.eye(8, dtype=F64)[:, None, None, None, :].expand(8, 1, 8, 8, 8))[:, 0, 0, 0, :].T
    covariance = torch.linalg.inv(matrix.T @ matrix / SIGMA**2 + torch.eye(8) / WIDTH**2)
    right = (operator.adjoint(y) / SIGMA**2 + 0.5 / WIDTH**2)[0, 0]
    mean = right @ covariance
    assert float((drawn.mean[0, 0] - mean).norm() / mean.norm()) < 0.1
    found = (drawn.samples - drawn.mean).square().mean().sqrt()
    assert 0.5 < float(found / covariance.diag().mean().sqrt()) < 1.6
    # Few steps are no exact sampler, but what the data determine varies less than what they do not.
    seen = operator(drawn.samples - drawn.mean).square().mean().sqrt()
    assert float(seen) < 0.6 * float(found)


def test_samples_repeat_with_their_seed_and_differ_among_themselves():
    operator = Identity(GRID)
    _, y = data(operator)
    one, same, other = (
        sample_posterior(operator, y, White(), SIGMA, n_samples=2, seed=seed).samples for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one[0], one[1])


def test_samples_of_a_stack_and_of_rician_data():
    operator = Stack([acquisition(GRID.coarsen(factors), reference=GRID) for factors in ((1, 1, 2), (2, 1, 1))])
    truth = 0.5 + WIDTH * noise(1, 1, *GRID.shape, seed=1).clamp(-1, 1)
    y = tuple((one + SIGMA * noise(*one.shape)).abs() for one in operator(truth))
    drawn = sample_posterior(operator, y, White(), SIGMA, n_samples=2, likelihood=(likelihood("rician", SIGMA),) * 2)
    assert float((drawn.mean - truth).norm()) < float((truth - 0.5).norm())


def test_bad_samples():
    operator = Identity(GRID)
    _, y = data(operator)
    with pytest.raises(InvsrError, match="n_samples is 1"):
        sample_posterior(operator, y, White(), SIGMA, n_samples=1)
    with pytest.raises(InvsrError, match="n_samples is 10000000: a standard deviation takes 2 to 1000"):
        sample_posterior(operator, y, White(), SIGMA, n_samples=10**7)
    with pytest.raises(InvsrError, match="Tikhonov is no denoiser"):
        sample_posterior(operator, y, Tikhonov(), SIGMA)
    with pytest.raises(InvsrError, match="a batch of 2: samples are drawn for one volume"):
        sample_posterior(operator, torch.cat([y, 2 * y]), White(), SIGMA)
    with pytest.raises(InvsrError, match="sigma is 0"):
        sample_posterior(operator, y, White(), 0.0)
    with pytest.raises(InvsrError, match="n_samples is 1"):
        equivariant_bootstrap(lambda y: y, operator, y, y, SIGMA, n_samples=1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_noise_has_a_deviation(sigma):
    A = Identity(centred_grid((4, 4, 4), 1.0))
    x = torch.ones(1, 1, 4, 4, 4)
    for repeated in (equivariant_bootstrap, noise_replicas):
        with pytest.raises(InvsrError, match="sigma is .*finite and above zero"):
            repeated(lambda y: y, A, x, x, sigma, n_samples=2)
    with pytest.raises(InvsrError, match="sigma is .*finite and above zero"):
        split_evidence(A, x, sigma, 2.0)


@pytest.mark.parametrize("n", [3, 8])
def test_deviation_makes_intervals_that_hold(n):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn((n + 1, 1, 30, 30, 30), generator=generator, dtype=F64)
    truth, samples = draws[:1], draws[1:]
    mean = samples.mean(0, keepdim=True)
    seen = torch.full_like(mean, n)
    std = interval_deviation((samples - mean).square().sum(0, keepdim=True), seen, n - 1)
    inside = float(((truth - mean).abs() < 1.96 * std).double().mean())
    # Averages over neighbours make it wider than the t-distribution needs.
    assert 0.94 < inside < 1.0
    expected = math.sqrt(1 + 1 / n)
    assert float(std.mean()) > expected


def test_deviation_where_nothing_was_seen():
    squares, seen = torch.ones(1, 1, 9, 9, 9), torch.full((1, 1, 9, 9, 9), 4.0)
    squares[..., 5:], seen[..., 5:] = 0, 0
    found = interval_deviation(squares, seen, 4)
    assert bool(found.isfinite().all()) and float(found[..., 8].mean()) == pytest.approx(float(found[..., 0].mean()))


@pytest.mark.parametrize("shape", [(19, 19, 19), (24, 18, 17), (40, 20, 2), (33, 1, 1)])
def test_moves_have_an_inverse_and_leave_most_of_a_volume(shape):
    generator, values = torch.Generator().manual_seed(0), noise(1, 1, *shape)
    for _ in range(30):
        move = Move.draw(generator, shape, turns=True)
        inside = move.back(move(torch.ones_like(values), shape), shape)
        assert set(inside.unique().tolist()) <= {0.0, 1.0} and float(inside.mean()) > 0.2
        torch.testing.assert_close(move.back(move(values, shape), shape), inside * values, rtol=0, atol=0)
    kept = Move([2, 0, 1], [0, 2], [0, 0, 0])
    cube = noise(1, 1, 6, 6, 6)
    assert torch.equal(kept.back(kept(cube, (6, 6, 6)), (6, 6, 6)), cube)
    assert not torch.equal(kept(cube, (6, 6, 6)), cube)


def test_bootstrap_of_one_slice():
    grid = centred_grid((20, 20, 1), 1.0)
    operator, x = Identity(grid), torch.ones(1, 1, 20, 20, 1)
    for seed in range(3):
        found = equivariant_bootstrap(lambda y: y, operator, x, x, 0.1, n_samples=8, seed=seed)
        assert float(found.mean()) == pytest.approx(0.1 * bootstrap.WIDENING, rel=0.35)


@pytest.mark.parametrize("phase", [0.0, 2.0])
def test_deviation_of_complex_samples_is_that_of_their_magnitude(phase):
    parts = torch.randn(2, 200, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    samples = torch.polar(torch.ones(()), torch.tensor(phase)) * (1 + 0.05 * torch.complex(parts[0], parts[1]))
    found = Samples(samples, [], 1.0).std / WIDENING
    assert float(found.mean()) == pytest.approx(float(samples.abs().std(0).mean()), rel=0.03)


def test_bootstrap_states_the_error_of_a_method():
    # The anatomy varies slowly in space, alike along all axes; the method is a linear one.
    operator = acquisition(GRID.coarsen((1, 1, 2)), reference=GRID)
    truth = torch.from_numpy(np.cumsum(noise(1, 1, *GRID.shape, seed=4).numpy(), 2)) * 0.1

    def run(y):
        return operator.solve(operator.adjoint(y), 0.05, "gradient").x

    y = operator(truth) + SIGMA * noise(*operator.range.shape)
    x = run(y)
    std = equivariant_bootstrap(run, operator, x, y, SIGMA, n_samples=12)
    error = float((x - truth).square().mean().sqrt())
    assert std.shape == x.shape and 0.4 * error < float(std.square().mean().sqrt()) < 2.5 * error
    again = equivariant_bootstrap(run, operator, x, y, SIGMA, n_samples=12)
    louder = equivariant_bootstrap(run, operator, x, y, 3 * SIGMA, n_samples=12)
    assert torch.equal(std, again) and float(louder.mean()) > 1.3 * float(std.mean())


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_samples_are_widened_by_what_was_not_measured(factor):
    operator = acquisition(GRID.coarsen((1, 1, factor)), reference=GRID)
    _, y = data(operator)
    drawn = sample_posterior(operator, y, White(), SIGMA, n_samples=4)
    errors = drawn.samples - drawn.mean
    plain = interval_deviation(errors.square().sum(0, keepdim=True), torch.full_like(drawn.mean, 4), 3)
    torch.testing.assert_close(drawn.std, WIDENING * math.sqrt(factor) * plain)


def test_a_stack_measures_as_often_as_its_scans():
    operator = Stack([acquisition(GRID.coarsen(factors), reference=GRID) for factors in ((1, 1, 2), (2, 1, 1))])
    y = operator(noise(1, 1, *GRID.shape))
    assert sample_posterior(operator, y, White(), SIGMA, n_samples=2).ratio == 1.0
    mask = torch.zeros(GRID.shape, dtype=torch.bool)
    mask[::4] = True
    undersampled = KSpaceMask(GRID, mask)
    assert n_measured(undersampled, undersampled(noise(1, 1, *GRID.shape))) == mask.sum()
