"""The automatic weight of quadratic priors: found in a few solves, and never nothing where the model is wrong."""

import dataclasses

import numpy as np
import pytest
import torch

import invsr
from invsr.priors import Tikhonov
from invsr.solvers import Status, solve_quadratic
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
    assert found.lam > 1e-6 and found.chi2 > 3 and "chi2 is" in " ".join(found.remarks())


def test_a_given_weight_is_used_as_it_is():
    A = invsr.operators.acquisition(GRID.coarsen((1, 1, 4)), reference=GRID)
    y = A(torch.rand(1, 1, *GRID.shape))
    found = solve_quadratic(A, y, Tikhonov(), lam=1e-9, sigma=0.01)
    assert len(found.history) == 1 and found.lam == pytest.approx(1e-9)
    b = A.adjoint(y)
    np.testing.assert_allclose(A.normal(found.x, 1e-9, "gradient"), b, atol=1e-3)
