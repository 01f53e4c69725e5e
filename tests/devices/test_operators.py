"""Every operator on CUDA gives what it gives on the CPU; its contract there is checked by tests/operators."""

import pytest
import torch
from compare import assert_same, everywhere
from registry import CASES

from invsr.numerics.vectors import in_single_precision, parts, random_in_form_of


def volume(case, operator, channels):
    dtype = torch.complex128 if case.complex_domain else torch.float64
    grids = operator.domain if isinstance(operator.domain, tuple) else (operator.domain,)
    zeros = tuple(torch.zeros((2, channels, *one.shape), dtype=dtype) for one in grids)
    return random_in_form_of(zeros if isinstance(operator.domain, tuple) else zeros[0], seed=0)


def length(vectors):
    return sum(part.abs().square().sum() for part in parts(vectors)).sqrt()


def results(case, A, x, y, n_iter):
    """What the operator computes of a volume and data."""
    # Bases of the same space may differ between devices, lengths in them do not.
    found = {"forward": A(x), "adjoint": A.adjoint(y), "transpose": A.T(y)}
    if case.solves:
        found["gram"], found["measured"] = A.gram(x), length(A.measured_coordinates(y))
        for regulariser in ("identity", "gradient") if n_iter else ():
            found[regulariser] = A.solve(x, 0.3, regulariser, rtol=1e-10, max_iter=n_iter).x
    return found


@pytest.mark.parametrize("name", CASES)
def test_same_as_on_the_cpu(name, cuda, thorough):
    case = CASES[name]
    A = case.build()
    x = volume(case, A, channels=1)
    forms = {1e-8: lambda t: t, 1e-3: in_single_precision} if thorough else {1e-8: lambda t: t}
    with torch.no_grad():
        y = random_in_form_of(A(x), seed=1)
        for rtol, form in forms.items():
            n_iter = 20 if thorough else 1  # iterative solves need not come to their end
            expected = results(case, A, form(x), form(y), n_iter)
            on_cuda = (everywhere(form(x), cuda), everywhere(form(y), cuda))
            found = results(case, case.build().to(cuda), *on_cuda, n_iter)
            for key, values in expected.items():
                assert_same(found[key], values, cuda, rtol)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(True for _ in case.build().parameters())])
def test_gradients_in_parameters(name, cuda):
    case = CASES[name]
    A, B = case.build().requires_grad_(), case.build().to(cuda).requires_grad_()
    x = volume(case, A, channels=1)
    sums = [length(op(v)) for op, v in ((A, x), (B, everywhere(x, cuda)))]
    expected, found = (
        torch.autograd.grad(total, list(op.parameters())) for total, op in zip(sums, (A, B), strict=True)
    )
    assert_same(found, expected, cuda, 1e-9)
