"""Sums, multiples and compositions of operators: values, exact solves, gradients, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from small_grids import SMALL, THICK, VOLUME, noise
from torch import nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import Diagonal, Identity, KSpaceCrop, KSpaceMask, LinearOperator, Separable, Stack, acquisition

WEIGHTS = noise(*THICK.shape).abs() + 0.5
X = noise(2, 1, *VOLUME.shape)


def scan(**options):
    return acquisition(THICK, reference=VOLUME, **options)


def stack():
    return Stack([scan(), acquisition(VOLUME.coarsen((2.0, 0.9, 1.1)), reference=VOLUME)], [1.0, 0.4])


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_values():
    A, B = scan(), scan(slice_thickness=4.0)
    y, z = A(X), B(X)
    equal((A + B)(X), y + z)
    equal((A - B)(X), y - z)
    equal((-A)(X), -y)
    equal((A / 4)(X), y / 4)
    equal((A / WEIGHTS)(X), y / WEIGHTS)
    equal((A @ Identity(VOLUME))(X), y)
    equal(A @ X, y)
    for weighted in (A * WEIGHTS, WEIGHTS * A):
        equal(weighted(X), y * WEIGHTS)
    factors = [-0.3, 3, np.float64(2.5), np.float32(0.5), np.int64(2), torch.tensor(2.5), torch.tensor([[1.5]])]
    for factor in factors:
        for scaled in (A * factor, factor * A):
            equal(scaled(X), y * float(factor))


def test_stacks():
    A = stack()
    for result, factor in ((-A, -1), (A / 2, 0.5), (3 * A, 3), (A * torch.tensor(2.0), 2)):
        assert isinstance(result, Stack)
        for found, part in zip(result(X), A(X), strict=True):
            equal(found, factor * part)
    equal((A.H @ A)(X), A.gram(X))
    equal((2 * A.H)(A(X)), 2 * A.gram(X))
    equal((A.H - A.H / 2)(A(X)), A.gram(X) / 2)
    equal(A.T(A(X)), A.gram(X))
    assert A.T.T is A
    for found, part in zip(A @ X, A(X), strict=True):
        equal(found, part)
    with pytest.raises(InvsrError, match="add their members"):
        A - A
    with pytest.raises(InvsrError, match="same grids"):
        scan() + A
    with pytest.raises(InvsrError, match="tuple of 2 tensors"):
        A.H(X)


def test_transpose_of_complex_operators():
    A = KSpaceMask(SMALL, noise(*SMALL.shape).abs(), noise(2, *SMALL.shape, dtype=torch.complex128))
    x = noise(1, 1, *SMALL.shape, dtype=torch.complex128)
    y = noise(1, 2, *SMALL.shape, seed=1, dtype=torch.complex128)
    equal((A(x) * y).sum(), (x * A.T(y)).sum())
    assert A.T.T is A
    equal(A.T.H(x), A(x.conj()).conj())


@pytest.mark.parametrize("regulariser", ["identity", "gradient"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: 2 * scan(),
        lambda: -scan() / 3,
        lambda: KSpaceCrop(THICK, (3, 3, 4)) @ (-2 * acquisition(THICK, reference=VOLUME, in_plane="none")),
        lambda: (0.5 * KSpaceCrop(THICK, (5, 6, 4))) @ (2 * scan()),
        lambda: -KSpaceMask(SMALL, noise(*SMALL.shape).abs(), real=True),
    ],
    ids=["multiple", "negative fraction", "inside a chain", "both of a chain", "k-space"],
)
def test_multiples_keep_the_exact_solve(build, regulariser):
    A = build()
    b = noise(1, 1, *A.domain.shape)
    found = A.solve(b, 0.2, regulariser)
    assert found.n_iter == 0
    torch.testing.assert_close(A.normal(found.x, 0.2, regulariser), b, rtol=1e-9, atol=1e-9)


def test_solve_of_zero_times_an_operator():
    b = noise(1, 1, *VOLUME.shape)
    equal((0 * scan()).solve(b, 0.5).x, b / 0.5)


@pytest.mark.parametrize("leaf", [nn.Parameter, lambda t: t.requires_grad_()], ids=["parameter", "tensor"])
@pytest.mark.parametrize("start", [torch.tensor(0.7).double(), WEIGHTS], ids=["number", "weights"])
@pytest.mark.parametrize("regulariser", ["identity", "gradient"])
def test_gradient_through_a_factor(leaf, start, regulariser):
    b = noise(1, 1, *VOLUME.shape)

    def values(factor):
        A = scan() * factor
        solved = A.solve(b, 0.3, regulariser, rtol=1e-10).x
        return torch.cat([A(b).flatten(), A.adjoint(A(b)).flatten(), solved.flatten()])

    factor = leaf(start.clone())
    assert torch.autograd.gradcheck(values, (factor,), fast_mode=True, check_undefined_grad=False)
    assert (factor in set((scan() * factor).parameters())) is isinstance(factor, nn.Parameter)


def test_a_factor_that_changes_is_followed():
    factor = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    A = KSpaceCrop(THICK, (3, 3, 4)) @ (-(factor * scan()))
    b, y = noise(1, 1, *VOLUME.shape), A(X)
    A.solve(b, 0.3)
    with torch.no_grad():
        factor.mul_(2)
    equal(A(X), 2 * y)
    torch.testing.assert_close(A.normal(A.solve(b, 0.3).x, 0.3), b, rtol=1e-5, atol=1e-5)


def test_pickles_and_copies():
    for A in (-scan(), scan() * WEIGHTS, nn.Parameter(torch.tensor(2.0)) * scan(), scan() - scan() / 2, scan().T):
        start = X if A.domain == VOLUME else noise(1, 1, *THICK.shape)
        for other in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
            equal(other(start), A(start))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda A: A * "x",
        lambda A: A * [1.0, 2.0],
        lambda A: A * A,
        lambda A: A / "x",
        lambda A: 1 / A,
        lambda A: A + 1.0,
        lambda A: A - X,
        lambda A: A @ "x",
        lambda A: A @ 2.0,
    ],
)
def test_what_is_neither_operator_nor_number_is_refused(wrong):
    with pytest.raises(TypeError):
        wrong(scan())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda A: A * 1j, "finite real number"),
        (lambda A: A * float("nan"), "finite real number"),
        (lambda A: A * torch.tensor(1j), "finite real number"),
        (lambda A: A * WEIGHTS[1:], "do not fit"),
        (lambda A: A * WEIGHTS.flatten(), "do not fit"),
        (lambda A: A * (1j * WEIGHTS), "give real ones"),
        (lambda A: A / 0, "zero"),
        (lambda A: A / torch.zeros(THICK.shape), "zero"),
        (lambda A: A @ X[..., 1:], "shape"),
        (lambda A: A @ X[0], "shape"),
        (lambda A: A @ A, "grids meet"),
        (lambda A: A @ stack(), "grids meet"),
        (lambda A: A + A.H, "same grids"),
        (lambda A: A - Identity(THICK), "same grids"),
        (lambda A: A((1000 * X).to(torch.int16)), "floating-point numbers, not one of torch.int16"),
        (lambda A: A.adjoint(torch.ones(1, 1, *THICK.shape, dtype=torch.bool)), "not one of torch.bool"),
        (lambda A: A(X.numpy()), "not a ndarray"),
        (lambda A: A.solve(X.long(), 0.1), "floating-point numbers"),
        (lambda A: stack().adjoint((torch.ones(1, 1, *THICK.shape).int(), X)), "floating-point numbers"),
        (lambda A: stack().H.solve(stack()(X), 0.1), "starts from 2 grids"),
        (lambda A: A.solve(X, float("inf")), "finite penalty"),
        (lambda A: A.solve(X, torch.tensor([0.1, 0.2])), "needs one penalty"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, says):
    with pytest.raises(InvsrError, match=says):
        wrong(scan())


class Bent(LinearOperator):
    def __init__(self, function):
        super().__init__(SMALL, SMALL)
        self.function = function

    def _forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x**2,
        lambda x: 2 * x + 1,
        lambda x: 2 * x + 0.01,
        torch.abs,
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(min=-1),
        lambda x: x / x.norm(),
        lambda x: torch.tanh(0.1 * x),
    ],
)
def test_what_is_not_linear_is_refused(function):
    for operator in (Bent(function), 2 * Bent(function), Bent(function) @ Identity(SMALL)):
        with pytest.raises(InvsrError, match="not linear"):
            operator.solve(noise(1, 1, *SMALL.shape), 0.1)


def test_linearity_is_tried_once():
    calls = []

    def doubled(x):
        calls.append(1)
        return 2 * x

    A = Bent(doubled)
    A.solve(noise(1, 1, *SMALL.shape), 0.1)
    first = len(calls)
    A.solve(noise(1, 1, *SMALL.shape), 0.1)
    assert len(calls) - first == first - 4  # f(u), f(v), f(u + v) and f(0)


def test_a_multiple_of_a_separable_operator_is_merged():
    A = KSpaceCrop(THICK, (3, 3, 4)) @ (2 * scan())
    assert isinstance(A.operator, Separable)
    assert isinstance((Diagonal(THICK, WEIGHTS) * 2).operator, Diagonal)
    half = Grid((2, 2, 2), np.eye(4))
    assert (Identity(half) / 2).solve(torch.ones(1, 1, 2, 2, 2), 0.75).x[0, 0, 0, 0].tolist() == [1.0, 1.0]


def samples(**options):
    kept = (noise(*VOLUME.shape, seed=5) > 0).double()
    return KSpaceMask(VOLUME, kept, **options), int(kept.sum())


@pytest.mark.parametrize("coils", [1, 2])
def test_sums_in_k_space_measure_what_their_terms_do(coils):
    maps = None if coils == 1 else noise(2, *VOLUME.shape) + 0j
    K, n_kept = samples(coils=maps)
    weights = Diagonal(VOLUME, noise(*VOLUME.shape).abs())
    for A in (K + K @ weights, K - 0.3 * (K @ weights), 2 * (K + K), (K + K) @ weights):
        assert A.measured_coordinates(A(X)).numel() == n_kept * len(X) * coils


class Fourier(LinearOperator):
    complex_range = True

    def _forward(self, x):
        return torch.fft.fftn(x, dim=(2, 3, 4))


def test_k_space_of_ones_own_is_measured_everywhere():
    # A constant has one sample that is not 0.
    A = Fourier(VOLUME, VOLUME)
    assert A.measured_coordinates(A(X)).numel() == X.numel()


def test_differences_of_operators_measure_what_their_terms_do():
    # Inside the field of view a difference leaves nothing of a constant.
    A = scan() - scan(slice_thickness=4.0)
    assert A.measured_coordinates(A(X)).numel() == A(X).numel()
