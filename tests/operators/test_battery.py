"""One battery for every operator of the registry."""

import copy
import pickle

import numpy as np
import pytest
import torch
from registry import CASES

import invsr.operators
from invsr.errors import InvsrError
from invsr.numerics.differences import laplacian
from invsr.operators import LinearOperator

CHANNELS = 2
ONCE = {"check_undefined_grad": False}  # half the time
REGULARISERS = ["identity", "gradient"]
every_operator = pytest.mark.parametrize("name", CASES)
every_solver = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.solves])


# Volumes and data as vectors of real numbers ---------------------------------------------------------


def parts(x):
    return x if isinstance(x, tuple) else (x,)


def rebuild(tensors, like):
    return tuple(tensors) if isinstance(like, tuple) else next(iter(tensors))


def real_view(x):
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def flat(x):
    """(batch, n) real numbers of a volume or of data, one or several tensors, real or complex."""
    return torch.cat([real_view(part).flatten(1) for part in parts(x)], 1)


def unflat(rows, like):
    """The reverse of `flat`: rows (batch, n) in the form of `like`."""
    sizes = [real_view(part)[0].numel() for part in parts(like)]
    out = []
    for piece, part in zip(rows.split(sizes, 1), parts(like), strict=True):
        piece = piece.reshape(len(rows), *real_view(part).shape[1:])
        out.append(torch.view_as_complex(piece.contiguous()) if part.is_complex() else piece)
    return rebuild(out, like)


def random_like(x, seed=0, batch=None):
    rows = flat(x)
    generator = torch.Generator().manual_seed(seed)
    return unflat(torch.randn(batch or len(rows), rows.shape[1], dtype=rows.dtype, generator=generator), x)


def dot(a, b):
    return float((flat(a).detach().double() * flat(b).detach().double()).sum())


def size(x):
    return float(flat(x).detach().double().norm())


def unknown(name, operator, dtype=torch.float64, channels=CHANNELS, seed=0):
    """A random volume for an operator of the registry."""
    if "coils" in name:
        channels = 1  # the range's channels are the coils
    case = CASES[name]
    dtype = {torch.float64: torch.complex128, torch.float32: torch.complex64}[dtype] if case.complex_domain else dtype
    grids = operator.domain if isinstance(operator.domain, tuple) else (operator.domain,)
    zeros = [torch.zeros((2, channels, *one.shape), dtype=dtype) for one in grids]
    return random_like(rebuild(zeros, operator.domain), seed)


def pair(name, dtype=torch.float64):
    """The operator, a random volume, and random data."""
    operator = CASES[name].build()
    x = unknown(name, operator, dtype)
    return operator, x, random_like(operator(x), seed=1)


def dense(f, like):
    """Matrix of a linear f, column by column; `like` is an input of batch and channel size 1."""
    n = flat(like).shape[1]
    return flat(f(unflat(torch.eye(n, dtype=flat(like).dtype), like))).T


def one_channel(name, operator):
    x = unknown(name, operator, channels=1)
    return rebuild([part[:1] for part in parts(x)], x)


def assert_close(a, b, rtol, scale=None):
    assert [p.shape for p in parts(a)] == [p.shape for p in parts(b)]
    assert [p.dtype for p in parts(a)] == [p.dtype for p in parts(b)]
    assert (
        size(rebuild([p - q for p, q in zip(parts(a), parts(b), strict=True)], a)) <= rtol * (scale or size(b)) + 1e-13
    )


# Registry -------------------------------------------------------------------------------------------


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_operator_has_an_entry():
    defined = {k for k in subclasses(LinearOperator) if k.__module__.startswith(invsr.operators.__name__)}
    built = {type(case.build()) for case in CASES.values()} | {type(CASES["adjoint"].build())}
    # Bases that are never built themselves.
    bases = {LinearOperator} | {k for k in defined if k.__name__ == "FourierResize"}
    missing = {k.__name__ for k in defined - built - bases}
    assert not missing, f"add these operators to tests/operators/registry.py: {missing}"


# Linear, adjoint ------------------------------------------------------------------------------------


@every_operator
def test_shapes(name):
    A, x, _ = pair(name)
    ranges = A.range if isinstance(A.range, tuple) else (A.range,)
    for part, grid in zip(parts(A(x)), ranges, strict=True):
        assert part.shape[0] == 2
        assert tuple(part.shape[2:]) == grid.shape
    back = A.adjoint(A(x))
    assert [p.shape for p in parts(back)] == [p.shape for p in parts(x)]
    assert [p.dtype for p in parts(back)] == [p.dtype for p in parts(x)]


