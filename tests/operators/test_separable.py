"""Separable operators: which solves are direct, what a chain is, and what is kept from call to call."""

import numpy as np
import pytest
import torch
from small_grids import VOLUME, grid, noise, reoriented, shifted

from invsr.errors import InvsrError
from invsr.numerics.axes import multiply, range_basis
from invsr.operators import Identity, KSpaceCrop, Separable, acquisition
from invsr.operators.profiles import AxisProfile, profile_samples
from invsr.operators.sampling import Sampling
from invsr.operators.separable import Chain

CUBE = grid((8, 9, 12))


def profile(width):
    return AxisProfile(*profile_samples("gaussian"), width)


def sampled(*axes, grid=CUBE):
    """One entry per axis: None as it is, a number for slices of that thickness, "kspace" for half the matrix."""
    spacing = [1.0 if a is None else 1.5 if a == "kspace" else a for a in axes]
    return Sampling(
        grid, grid.coarsen(spacing), ["none" if a is None else "kspace" if a == "kspace" else profile(a) for a in axes]
    )


def solved(A, regulariser, rho=0.1, rtol=1e-9):
    b = noise(1, 1, *A.domain.shape)
    solution = A.solve(b, rho, regulariser, rtol=rtol)
    assert solution.status == "converged"
    with torch.no_grad():
        residual = float((A.normal(solution.x, rho, regulariser) - b).norm() / b.norm())
    assert residual < 2e-9
    return solution


DEGRADED = {
    "none": (None, None, None),
    "one": (None, None, 4.0),
    "one, the first": (4.0, None, None),
    "one k-space axis": (None, "kspace", None),
    "k-space in one plane axis and slices": (None, "kspace", 4.0),
    "two": (2.0, None, 3.0),
    "three": (2.0, 3.0, 3.0),
}
DIRECT = ["none", "one", "one, the first", "one k-space axis", "k-space in one plane axis and slices"]


@pytest.mark.parametrize("name", DEGRADED)
def test_identity_solves_are_direct(name):
    assert solved(sampled(*DEGRADED[name]), "identity").n_iter == 0


@pytest.mark.parametrize("name", DEGRADED)
def test_gradient_solves_are_direct_up_to_one_stubborn_axis(name):
    n = solved(sampled(*DEGRADED[name]), "gradient").n_iter
    assert n == 0 if name in DIRECT else 0 < n <= 40


def test_truncation_in_plane_and_slices_is_direct_where_the_field_of_view_is_shared():
    scan = grid((6, 6, 4), (2.0, 1.5, 3.0))
    matching = acquisition(scan, reference=scan.refine((1.0, 0.75, 1.0)))
    assert matching.boundary == ("periodic", "periodic", "neumann")
    assert solved(matching, "gradient").n_iter == 0
    larger = grid((13, 12, 12), (1.0, 0.75, 1.0), matching.domain.origin)  # one more voxel than the scan covers
    assert 0 < solved(acquisition(scan, reference=larger), "gradient").n_iter <= 60


def test_crop_of_k_space_is_direct_in_all_axes():
    A = KSpaceCrop(grid((8, 9, 12)), (4, 5, 7))
    assert solved(A, "gradient").n_iter == solved(A, "identity").n_iter == 0


def test_rho_changes_the_limit_but_not_the_path():
    A = sampled(None, None, 4.0)
    for rho in (1e-6, 1e-2, 1e3):
        assert solved(A, "gradient", rho).n_iter == 0


def test_many_penalties_do_not_fill_the_memory():
    A = sampled(None, None, 4.0)
    b = noise(1, 1, *CUBE.shape)
    for rho in np.geomspace(1e-3, 1e3, 100):
        A.solve(b, float(rho), "gradient")
    assert len(A._cache._found) < 50


def test_learnable_parameters_cost_one_preconditioned_step():
    A = sampled(None, "kspace", 4.0).requires_grad_()
    for regulariser in ("identity", "gradient"):
        assert solved(A, regulariser).n_iter <= 2


