"""Every operator on CUDA gives what it gives on the CPU; its contract there is checked by tests/operators."""

import pytest
import torch
from compare import assert_same, everywhere
from registry import CASES

from invsr.numerics.vectors import in_single_precision, parts, random_in_form_of


def volume(case, operator):
    dtype = torch.complex128 if case.complex_domain else torch.float64
    grids = operator.domain if isinstance(operator.domain, tuple) else (operator.domain,)
    zeros = tuple(torch.zeros((2, case.channels, *one.shape), dtype=dtype) for one in grids)
    return random_in_form_of(zeros if isinstance(operator.domain, tuple) else zeros[0], seed=0)


def length(vectors):
    return sum(part.abs().square().sum() for part in parts(vectors)).sqrt()


def results(case, A, x, y, n_iter):
    """What the operator computes of a volume and data."""
    # Bases of the same space may differ between devices, lengths in them do not.
    found = {"forward": A(x), "adjoint": A.adjoint(y)}
    if case.solves:
        found["measured"] = length(A.measured_coordinates(y))
    if n_iter != 1:
        found["transpose"] = A.T(y)
    if case.solves and n_iter:  # iterative solves need not come to their end
        found["solve"] = A.solve(x, 0.3, "identity" if n_iter == 1 else "gradient", rtol=1e-10, max_iter=n_iter).x
    return found


def quick_and_thorough():
    """Names of all cases and numbers of iterations: one is quick, of the first cases that have an operator or type."""
    seen = set()
    for name, case in CASES.items():
        yield pytest.param(name, 20, marks=pytest.mark.thorough)
        kinds = {(type(part), case.complex_domain) for part in case.build().modules()}
        yield pytest.param(name, 1, marks=[pytest.mark.thorough] if kinds <= seen else [])
        seen |= kinds


@pytest.mark.parametrize(("name", "n_iter"), [*quick_and_thorough()])
def test_same_as_on_the_cpu(name, n_iter, cuda):
    compare(name, cuda, n_iter, lambda t: t, 1e-8)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_same_as_on_the_cpu_in_single_precision(name, cuda):
    compare(name, cuda, 0, in_single_precision, 1e-4)


def compare(name, cuda, n_iter, form, rtol):
    case = CASES[name]
    A = case.build()
    x = volume(case, A)
    with torch.no_grad():
        y = random_in_form_of(A(x), seed=1)
        expected = results(case, A, form(x), form(y), n_iter)
        found = results(case, case.build().to(cuda), everywhere(form(x), cuda), everywhere(form(y), cuda), n_iter)
    for key, values in expected.items():
        assert_same(found[key], values, cuda, rtol)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(True for _ in case.build().parameters())])
def test_gradients_in_parameters(name, cuda):
    case = CASES[name]
    A, B = case.build().requires_grad_(), case.build().to(cuda).requires_grad_()
    x = volume(case, A)
    sums = [length(op(v)) for op, v in ((A, x), (B, everywhere(x, cuda)))]
    expected, found = (
        torch.autograd.grad(total, list(op.parameters())) for total, op in zip(sums, (A, B), strict=True)
    )
    assert_same(found, expected, cuda, 1e-9)