@every_operator
def test_linear(name):
    A, x, _ = pair(name)
    z = random_like(x, seed=2)
    factor = 0.7 - 0.4j if CASES[name].complex_domain else -1.3
    combined = rebuild([factor * p + q for p, q in zip(parts(x), parts(z), strict=True)], x)
    expected = [factor * p + q for p, q in zip(parts(A(x)), parts(A(z)), strict=True)]
    assert_close(A(combined), rebuild(expected, A(x)), 1e-12)


@every_operator
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_adjoint(name, dtype, rtol):
    A, x, y = pair(name, dtype)
    forward, back = A(x), A.adjoint(y)
    assert [p.shape for p in parts(forward)] == [p.shape for p in parts(y)]
    assert [p.shape for p in parts(back)] == [p.shape for p in parts(x)]
    assert abs(dot(forward, y) - dot(x, back)) <= rtol * max(size(forward) * size(y), size(x) * size(back))


@every_operator
def test_dense_matrix_of_the_adjoint_is_the_transpose(name):
    A = CASES[name].build()
    x = one_channel(name, A)
    y = A(x)
    forward, back = dense(A, x), dense(A.adjoint, y)
    torch.testing.assert_close(back, forward.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(forward @ flat(x)[0], flat(y)[0], rtol=1e-10, atol=1e-12)


@every_operator
def test_adjoint_operator(name):
    A, x, y = pair(name)
    assert A.H.H is A or A.H.H.H is A.H  # the latter for an adjoint itself
    assert (A.H.domain, A.H.range) == (A.range, A.domain)
    assert_close(A.H(y), A.adjoint(y), 1e-14)
    assert_close(A.H.adjoint(x), A(x), 1e-14)


@every_operator
def test_gram(name):
    A, x, _ = pair(name)
    if CASES[name].solves:
        assert_close(A.gram(x), A.adjoint(A(x)), 1e-12)


@every_operator
def test_wrong_shapes_are_refused(name):
    A, x, y = pair(name)
    grown = rebuild([torch.cat([p, p], 2) for p in parts(x)], x)
    with pytest.raises(InvsrError, match="shape"):
        A(grown)
    with pytest.raises(InvsrError, match="shape"):
        A.adjoint(rebuild([torch.cat([p, p], 2) for p in parts(y)], y))


# Derivatives ----------------------------------------------------------------------------------------


@every_operator
def test_gradient_in_the_volume_and_in_the_data(name):
    A = CASES[name].build()
    x = one_channel(name, A)
    for f, start in ((A, x), (A.adjoint, random_like(A(x), seed=1))):
        inputs = tuple(part.requires_grad_() for part in parts(start))
        assert torch.autograd.gradcheck(
            lambda *a, f=f, s=start: parts(f(rebuild(a, s))), inputs, fast_mode=True, **ONCE
        )


def with_parameters():
    for name, case in CASES.items():
        if any(True for _ in case.build().parameters()):
            yield name


def slopes(f, operator, n=2, step=1e-6):
    """Derivatives of f() along random directions in parameter space: by autograd and by differences."""
    parameters = list(operator.requires_grad_().parameters())
    gradients = torch.autograd.grad(f(), parameters)
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        along = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, along, strict=True):
                    p.add_(sign * step * d)
            values.append(float(f().detach()))
            with torch.no_grad():
                for p, d in zip(parameters, along, strict=True):
                    p.sub_(sign * step * d)
        yield (
            sum(float((g * d).sum()) for g, d in zip(gradients, along, strict=True)),
            (values[0] - values[1]) / (2 * step),
        )


@pytest.mark.parametrize("name", list(with_parameters()))
@pytest.mark.parametrize("method", ["forward", "adjoint", *REGULARISERS])
def test_gradient_in_the_parameters(name, method):
    A, x, y = pair(name)
    if method in REGULARISERS and not CASES[name].solves:
        return

    def f():
        if method == "forward":
            return (flat(A(x)) * flat(y)).sum()
        if method == "adjoint":
            return (flat(x) * flat(A.adjoint(y))).sum()
        return (flat(A.solve(x, 0.3, method, rtol=1e-8, max_iter=300).x) * flat(random_like(x, 5))).sum()

    scale = max(abs(float(f().detach())), 1.0)
    for analytic, numeric in slopes(f, A):
        assert abs(analytic - numeric) <= 1e-6 * max(abs(analytic), scale)


# Solves ---------------------------------------------------------------------------------------------


def normal_matrix(A, x, rho, regulariser):
    matrix = dense(A, x)
    if regulariser == "identity":
        penalty = torch.eye(matrix.shape[1], dtype=matrix.dtype)
    else:
        penalty = dense(lambda v: laplacian(v, A.domain.spacing.tolist(), A.boundary), x)
    return matrix.T @ matrix + rho * penalty


