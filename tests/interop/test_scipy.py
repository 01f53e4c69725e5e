"""scipy's solvers on invsr operators, and matrices as operators."""

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg, lsqr

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.interop.scipy import from_scipy, to_scipy
from invsr.operators import KSpaceMask, Stack, acquisition
from invsr.testing import check_operator

GRID = Grid.from_spacing((4, 5, 6), 1.0)
THICK, TALL = GRID.coarsen((1, 1, 2)), GRID.coarsen((2, 1, 1))
RNG = np.random.default_rng(0)


def mask():
    return torch.from_numpy(RNG.random(GRID.shape) > 0.4).double()


def coils():
    return torch.from_numpy(RNG.standard_normal((2, *GRID.shape, 2))).double()


OPERATORS = {
    "separable": (lambda: acquisition(THICK, reference=GRID), torch.float64),
    "separable in single precision": (lambda: acquisition(THICK, reference=GRID), torch.float32),
    "stack": (lambda: Stack([acquisition(g, reference=GRID) for g in (THICK, TALL)], [1.0, 0.3]), torch.float64),
    "adjoint of a stack": (
        lambda: Stack([acquisition(g, reference=GRID) for g in (THICK, TALL)]).H,
        torch.float64,
    ),
    "k-space": (lambda: KSpaceMask(GRID, mask(), torch.view_as_complex(coils())), torch.complex128),
    "k-space of real volumes": (lambda: KSpaceMask(GRID, mask(), real=True), torch.float64),
    "k-space, restricted to real volumes": (lambda: KSpaceMask(GRID, mask()), torch.float64),
}


def vector(n, dtype):
    x = RNG.standard_normal(n)
    return (x + 1j * RNG.standard_normal(n) if np.issubdtype(dtype, np.complexfloating) else x).astype(dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_products(name):
    build, dtype = OPERATORS[name]
    L = build().to_scipy(dtype)
    x, y = vector(L.shape[1], L.dtype), vector(L.shape[0], L.dtype)
    rtol = 1e-5 if L.dtype == np.float32 else 1e-12
    assert L.matvec(x).dtype == L.dtype and L.rmatvec(y).dtype == L.dtype
    np.testing.assert_allclose(np.vdot(y, L.matvec(x)), np.vdot(L.rmatvec(y), x), rtol=rtol * 100)
    both = np.stack([x, 2 * x], 1)
    np.testing.assert_allclose(L @ both, np.stack([L @ x, 2 * (L @ x)], 1), rtol=1e-4, atol=rtol)
    np.testing.assert_allclose(L.H @ np.stack([y, -y], 1), np.stack([L.H @ y, -(L.H @ y)], 1), rtol=1e-4, atol=rtol)


def test_vectors_are_flattened_volumes():
    A, x = acquisition(THICK, reference=GRID), RNG.standard_normal(GRID.shape)
    expected = A(torch.from_numpy(x)[None, None]).numpy()
    np.testing.assert_allclose(to_scipy(A) @ x.ravel(), expected.ravel(), rtol=1e-12)
    assert to_scipy(A, channels=2).shape == (2 * THICK.size, 2 * GRID.size)


@pytest.mark.parametrize("name", ["separable", "stack", "k-space of real volumes"])
def test_damped_least_squares_of_scipy(name):
    """lsqr solves ``min ||A x - y||^2 + damp^2 ||x||^2``, whose normal equations `solve` inverts."""
    A = OPERATORS[name][0]()
    L = A.to_scipy()
    y, damp = vector(L.shape[0], L.dtype), 0.3
    found = lsqr(L, y, damp=damp, atol=1e-12, btol=1e-12)[0]
    b = torch.from_numpy(L.rmatvec(y)).reshape(1, 1, *GRID.shape)
    expected = A.solve(b, damp**2, rtol=1e-12, max_iter=2000).x
    np.testing.assert_allclose(found, expected.numpy().ravel(), atol=1e-7)


def test_conjugate_gradients_of_scipy_on_complex_volumes():
    A = OPERATORS["k-space"][0]()
    L = A.to_scipy(torch.complex128)
    normal = LinearOperator((GRID.size,) * 2, dtype=np.complex128, matvec=lambda x: L.rmatvec(L.matvec(x)) + 0.2 * x)
    b = vector(GRID.size, np.complex128)
    found, status = cg(normal, b, rtol=1e-12)
    expected = A.solve(torch.from_numpy(b).reshape(1, 1, *GRID.shape), 0.2, rtol=1e-12, max_iter=2000).x
    assert status == 0
    np.testing.assert_allclose(found, expected.numpy().ravel(), atol=1e-9)


MATRICES = {
    "dense": RNG.standard_normal((THICK.size, GRID.size)),
    "sparse": sparse.random(THICK.size, GRID.size, 0.1, random_state=0, format="csr"),
    "complex": RNG.standard_normal((THICK.size, GRID.size)) + 1j * RNG.standard_normal((THICK.size, GRID.size)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_matrices_as_operators(name):
    matrix = MATRICES[name]
    A = from_scipy(matrix, GRID, THICK)
    is_complex = name == "complex"
    report = check_operator(A, complex_domain=is_complex, channels=2)
    assert "solve, gradient" in report.deviations
    x = RNG.standard_normal(GRID.shape)
    np.testing.assert_allclose(A(torch.from_numpy(x)[None, None]).numpy().ravel(), matrix @ x.ravel(), rtol=1e-10)
    assert A.complex_range is is_complex


def test_there_and_back():
    A = acquisition(THICK, reference=GRID)
    again = from_scipy(A.to_scipy(), GRID, THICK)
    x = torch.randn(2, 2, *GRID.shape, dtype=torch.float64)
    torch.testing.assert_close(again(x), A(x))
    torch.testing.assert_close(again.adjoint(A(x)), A.gram(x))
    x.requires_grad_()
    assert torch.autograd.gradcheck(again, (x[:1, :1],), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda v: again(v).square(), (x[:1, :1],), fast_mode=True)


def test_operators_of_matrices_pickle():
    A = from_scipy(MATRICES["sparse"], GRID, THICK)
    x = torch.ones(1, 1, *GRID.shape)
    torch.testing.assert_close(pickle.loads(pickle.dumps(A))(x), A(x))
    assert A(x).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvsrError, match=r"must be \(60, 120\)"):
        from_scipy(np.eye(120), GRID, THICK)
    one_way = LinearOperator((120, 120), matvec=lambda x: x, dtype=np.float64)
    with pytest.raises(InvsrError, match="rmatvec"):
        from_scipy(one_way, GRID)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_complex_matrix_solves_for_a_real_right_hand_side(dtype):
    matrix = RNG.standard_normal((GRID.size, GRID.size)) + 1j * RNG.standard_normal((GRID.size, GRID.size))
    b = RNG.standard_normal(GRID.size)
    expected = np.linalg.solve(matrix.conj().T @ matrix + 50 * np.eye(GRID.size), b)
    found = from_scipy(matrix, GRID).solve(torch.tensor(b, dtype=dtype).reshape(1, 1, *GRID.shape), 50.0)
    assert found.x.dtype == dtype.to_complex()
    np.testing.assert_allclose(found.x.numpy().ravel(), expected, atol=1e-4 * np.abs(expected).max())