def test_start_does_not_change_the_limit():
    A = sampled(2.0, 3.0, 3.0)
    b = noise(1, 1, *CUBE.shape)
    far = A.solve(b, 0.1, "gradient", x0=100 * noise(1, 1, *CUBE.shape, seed=1), rtol=1e-11).x
    torch.testing.assert_close(far, A.solve(b, 0.1, "gradient", rtol=1e-11).x, rtol=1e-7, atol=1e-7)


def test_iteration_limit_is_a_status():
    solution = sampled(2.0, 3.0, 3.0).solve(noise(1, 1, *CUBE.shape), 1e-3, "gradient", rtol=1e-12, max_iter=3)
    assert (solution.status, solution.n_iter) == ("max_iter", 3)
    assert solution.residual > 1e-12


# Composition ----------------------------------------------------------------------------------------


def test_chain_is_the_composition():
    first = acquisition(reoriented(VOLUME.coarsen((1.0, 0.9, 2.2)), (2, 0, 1), (1,)), reference=VOLUME)
    second = KSpaceCrop(first.range, (4, 3, 6))
    chain = second @ first
    assert isinstance(chain, Chain)
    assert (chain.domain, chain.range) == (first.domain, second.range)
    x, y = noise(2, 1, *VOLUME.shape), noise(2, 1, *second.range.shape)
    torch.testing.assert_close(chain.H(y), first.H(second.H(y)))
    third = Identity(second.range)
    torch.testing.assert_close((third @ chain)(x), chain(x))


def test_chain_of_odd_matrices_is_the_composition_of_its_parts():
    # A real Nyquist pair is not: taking the real part once or twice differs, hence odd sizes here.
    first = KSpaceCrop(grid((9, 7, 5)), (7, 5, 5))
    second = KSpaceCrop(first.range, (5, 3, 3))
    x = noise(1, 1, 9, 7, 5)
    torch.testing.assert_close((second @ first)(x), second(first(x)))


def test_boundary_of_a_chain_is_that_of_the_axis_that_is_degraded():
    crop = KSpaceCrop(CUBE, (4, 9, 12))
    slices = sampled(None, None, 3.0, grid=crop.range)
    assert (slices @ crop).boundary == ("periodic", "neumann", "neumann")
    slices = sampled(None, None, 3.0)
    crop = KSpaceCrop(slices.range, (4, 9, 4))
    assert (crop @ slices).boundary == ("periodic", "neumann", "neumann")


def test_grids_that_do_not_meet_are_named():
    with pytest.raises(InvsrError, match="compose operators whose grids meet") as error:
        Identity(VOLUME) @ Identity(shifted(VOLUME, (0, 0, 0.1)))
    assert str(error.value).count("5x6x8") == 2


def test_matrices_that_do_not_fit_are_named():
    with pytest.raises(InvsrError, match=r"axis 1 takes a matrix of shape \(9, 9\)"):
        Separable(CUBE, CUBE, (None, torch.eye(8), None))
    with pytest.raises(InvsrError, match="not the identity"):
        Separable(CUBE, grid((8, 9, 6)), (None, None, None))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_multiply(axis):
    matrix, x = noise(5, 4), noise(2, 3, 4, 4, 4)
    expected = torch.movedim(torch.tensordot(x, matrix, ([2 + axis], [1])), -1, 2 + axis)
    torch.testing.assert_close(multiply(matrix, x, axis), expected)
    assert multiply(None, x, axis) is x


def test_range_basis():
    assert range_basis(noise(3, 4)) is None  # produces everything
    padded = torch.cat([torch.zeros(2, 4).double(), noise(3, 4)])
    assert range_basis(padded).T.tolist() == torch.eye(5)[2:].tolist()
    tall = torch.cat([noise(6, 4), torch.zeros(1, 4).double()])
    basis = range_basis(tall)
    assert basis.shape == (7, 4)
    torch.testing.assert_close(basis @ (basis.T @ tall), tall)


