"""The automatic weight of quadratic priors: found in a few solves, and never nothing where the model is wrong."""

import dataclasses

import numpy as np
import pytest
import torch

import invsr
import invsr.testing.kspace
from invsr.operators import KSpaceMask
from invsr.priors import Tikhonov
from invsr.solvers import Status, quadratic, solve_quadratic
from invsr.testing.phantoms import centred_grid, shapes

GRID = centred_grid((28, 26, 24), 1.0)


@pytest.fixture(scope="module")
def truth():
    return invsr.Volume(shapes(GRID, n_samples=16, size=28.0), GRID)


@pytest.mark.parametrize("thickness", [3.0, 5.0])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_the_weight_is_found_in_a_few_solves(truth, noise, thickness):
    scan = invsr.simulate(truth, slice_thickness=thickness, axis=2, noise=noise)
    found = invsr.reconstruct(scan, method="tikhonov", reference=GRID)
    assert found.status is Status.CONVERGED and abs(found.chi2 - 0.85) < 0.03 and len(found.history) <= 8


def test_data_that_no_weight_explains_leave_a_weight(truth):
    scans = [invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=0.01) for axis in (2, 0)]
    affine = scans[1].grid.affine.copy()
    affine[0, 3] += 3.0  # not where its header says
    moved = dataclasses.replace(scans[1], grid=invsr.Grid(scans[1].grid.shape, affine))
    found = invsr.reconstruct([scans[0], moved], method="tikhonov", reference=GRID)
    low, high = float(truth.data.min()), float(truth.data.max())
    assert low - (high - low) < float(found.x.min()) and float(found.x.max()) < high + (high - low)
    assert found.chi2 > 3 and "chi2 is" in " ".join(found.remarks())
    # Not below the weight from which on chi2 hardly follows: there is nothing to gain from noise.
    less = invsr.reconstruct([scans[0], moved], method="tikhonov", reference=GRID, lam=found.lam / 20)
    assert less.chi2 > 20**-quadratic.LEAST_POWER * found.chi2
    assert (found.x - truth.data).square().mean() < 0.96 * (less.x - truth.data).square().mean()


@pytest.fixture(scope="module")
def folded():
    """Lines of k-space that coils hardly tell apart, and their exact solution for a small weight."""
    side, lam = 24, 1e-6
    image = torch.rand(1, 1, side, side, 1, generator=torch.Generator().manual_seed(0)) + 0j
    maps = invsr.testing.kspace.sensitivities((side, side, 1), 4)
    mask = torch.zeros(side, side, 1)
    mask[:, ::5] = mask[:, 10:14] = 1
    A = KSpaceMask(invsr.Grid.from_spacing((side, side, 1), 1.0), mask, maps, axes=(0, 1))
    y = A(image)
    columns = torch.eye(side * side, dtype=torch.complex64).reshape(-1, 1, side, side, 1)
    normal = torch.cat([A.normal(one[None], lam, "gradient").reshape(1, -1) for one in columns]).T
    exact = torch.linalg.solve(normal.to(torch.complex128), A.adjoint(y).reshape(-1).to(torch.complex128))
    return A, y, lam, exact.reshape(image.shape)


def test_a_small_weight_is_solved_for_as_well_as_asked(folded):
    A, y, lam, exact = folded
    found = solve_quadratic(A, y, Tikhonov(), lam=lam, sigma=0.01)
    assert found.status is Status.CONVERGED and not any("max_iter" in line for line in found.remarks())
    assert float((found.x - exact).norm() / exact.norm()) < 0.03  # 0.045 after 200 iterations


def test_more_iterations_are_asked_for_only_where_they_help(folded, monkeypatch):
    A, y, lam, _ = folded
    monkeypatch.setattr(quadratic, "ITERATIONS", 20)
    short = solve_quadratic(A, y, Tikhonov(), lam=lam, sigma=0.01, max_iter=1)
    assert short.status is Status.MAX_ITER and "stopped at max_iter = 1 before" in short.remarks()[0]
    more = solve_quadratic(A, y, Tikhonov(), lam=lam, sigma=0.01, max_iter=2)
    assert more.history[-1]["residual"] < short.history[-1]["residual"]
    monkeypatch.setattr(quadratic, "RTOL", 1e-9)  # below rounding, which each start meets again
    stalled = solve_quadratic(A, y, Tikhonov(), lam=lam, sigma=0.01, max_iter=30)
    assert stalled.status is Status.STALLED and len(stalled.history) < 30
    assert "no nearer to the solution" in stalled.remarks()[0] and "max_iter" not in stalled.remarks()[0]


@pytest.mark.parametrize("lam", [None, 1e-4])
def test_all_is_done_when_the_last_solve_is(folded, monkeypatch, lam):
    A, y, _, _ = folded
    monkeypatch.setattr(quadratic, "ITERATIONS", 20)  # a solve is gone on with
    news = []
    found = solve_quadratic(A, y, Tikhonov(), lam=lam, sigma=0.01, progress=lambda *one: news.append(one))
    before = [done for done, figures in news if figures]
    assert len(before) == len(found.history) > 1
    assert max(before) < 1 == news[-1][0]


def test_a_given_weight_is_used_as_it_is():
    A = invsr.operators.acquisition(GRID.coarsen((1, 1, 4)), reference=GRID)
    y = A(torch.rand(1, 1, *GRID.shape))
    found = solve_quadratic(A, y, Tikhonov(), lam=1e-9, sigma=0.01)
    assert len(found.history) == 1 and found.lam == pytest.approx(1e-9)
    b = A.adjoint(y)
    np.testing.assert_allclose(A.normal(found.x, 1e-9, "gradient"), b, atol=1e-3)
