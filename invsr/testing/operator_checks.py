"""Does an operator keep its contract? Shapes, linearity, adjoint, gradients, solve, types, copies."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.differences import laplacian
from invsr.numerics.vectors import (
    Tensors,
    dense_matrix,
    device_of,
    difference,
    dot,
    from_vectors,
    in_single_precision,
    norm,
    parts,
    random_in_form_of,
    to_vectors,
)
from invsr.operators.base import LinearOperator
from invsr.operators.normal_equations import GRADIENT, IDENTITY
from invsr.testing.operator_report import OperatorCheckError, OperatorReport

# Largest relative deviations: rounding of float64 and of float32 over sums of some thousand terms, finite differences
# of parameters, iterative solves.
DOUBLE, SINGLE, DIFFERENCES, SOLVED = 1e-10, 1e-5, 1e-6, 1e-7
STEP = 1e-6
# Unknowns (real numbers) up to which the matrix of an operator is written out.
MOST_UNKNOWNS = 1000


class _Skipped(Exception):  # noqa: N818  # not an error
    """A property that cannot be checked here: the message says why."""


class _Probe:
    """The operator, a random volume and random data; what the checks take."""

    def __init__(self, operator: LinearOperator, channels: int, is_complex: bool, seed: int) -> None:
        self.operator = operator
        self.device = device_of(operator)
        self.seed = seed
        self.x = self._volume(channels, is_complex)
        with torch.no_grad():
            self.image = operator(self.x)
            self._require_fit()
            self.y = self.random(self.image, 1)
            self.back = operator.adjoint(self.y)

    def _volume(self, channels: int, is_complex: bool) -> Tensors:
        dtype = torch.complex128 if is_complex else torch.float64
        domain = self.operator.domain
        grids = domain if isinstance(domain, tuple) else (domain,)
        zeros = tuple(torch.zeros((2, channels, *g.shape), dtype=dtype, device=self.device) for g in grids)
        return self.random(zeros if isinstance(domain, tuple) else zeros[0], 0)

    def _require_fit(self) -> None:
        grids = self.operator.range if isinstance(self.operator.range, tuple) else (self.operator.range,)
        found = [(tuple(part.shape[:1]), tuple(part.shape[2:])) for part in parts(self.image)]
        if found != [((2,), grid.shape) for grid in grids]:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts(self.image))
            raise OperatorCheckError(
                f"{type(self.operator).__name__}: shapes (A x is (2, channel, *range.shape)): of two volumes, A x has "
                f"shape {shapes}, the range is {self.operator.range}"
            )

    def random(self, like: Tensors, n: int) -> Tensors:
        return random_in_form_of(like, self.seed + n)

    def require_one_domain(self) -> None:
        if isinstance(self.operator.domain, tuple):
            raise _Skipped("the domain is several grids")

    def matrix(self) -> Tensor:
        start = from_vectors(to_vectors(self.x)[:1], self.x)
        unknowns = to_vectors(start).shape[1]
        if unknowns > MOST_UNKNOWNS:
            raise _Skipped(f"{unknowns} unknowns are more than {MOST_UNKNOWNS}: use a smaller grid")
        with torch.no_grad():
            return dense_matrix(self.operator, start)


def check_operator(
    operator: LinearOperator, *, channels: int = 1, complex_domain: bool = False, seed: int = 0
) -> OperatorReport:
    """Check that an operator keeps the contract of `LinearOperator`; takes seconds on a grid of some hundred voxels.

    ========================  ========================================================================
    shapes                    ``A x`` has the shape of the range, ``A* y`` shape and type of x
    linear                    ``A (a u + v) = a A u + A v``
    adjoint                   ``<A x, y> = <x, A* y>``, in float64 and in float32 (the dot test)
    adjoint operator          ``A.H`` is A*, and ``A.H.H is A``
    gram                      ``gram(x) = A* A x``
    gradient                  autograd's derivative of A is A*, and that of A* is A
    gradient in parameters    autograd against central differences, for parameters that require it
    dense matrix              the matrix of A* is the transpose of A's; on small grids only
    solve                     ``(A* A + rho R) x = b``, R the identity or the Laplacian
    single precision          float32 in, float32 out, on the device of the input
    pickle                    a pickled operator gives the same data
    input                     what was given is not changed in place
    ========================  ========================================================================

    Parameters
    ----------
    operator : LinearOperator
        It must take float64; its grids should be small.
    channels : int
        Channels of the volume.
    complex_domain : bool
        Test with complex volumes.
    seed : int
        Seed of the random volume and data.

    Returns
    -------
    OperatorReport
        The deviation of each property; print it.

    Raises
    ------
    OperatorCheckError
        When a property fails, naming each one, its deviation and the limit, or A x or A* y fails with an error of
        torch's. An `InvsrError` and an `AssertionError`.

    References
    ----------
    Claerbout (2014), Geophysical image estimation by example, section 2.1 (the dot-product test).

    Examples
    --------
    >>> import invsr
    >>> scan = invsr.Grid.from_spacing((4, 5, 3), (1, 1, 4))
    >>> report = check_operator(invsr.operators.acquisition(scan, spacing=(1, 1, 2)))
    >>> report.failures, report.deviations["adjoint"] < 1e-14
    ([], True)
    """
    try:
        probe = _Probe(operator, channels, complex_domain, seed)
    except RuntimeError as error:  # torch's: an input that is changed in place, or not in the graph
        says = str(error).splitlines()[0]
        raise OperatorCheckError(f"{type(operator).__name__}: A x or A* y fails: {says}") from error
    report, raised = OperatorReport(type(operator).__name__), dict[str, str]()
    for check in CHECKS:
        try:
            report.deviations[check.name] = check.measure(probe)
            report.limits[check.name] = check.limit
        except _Skipped as reason:
            report.skipped[check.name] = str(reason)
        except (RuntimeError, InvsrError) as error:  # torch's, or the operator's own
            report.deviations[check.name], report.limits[check.name] = math.inf, check.limit
            raised[check.name] = f", {str(error).splitlines()[0]}"
        if check.name == "shapes" and report.failures:
            break  # nothing else can be compared
    failed = [
        f"{check.name} ({check.meaning}) deviates by {report.deviations[check.name]:.1e}, limit {check.limit}"
        + raised.get(check.name, "")
        for check in CHECKS
        if check.name in report.failures
    ]
    if failed:
        raise OperatorCheckError(f"{report.operator}: {'; '.join(failed)}")
    return report


# Checks: from a probe to a relative deviation --------------------------------------------------------


def _shapes(probe: _Probe) -> float:
    return 0.0 if _form(probe.back) == _form(probe.x) else math.inf


def _linear(probe: _Probe) -> float:
    A, u, v = probe.operator, probe.x, probe.random(probe.x, 2)
    factor = 0.7 - 0.4j if any(part.is_complex() for part in parts(u)) else -1.3
    both = tuple(factor * a + b for a, b in zip(parts(u), parts(v), strict=True))
    expected = tuple(factor * a + b for a, b in zip(parts(A(u)), parts(A(v)), strict=True))
    return difference(A(both if isinstance(u, tuple) else both[0]), expected)


def _adjoint(probe: _Probe) -> float:
    return _dot_test(probe, probe.x, probe.y)


def _adjoint_single(probe: _Probe) -> float:
    return _dot_test(probe, in_single_precision(probe.x), in_single_precision(probe.y))


def _dot_test(probe: _Probe, x: Tensors, y: Tensors) -> float:
    with torch.no_grad():
        image, back = probe.operator(x), probe.operator.adjoint(y)
    size = max(norm(image) * norm(y), norm(x) * norm(back))
    return abs(dot(image, y) - dot(x, back)) / size if size else 0.0


def _adjoint_operator(probe: _Probe) -> float:
    A = probe.operator
    if not (A.H.H is A or A.H.H.H is A.H) or (A.H.domain, A.H.range) != (A.range, A.domain):
        return math.inf
    return max(difference(A.H(probe.y), probe.back), difference(A.H.adjoint(probe.x), probe.image))


def _gram(probe: _Probe) -> float:
    probe.require_one_domain()
    return difference(probe.operator.gram(probe.x), probe.operator.adjoint(probe.image))


def _gradient(probe: _Probe) -> float:
    """For a linear map the derivative is the map itself: no finite differences are needed."""
    A = probe.operator
    pairs: tuple[tuple[Callable[[Tensors], Tensors], Tensors, Tensors, Tensors], ...]
    pairs = ((A, probe.x, probe.y, probe.back), (A.adjoint, probe.y, probe.x, probe.image))
    found = []
    for function, start, along, expected in pairs:
        leaves = tuple(part.detach().requires_grad_() for part in parts(start))
        with torch.enable_grad():
            image = function(leaves if isinstance(start, tuple) else leaves[0])
            total = (to_vectors(image) * to_vectors(along)).sum()
            if not total.requires_grad:
                return math.inf
            slopes = torch.autograd.grad(total, leaves)
        found.append(difference(slopes, expected))
    return max(found)


def _gradient_in_parameters(probe: _Probe) -> float:
    A = probe.operator
    parameters: list[Tensor] = [p for p in A.parameters() if p.requires_grad]
    if not parameters:
        raise _Skipped("no parameter requires a gradient")

    def of_forward() -> Tensor:
        return (to_vectors(A(probe.x)) * to_vectors(probe.y)).sum()

    def of_adjoint() -> Tensor:
        return (to_vectors(A.adjoint(probe.y)) * to_vectors(probe.x)).sum()

    worst = 0.0
    for value in (of_forward, of_adjoint):
        with torch.enable_grad():
            total = value()
            slopes = torch.autograd.grad(total, parameters, allow_unused=True) if total.requires_grad else ()
        along = [random_in_form_of(p.detach().reshape(1, -1), probe.seed).reshape(p.shape) for p in parameters]
        exact = sum(float((s * d).sum()) for s, d in zip(slopes, along, strict=False) if s is not None)
        numeric = _centraldifference(value, parameters, along)
        scale = max(abs(exact), abs(float(value().detach())))
        worst = max(worst, abs(exact - numeric) / scale if scale else 0.0)
    return worst


@torch.no_grad()
def _centraldifference(value: Callable[[], Tensor], parameters: list[Tensor], along: list[Tensor]) -> float:
    kept = [p.clone() for p in parameters]
    found = []
    for sign in (1, -1):
        for p, start, d in zip(parameters, kept, along, strict=True):
            p.copy_(start + sign * STEP * d)
        found.append(float(value()))
    for p, start in zip(parameters, kept, strict=True):
        p.copy_(start)
    return (found[0] - found[1]) / (2 * STEP)


def _dense(probe: _Probe) -> float:
    forward = probe.matrix()
    with torch.no_grad():
        data = from_vectors(to_vectors(probe.y)[:1], probe.y)
        back = dense_matrix(probe.operator.adjoint, data)
        image = to_vectors(probe.image)
    return max(difference(back, forward.T), difference(to_vectors(probe.x) @ forward.T, image))


def _solve(probe: _Probe, regulariser: str) -> float:
    probe.require_one_domain()
    A, b = probe.operator, probe.random(probe.x, 0)
    ones = torch.ones_like(b)
    if regulariser == GRADIENT and norm(A(ones)) < 1e-9 * norm(ones):
        raise _Skipped("neither the operator nor the penalty sees a constant")
    rho = 0.1 * (norm(probe.image) / norm(b)) ** 2 or 1.0  # a tenth of the mean eigenvalue of A* A
    with torch.no_grad():
        found = A.solve(b, rho, regulariser, rtol=1e-11, max_iter=3000).x
        residual = difference(A.normal(found, rho, regulariser), b)
        try:
            matrix = probe.matrix()
        except _Skipped:  # the residual has to do
            return residual
        one = b[:1]
        penalty = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        if regulariser == GRADIENT:
            penalty = dense_matrix(lambda v: laplacian(v, A.domain.spacing.tolist(), A.boundary), one)
        expected = torch.linalg.solve(matrix.T @ matrix + rho * penalty, to_vectors(one)[0])
    return max(residual, difference(to_vectors(found)[0], expected))


def _single_precision(probe: _Probe) -> float:
    x, y = in_single_precision(probe.x), in_single_precision(probe.y)
    with torch.no_grad():
        image, back = probe.operator(x), probe.operator.adjoint(y)
    pairs = ((image, probe.image), (back, probe.back))
    if any(_form(found) != _form(in_single_precision(expected)) for found, expected in pairs):
        return math.inf
    return max(difference(found, expected) for found, expected in pairs)


def _pickle(probe: _Probe) -> float:
    return difference(pickle.loads(pickle.dumps(probe.operator))(probe.x), probe.image)


def _input(probe: _Probe) -> float:
    """The checks before this one have used x and y in every way."""
    x, y = probe.random(probe.x, 0), probe.random(probe.y, 1)
    return max(difference(probe.x, x), difference(probe.y, y))


def _form(x: Tensors) -> list[tuple[tuple[int, ...], torch.dtype, torch.device]]:
    return [(tuple(part.shape), part.dtype, part.device) for part in parts(x)]


class Check(NamedTuple):
    """A property: its name, what it says, the largest relative deviation, and how that is measured."""

    name: str
    meaning: str
    limit: float
    measure: Callable[[_Probe], float]


CHECKS = (
    Check("shapes", "A* y has the shape and the type of x", 0.0, _shapes),
    Check("linear", "A(a u + v) = a A(u) + A(v)", DOUBLE, _linear),
    Check("adjoint", "<A x, y> = <x, A* y>", DOUBLE, _adjoint),
    Check("adjoint in single precision", "<A x, y> = <x, A* y> in float32", SINGLE, _adjoint_single),
    Check("adjoint operator", "A.H is A*, and A.H.H is A", DOUBLE, _adjoint_operator),
    Check("gram", "gram(x) = A* A x", DOUBLE, _gram),
    Check("gradient", "autograd's derivative of A is A*, and of A* is A", DOUBLE, _gradient),
    Check("gradient in parameters", "autograd agrees with central differences", DIFFERENCES, _gradient_in_parameters),
    Check("dense matrix", "the matrix of A* is the transpose of A's", DOUBLE, _dense),
    Check("solve, identity", "(A* A + rho) x = b", SOLVED, lambda probe: _solve(probe, IDENTITY)),
    Check("solve, gradient", "(A* A + rho grad* grad) x = b", SOLVED, lambda probe: _solve(probe, GRADIENT)),
    Check("single precision", "float32 in, float32 out, on one device", SINGLE, _single_precision),
    Check("pickle", "a pickled operator gives the same data", DOUBLE, _pickle),
    Check("input", "x and y are not changed in place", 0.0, _input),
)
