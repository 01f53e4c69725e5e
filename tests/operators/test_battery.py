"""One battery for every operator of the registry."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from registry import CASES

import invsr.operators
from invsr.errors import InvsrError
from invsr.numerics.differences import laplacian
from invsr.numerics.vectors import (
    dense_matrix,
    device_of,
    from_vectors,
    in_single_precision,
    norm,
    parts,
    random_in_form_of,
    to_vectors,
)
from invsr.operators import LinearOperator
from invsr.testing import check_operator
from invsr.testing.operator_checks import CHECKS

CHANNELS = 2
REGULARISERS = ["identity", "gradient"]
every_operator = pytest.mark.parametrize("name", CASES)
every_solver = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.solves])


# Volumes and data ------------------------------------------------------------------------------------


def built(name, device):
    return CASES[name].build().to(device)


def unknown(name, operator, dtype=torch.float64, channels=CHANNELS, seed=0):
    """A random volume for an operator of the registry."""
    if "coils" in name:
        channels = 1  # the range's channels are the coils
    case = CASES[name]
    channels = max(channels, case.channels)
    dtype = {torch.float64: torch.complex128, torch.float32: torch.complex64}[dtype] if case.complex_domain else dtype
    grids = operator.domain if isinstance(operator.domain, tuple) else (operator.domain,)
    zeros = [torch.zeros((2, channels, *one.shape), dtype=dtype, device=device_of(operator)) for one in grids]
    return random_in_form_of(rebuild(zeros, operator.domain), seed)


def rebuild(tensors, like):
    return tuple(tensors) if isinstance(like, tuple) else next(iter(tensors))


def pair(name, device, dtype=torch.float64):
    """The operator, a random volume, and random data."""
    operator = built(name, device)
    x = unknown(name, operator, dtype)
    return operator, x, random_in_form_of(operator(x), seed=1)


def one_channel(name, operator):
    x = unknown(name, operator, channels=1)
    return rebuild([part[:1] for part in parts(x)], x)


def assert_close(a, b, rtol, scale=None):
    assert [p.shape for p in parts(a)] == [p.shape for p in parts(b)]
    assert [p.dtype for p in parts(a)] == [p.dtype for p in parts(b)]
    assert (
        norm(rebuild([p - q for p, q in zip(parts(a), parts(b), strict=True)], a)) <= rtol * (scale or norm(b)) + 1e-13
    )


# Registry -------------------------------------------------------------------------------------------


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_operator_has_an_entry():
    defined = {k for k in subclasses(LinearOperator) if k.__module__.startswith(invsr.operators.__name__)}
    built = {type(case.build()) for case in CASES.values()} | {type(CASES["adjoint"].build())}
    # Bases that are never built themselves.
    bases = {LinearOperator} | {k for k in defined if k.__name__ in ("FourierResize", "KSpaceSamples")}
    missing = {k.__name__ for k in defined - built - bases}
    assert not missing, f"add these operators to tests/operators/registry.py: {missing}"


# The contract ---------------------------------------------------------------------------------------


def with_parameters():
    for name, case in CASES.items():
        if any(True for _ in case.build().parameters()):
            yield name


@pytest.mark.parametrize(
    ("name", "learned"), [*((name, False) for name in CASES), *((name, True) for name in with_parameters())]
)
def test_contract(name, learned, device):
    A, case = built(name, device), CASES[name]
    A.requires_grad_(learned)
    channels = 1 if "coils" in name else CHANNELS  # the range's channels are the coils
    report = check_operator(A, channels=channels, complex_domain=case.complex_domain)
    expected = {check.name for check in CHECKS}
    if not learned:
        expected.remove("gradient in parameters")
    if not case.solves:
        expected -= {"gram", "solve, identity", "solve, gradient"}
    elif blind(A, unknown(name, A), "gradient"):
        expected.remove("solve, gradient")
    assert set(report.deviations) == expected
    tight = {"linear": 1e-12, "adjoint operator": 1e-14, "gram": 1e-12, "single precision": 3e-6, "pickle": 1e-14}
    assert {name: found for name, found in report.deviations.items() if found > tight.get(name, 1e-6)} == {}


@every_operator
def test_wrong_shapes_are_refused(name, device):
    A, x, y = pair(name, device)
    grown = rebuild([torch.cat([p, p], 2) for p in parts(x)], x)
    with pytest.raises(InvsrError, match="shape"):
        A(grown)
    with pytest.raises(InvsrError, match="shape"):
        A.adjoint(rebuild([torch.cat([p, p], 2) for p in parts(y)], y))


# Derivatives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in with_parameters() if CASES[name].solves])
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_gradient_of_solve_in_the_parameters(name, regulariser, device):
    A, b, _ = pair(name, device)
    parameters, weights = list(A.requires_grad_().parameters()), random_in_form_of(b, 5)
    solved = A.solve(b, 0.3, regulariser, rtol=1e-8, max_iter=300).x
    found = torch.autograd.grad((to_vectors(solved) * to_vectors(weights)).sum(), parameters)
    # Of x = N^-1 b, and u = N^-1 w: d<w, x> = -<u, dN x> = -d<A u, A x>, and `test_contract` knows the gradient of A.
    x, u = (dense_solution(name, A, v, 0.3, regulariser) for v in (b, weights))
    expected = torch.autograd.grad(-(to_vectors(A(u)) * to_vectors(A(x))).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


# Solves ---------------------------------------------------------------------------------------------


@functools.cache
def gram_and_laplacian(name, device):
    """A* A and the Laplacian as matrices, for one channel."""
    A = built(name, device)
    x = one_channel(name, A)
    with torch.no_grad():
        matrix = dense_matrix(A, x)
        return matrix.T @ matrix, dense_matrix(lambda v: laplacian(v, A.domain.spacing.tolist(), A.boundary), x)


def normal_matrix(name, device, rho, regulariser):
    gram, penalty = gram_and_laplacian(name, device)
    return gram + rho * (
        torch.eye(len(gram), dtype=gram.dtype, device=device) if regulariser == "identity" else penalty
    )


def dense_solution(name, A, b, rho, regulariser):
    one = one_channel(name, A)
    rows = to_vectors(b.reshape(-1, *one.shape[1:]))
    solved = torch.linalg.solve(normal_matrix(name, b.device, rho, regulariser), rows.T).T
    return from_vectors(solved, one).reshape(b.shape)


@every_solver
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_solve_is_the_dense_solve(name, regulariser, device):
    A = built(name, device)
    b = one_channel(name, A)
    for rho in (0.3, 0.02):
        solved = A.solve(b, rho, regulariser, rtol=1e-12, max_iter=3000)
        if not blind(A, b, regulariser):
            expected = to_vectors(dense_solution(name, A, b, rho, regulariser))
            torch.testing.assert_close(
                to_vectors(solved.x), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max())
            )
            assert solved.status == "converged"
        assert solved.x.dtype == b.dtype


def blind(A, b, regulariser):
    """Whether constants are seen neither by the operator nor by the penalty: then there is no one solution."""
    ones = torch.ones_like(b)
    return regulariser == "gradient" and norm(A(ones)) < 1e-9 * norm(ones)


@every_solver
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_gradient_of_solve(name, regulariser, device):
    A = built(name, device)
    b = one_channel(name, A)
    if blind(A, b, regulariser):
        return
    rho, weights = torch.tensor(0.3, dtype=torch.float64, requires_grad=True), random_in_form_of(b, 5)
    # The differentiable correction doubles the digits.
    solved = A.solve(b.requires_grad_(), rho, regulariser, rtol=1e-8, max_iter=300).x
    in_b, in_rho = torch.autograd.grad((to_vectors(solved) * to_vectors(weights)).sum(), (b, rho))
    # Of x = N^-1 b, and u = N^-1 w: d<w, x> = <u, db> - <u, R x> drho.
    x, u = (to_vectors(dense_solution(name, A, v.detach(), 0.3, regulariser))[0] for v in (b, weights))
    torch.testing.assert_close(to_vectors(in_b)[0], u, rtol=1e-6, atol=1e-6 * float(u.abs().max()))
    penalised = x if regulariser == "identity" else gram_and_laplacian(name, device)[1] @ x
    torch.testing.assert_close(in_rho, -(u @ penalised), rtol=1e-6, atol=1e-6 * float(u.norm() * penalised.norm()))


@every_solver
def test_solve_in_single_precision(name, device):
    A = built(name, device)
    b = unknown(name, A, torch.float32)
    x = A.solve(b, 0.3, rtol=1e-6).x
    assert x.dtype == b.dtype
    assert norm(A.normal(x, 0.3) - b) < 2e-5 * norm(b)


# Statistics, moves, copies --------------------------------------------------------------------------


@every_solver
def test_compress_is_an_isometry_that_keeps_the_range(name, device):
    A = built(name, device)
    x = one_channel(name, A)
    y = random_in_form_of(A(x), seed=1)
    matrix = dense_matrix(A, x)

    def compressed(r):  # row by row: members of a stack come out flat
        rows = [A.measured_coordinates(rebuild([p[n : n + 1] for p in parts(r)], r)) for n in range(len(parts(r)[0]))]
        return to_vectors(torch.stack([row.flatten() for row in rows]))

    coordinates = dense_matrix(compressed, y)
    eye = torch.eye(len(coordinates), dtype=coordinates.dtype, device=coordinates.device)
    torch.testing.assert_close(coordinates @ coordinates.T, eye, rtol=0, atol=1e-10)  # white noise stays white
    if CASES[name].keeps_range:  # nothing that can be produced is lost
        produced = matrix.square().sum(0)
        torch.testing.assert_close((coordinates @ matrix).square().sum(0), produced, rtol=1e-9, atol=1e-12)
    samples = matrix.square().sum(1)
    if any(part.is_complex() for part in parts(y)):
        samples = samples.reshape(-1, 2).sum(1).repeat_interleave(2)
    assert float(coordinates[:, samples == 0].abs().sum()) == 0


@every_operator
def test_move_to_single_precision(name, device):
    A, x, y = pair(name, device)
    expected, expected_back = in_single_precision(A(x)), in_single_precision(A.adjoint(y))
    A.to(torch.float32)
    assert_close(A(in_single_precision(x)), expected, 3e-6)
    assert_close(A.adjoint(in_single_precision(y)), expected_back, 3e-6)


@every_operator
def test_copies_and_pickles(name, device):
    A, x, _ = pair(name, device)
    assert_close(copy.deepcopy(A)(x), A(x), 0.0)
    for other in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
        assert (other.domain, other.range) == (A.domain, A.range)


@every_operator
def test_state_dict_carries_the_numbers(name, device):
    A, x, _ = pair(name, device)
    state = A.state_dict()
    B = built(name, device)
    with torch.no_grad():
        for p in B.parameters():
            p.add_(0.05)
    B.load_state_dict(state)
    assert_close(B(x), A(x), 0.0)


@every_solver
def test_nothing_is_changed_in_place(name, device):
    A, x, y = pair(name, device)
    before = to_vectors(x).clone(), to_vectors(y).clone()
    A.solve(x, 0.5), A.measured_coordinates(y)
    assert bool((to_vectors(x) == before[0]).all())
    assert bool((to_vectors(y) == before[1]).all())


def test_numbers_of_unknowns_are_small():
    for case in CASES.values():
        A = case.build()
        grids = A.domain if isinstance(A.domain, tuple) else (A.domain,)
        assert np.sum([g.size for g in grids]) <= 600
