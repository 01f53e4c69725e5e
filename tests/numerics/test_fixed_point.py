"""Fixed points: against dense algebra, against Broyden's update written out, and where there is none."""

import math

import pytest
import torch

from invsr.errors import InvsrError
from invsr.numerics.fixed_point import METHODS
from invsr.solvers import Status

F64 = torch.float64
BOTH = ["anderson", "broyden"]


def linear(low, high, n=60, dtype=F64):
    """``v -> A v + b`` on (2, n / 2), A symmetric with eigenvalues from low to high, and its fixed point."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=dtype)).Q
    matrix = (basis * torch.linspace(low, high, n, dtype=F64)) @ basis.mH
    b = torch.randn(n, generator=generator, dtype=dtype)
    point = torch.linalg.solve(torch.eye(n, dtype=dtype) - matrix, b).reshape(2, -1)
    return lambda v: (matrix @ v.flatten() + b).reshape(v.shape), point


def nonlinear(n=40):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(n, n, generator=generator, dtype=F64)
    matrix = 0.9 * matrix / torch.linalg.matrix_norm(matrix, 2)
    b = torch.randn(n, generator=generator, dtype=F64)
    return lambda v: torch.tanh(matrix @ v + b)


@pytest.mark.parametrize("dtype", [F64, torch.complex128])
@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("name", METHODS)
def test_linear_contraction(name, damping, dtype):
    function, point = linear(-0.5, 0.9, dtype=dtype)
    found = METHODS[name](function, torch.zeros_like(point), rtol=1e-9, max_iter=400, damping=damping)
    assert found.status is Status.CONVERGED and found.n_iter == len(found.history) < 400
    assert float((found.v - point).norm() / point.norm()) < 1e-7
    image = function(found.v)
    assert found.residual == pytest.approx(float((image - found.v).norm() / image.norm()), rel=1e-9)
    assert found.residual == found.history[-1] <= 1e-9


@pytest.mark.parametrize("name", METHODS)
def test_nonlinear_contraction(name):
    function = nonlinear()
    point = torch.zeros(40, dtype=F64)
    for _ in range(1000):
        point = function(point)
    found = METHODS[name](function, torch.zeros(40, dtype=F64), rtol=1e-9, max_iter=400)
    assert found.status is Status.CONVERGED
    torch.testing.assert_close(found.v, point, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype, rtol", [(F64, 1e-8), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", BOTH)
def test_acceleration_saves_iterations(name, dtype, rtol):
    double, point = linear(0.0, 0.95)

    def run(method):
        found = METHODS[method](
            lambda v: double(v.double()).to(dtype), torch.zeros_like(point, dtype=dtype), rtol=rtol, max_iter=600
        )
        assert found.status is Status.CONVERGED and found.v.dtype == dtype
        return found.n_iter

    assert run(name) < 0.5 * run("plain")


def test_anderson_with_a_long_memory_ends_like_gmres():
    # Six eigenvalues: a Krylov space of six dimensions holds the solution.
    generator = torch.Generator().manual_seed(2)
    values = torch.tensor([-3.0, -0.7, 0.2, 0.5, 0.8, 0.95], dtype=F64).repeat(5)
    b = torch.randn(30, generator=generator, dtype=F64)
    found = METHODS["anderson"](lambda v: values * v + b, torch.zeros_like(b), rtol=1e-6, memory=10)
    assert found.status is Status.CONVERGED and found.n_iter <= 9
    torch.testing.assert_close(found.v, b / (1 - values), rtol=1e-4, atol=0)


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_broyden_is_the_update_of_1965(damping):
    function, n_iter = nonlinear(), 7
    v = torch.zeros(40, dtype=F64)
    inverse, before, residuals = -damping * torch.eye(40, dtype=F64), None, []
    for _ in range(n_iter):
        r = function(v) - v
        residuals.append(float(r.norm() / function(v).norm()))
        if before is not None:
            s, y = v - before[0], r - before[1]
            row = s @ inverse
            inverse = inverse + torch.outer(s - inverse @ y, row) / (row @ y)
        before = v, r
        v = v - inverse @ r
    start = torch.zeros(40, dtype=F64)
    found = METHODS["broyden"](function, start, rtol=0.0, max_iter=n_iter, memory=10, damping=damping)
    torch.testing.assert_close(found.history, tuple(residuals), rtol=1e-7, atol=0)
    short = METHODS["broyden"](function, start, rtol=0.0, max_iter=n_iter, memory=2, damping=damping)
    assert short.history[:4] == found.history[:4] and short.history[-1] != found.history[-1]


def test_expansion_defeats_picard_alone():
    function, point = linear(-1.5, 0.5)
    start = torch.zeros_like(point)
    found = METHODS["plain"](function, start, max_iter=60)
    assert found.status is Status.MAX_ITER and found.n_iter == 60
    assert bool(found.v.isfinite().all()) and found.residual == min(found.history) < found.history[-1]
    image = function(found.v)
    assert found.residual == pytest.approx(float((image - found.v).norm() / image.norm()), rel=1e-9)
    for name in BOTH:
        found = METHODS[name](function, start, max_iter=60)
        assert found.status is Status.CONVERGED
        assert float((found.v - point).norm() / point.norm()) < 1e-3
    assert METHODS["plain"](function, start, max_iter=60, damping=0.5).status is Status.CONVERGED


NOWHERE = {
    "exp": lambda v: v.exp(),  # above its argument everywhere
    "square": lambda v: v * v + 1,
    "nan beyond 2": lambda v: torch.where(v > 2, torch.nan, v * v + v + 1),
    "nan": lambda v: torch.full_like(v, torch.nan),
    "inf": lambda v: torch.full_like(v, torch.inf),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", NOWHERE)
def test_no_fixed_point_is_reported(name, case):
    found = METHODS[name](NOWHERE[case], torch.full((3,), 1.9, dtype=F64), max_iter=40)
    assert found.status is not Status.CONVERGED and bool(found.v.isfinite().all())
    assert found.residual == min((h for h in found.history if math.isfinite(h)), default=math.inf) > 0.1
    if "nan" in case or "inf" in case:
        assert found.status is Status.BREAKDOWN and found.n_iter <= 2


@pytest.mark.parametrize("name", BOTH)
def test_restart_from_the_best_iterate(name):
    function, point = linear(0.0, 0.9)
    seen = []

    def faulty(v):
        seen.append(v)
        return function(v) + 1e4 * (len(seen) == 5)

    found = METHODS[name](faulty, torch.zeros_like(point), rtol=1e-8, max_iter=200)
    best = min(range(4), key=lambda n: found.history[n])
    torch.testing.assert_close(seen[5], 0.5 * (seen[best] + function(seen[best])), rtol=0, atol=1e-12)
    assert found.history[4] > 10 * found.history[best] and found.status is Status.CONVERGED
    torch.testing.assert_close(found.v, point, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_fixed_point_at_the_start(name):
    for start in (torch.zeros(2, 3), torch.ones(2, 3)):
        found = METHODS[name](lambda v: v**3, start)
        assert found.status is Status.CONVERGED and found.n_iter == 1 and found.residual == 0
        torch.testing.assert_close(found.v, start, rtol=0, atol=0)


def test_no_graph_is_kept():
    weight = torch.tensor(0.5, requires_grad=True)
    found = METHODS["anderson"](lambda v: weight * v + 1, torch.zeros(3))
    assert not found.v.requires_grad


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("option", [{"max_iter": 0}, {"memory": 0}, {"damping": 0.0}, {"damping": 1.5}])
def test_options_out_of_range(name, option):
    ((word, value),) = option.items()
    with pytest.raises(InvsrError, match=f"{word} {value}"):
        METHODS[name](lambda v: v, torch.zeros(3), **option)