# What is kept from call to call ---------------------------------------------------------------------


def outputs(A, x):
    return A(x), A.adjoint(A(x)), A.solve(x, 0.1).x, A.solve(x, 0.1, "gradient").x


def assert_follows(A, x, fresh):
    for found, expected in zip(outputs(A, x), outputs(fresh, x), strict=True):
        torch.testing.assert_close(found, expected)


def test_changed_parameters_are_seen():
    A, x = sampled(None, None, 3.0), noise(1, 1, *CUBE.shape)
    outputs(A, x)
    with torch.no_grad():
        A.width[2] = 4.0
    B = Sampling(CUBE, A.range, ["none", "none", profile(4.0)])
    assert_follows(A, x, B)


def test_replaced_parameters_are_seen():
    # New tensors may take the place of freed ones in memory.
    A, x = sampled(None, None, 3.0), noise(1, 1, *CUBE.shape)
    for width in torch.linspace(1, 4, 60, dtype=torch.float64):
        with torch.no_grad():
            found = torch.func.functional_call(A, {"width": torch.stack([width * 0, width * 0, width])}, x)
        fresh = Sampling(CUBE, A.range, ["none", "none", profile(float(width))])
        torch.testing.assert_close(found, fresh(x))


def test_inference_mode_leaves_nothing_behind():
    A, x = sampled(None, "kspace", 3.0), noise(1, 1, *CUBE.shape)
    with torch.inference_mode():
        outputs(A, x.clone())
        inside = outputs(sampled(None, "kspace", 3.0), x.clone())
    z = x.clone().requires_grad_()
    for found, expected in zip(outputs(A, z), inside, strict=True):
        found.sum().backward()
        torch.testing.assert_close(found.detach(), expected.clone())


def test_both_precisions_side_by_side():
    A, x = sampled(None, "kspace", 3.0), noise(1, 1, *CUBE.shape)
    for narrow, wide in zip(outputs(A, x.float()), outputs(A, x), strict=True):
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-5)


def test_batches_and_channels_are_independent():
    A = sampled(2.0, None, 3.0)
    x = noise(2, 3, *CUBE.shape)
    whole = outputs(A, x)
    for b in range(2):
        for c in range(3):
            for found, expected in zip(outputs(A, x[b : b + 1, c : c + 1]), whole, strict=True):
                torch.testing.assert_close(found, expected[b : b + 1, c : c + 1], rtol=1e-5, atol=1e-5)


def residual_of_direct_solve(A, dtype=torch.float64):
    b = torch.randn((1, 1, *A.domain.shape), dtype=dtype, generator=torch.Generator().manual_seed(0))
    found = A.solve(b, 0.1, "gradient", rtol=1e-10, max_iter=500)
    return float((A.normal(found.x, 0.1, "gradient") - b).norm() / b.norm())


@pytest.mark.parametrize("size", range(4, 49))
def test_crops_of_every_size_are_solved(size):
    # At some pairs of sizes a Gram eigenvalue plus a multiple of a Laplacian one meets another such sum.
    for kept in range(1, size):
        assert residual_of_direct_solve(KSpaceCrop(grid((size, 1, 1)), (kept, 1, 1))) < 1e-8


def test_crops_of_two_axes_beside_a_profile_are_solved():
    volume = grid((60, 12, 12))
    for dtype in (torch.float64, torch.complex128):
        assert residual_of_direct_solve(KSpaceCrop(grid((60, 12, 4)), (45, 9, 4)), dtype) < 1e-8
    for step in ((4 / 3, 1, 2), (1, 4 / 3, 4), (4 / 3, 4 / 3, 3)):
        assert residual_of_direct_solve(acquisition(volume.refine(step), reference=volume)) < 1e-8