@every_solver
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_solve_is_the_dense_solve(name, regulariser):
    A = CASES[name].build()
    b = one_channel(name, A)
    for rho in (0.3, 0.02):
        solved = A.solve(b, rho, regulariser, rtol=1e-12, max_iter=3000)
        matrix = normal_matrix(A, b, rho, regulariser)
        if not blind(A, b, regulariser):
            expected = torch.linalg.solve(matrix, flat(b)[0])
            torch.testing.assert_close(
                flat(solved.x)[0], expected, rtol=1e-8, atol=1e-8 * float(expected.detach().abs().max())
            )
            assert solved.status == "converged"
        assert solved.x.dtype == b.dtype


def blind(A, b, regulariser):
    """Whether constants are seen neither by the operator nor by the penalty: then there is no one solution."""
    ones = torch.ones_like(b)
    return regulariser == "gradient" and size(A(ones)) < 1e-9 * size(ones)


@every_solver
@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_gradient_of_solve(name, regulariser):
    A = CASES[name].build()
    b = one_channel(name, A)
    if blind(A, b, regulariser):
        return
    rho = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    options = {"rtol": 1e-8, "max_iter": 300}  # the differentiable correction doubles the digits
    assert torch.autograd.gradcheck(
        lambda b, rho: A.solve(b, rho, regulariser, **options).x, (b.requires_grad_(), rho), fast_mode=True, **ONCE
    )


@every_solver
def test_solve_in_single_precision(name):
    A = CASES[name].build()
    b = unknown(name, A, torch.float32)
    x = A.solve(b, 0.3, rtol=1e-6).x
    assert x.dtype == b.dtype
    assert size(A.normal(x, 0.3) - b) < 2e-5 * size(b)


# Statistics, moves, copies --------------------------------------------------------------------------


@every_solver
def test_compress_is_an_isometry_that_keeps_the_range(name):
    A = CASES[name].build()
    x = one_channel(name, A)
    y = random_like(A(x), seed=1)
    matrix = dense(A, x)

    def compressed(r):  # row by row: members of a stack come out flat
        rows = [A.measured_coordinates(rebuild([p[n : n + 1] for p in parts(r)], r)) for n in range(len(parts(r)[0]))]
        return flat(torch.stack([row.flatten() for row in rows]))

    coordinates = dense(compressed, y)
    eye = torch.eye(len(coordinates), dtype=coordinates.dtype)
    torch.testing.assert_close(coordinates @ coordinates.T, eye, rtol=0, atol=1e-10)  # white noise stays white
    if CASES[name].keeps_range:  # nothing that can be produced is lost
        produced = matrix.square().sum(0)
        torch.testing.assert_close((coordinates @ matrix).square().sum(0), produced, rtol=1e-9, atol=1e-12)
    samples = matrix.square().sum(1)
    if any(part.is_complex() for part in parts(y)):
        samples = samples.reshape(-1, 2).sum(1).repeat_interleave(2)
    assert float(coordinates[:, samples == 0].abs().sum()) == 0


def narrow(x):
    return rebuild([p.to(torch.complex64 if p.is_complex() else torch.float32) for p in parts(x)], x)


@every_operator
def test_move_to_single_precision(name):
    A, x, y = pair(name)
    expected, expected_back = narrow(A(x)), narrow(A.adjoint(y))
    A.to(torch.float32)
    assert_close(A(narrow(x)), expected, 3e-6)
    assert_close(A.adjoint(narrow(y)), expected_back, 3e-6)


@every_operator
def test_pickle_and_copy(name):
    A, x, _ = pair(name)
    expected = A(x)
    for other in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
        assert_close(other(x), expected, 0.0)
        assert (other.domain, other.range) == (A.domain, A.range)


@every_operator
def test_state_dict_carries_the_numbers(name):
    A, x, _ = pair(name)
    state = A.state_dict()
    B = CASES[name].build()
    with torch.no_grad():
        for p in B.parameters():
            p.add_(0.05)
    B.load_state_dict(state)
    assert_close(B(x), A(x), 0.0)


@every_operator
def test_nothing_is_changed_in_place(name):
    A, x, y = pair(name)
    before = flat(x).clone(), flat(y).clone()
    A(x), A.adjoint(y), A.H
    if CASES[name].solves:
        A.solve(x, 0.5), A.measured_coordinates(y)
    assert bool((flat(x) == before[0]).all())
    assert bool((flat(y) == before[1]).all())


def test_numbers_of_unknowns_are_small():
    for case in CASES.values():
        A = case.build()
        grids = A.domain if isinstance(A.domain, tuple) else (A.domain,)
        assert np.sum([g.size for g in grids]) <= 600
