"""Every step takes every operator, and says which priors it cannot use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from registry import CASES
from small_grids import SMALL, noise
from smoother import F64, GRID, STEPS, Smoother, problem, repeat

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.linear import inner, largest_eigenvalue, largest_eigenvector
from invsr.operators import Diagonal, Identity, KSpaceFilter, acquisition
from invsr.priors import TV
from invsr.solvers import HQS, PGD, RED, iterate
from invsr.solvers.residuals import as_tuple, chi2, like_data


def test_steps_refuse_priors_that_they_cannot_use():
    operator, y = Identity(GRID), noise(1, 1, *GRID.shape)
    for step, name in ((PGD(), "PGD"), (RED(), "RED"), (HQS(descend=True), "descent")):
        with pytest.raises(InvsrError, match=f"{name} needs a prior on the volume"):
            iterate(step, operator, y, TV(), lam=0.1)
    with pytest.raises(InvsrError, match="needs a prior with a cost, and Smoother has none"):
        iterate(HQS(descend=True), operator, y, Smoother(), sigma=0.1)


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


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.solves and name != "resample, nowhere"])
def test_largest_eigenvalue(name):
    # Never below: PGD's step would be too long.
    operator = CASES[name].build()
    shape = (CASES[name].channels, *operator.domain.shape)
    kind = torch.complex128 if CASES[name].complex_domain else F64
    units = torch.eye(int(np.prod(shape)), dtype=kind).reshape(-1, *shape)
    with torch.no_grad():
        gram = operator.gram(units).flatten(1).T
        expected = float(torch.linalg.eigvalsh(gram)[-1])
        found = largest_eigenvalue(operator.gram, torch.zeros((1, *shape), dtype=kind))
        v = largest_eigenvector(operator.gram, torch.zeros((1, *shape), dtype=kind))
        rayleigh = float(inner(v, operator.gram(v)))
    assert expected <= found <= 1.02 * expected
    torch.testing.assert_close(v.norm(), torch.ones((), dtype=F64))
    assert rayleigh == pytest.approx(found / 1.01)
