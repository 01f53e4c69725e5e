"""Fixed points ``T(v) = v`` from evaluations of T alone: Picard's iteration, Anderson's and Broyden's acceleration.

With the residual ``r = T(v) - v``, the last steps ``S = (s_1, ...)`` in v and ``Y = (y_1, ...)`` in r, all three go to

    ``v + c r - (S + c Y) g``,

c being the damping. They differ in the few numbers g: none, those that make ``||r - Y g||`` least, or those that the
secant conditions ask for (Fang & Saad 2009, Numer. Linear Algebra Appl. 16, 197-221).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.iteration import ProgressCallback, Status, Steps, steps_left
from invsr.numerics.linear import inner

# A residual this many times the least one so far: extrapolation has failed. Linear problems pass through rises of
# some times on their way to convergence.
GROWTH = 10.0
# Tikhonov weight of Anderson's least squares, over the mean eigenvalue of the Gram matrix: rounding of float32.
RIDGE = 1e-7
# Evaluations that are usual; rates of convergence are told from them.
USUAL = 15


@dataclass(frozen=True)
class FixedPoint:
    """The best iterate of a fixed-point iteration.

    Attributes
    ----------
    v : Tensor
        The iterate with the least residual.
    status : Status
        BREAKDOWN where T became infinite or not a number.
    n_iter : int
        Evaluations of T.
    residual : float
        ``||T(v) - v|| / ||T(v)||`` at v; infinite where not even the first evaluation was finite.
    history : tuple of float
        The residual of every iterate.
    """

    v: Tensor
    status: Status
    n_iter: int
    residual: float
    history: tuple[float, ...] = ()


class Method(Protocol):
    """Signature of the methods in this module."""

    def __call__(
        self,
        function: Callable[[Tensor], Tensor],
        v: Tensor,
        *,
        rtol: float = 1e-4,
        max_iter: int = 50,
        memory: int = 5,
        damping: float = 1.0,
        progress: ProgressCallback | None = None,
    ) -> FixedPoint:
        """Find v with ``function(v) = v``."""
        ...


def plain(
    function: Callable[[Tensor], Tensor],
    v: Tensor,
    *,
    rtol: float = 1e-4,
    max_iter: int = 50,
    memory: int = 5,
    damping: float = 1.0,
    progress: ProgressCallback | None = None,
) -> FixedPoint:
    """Picard's iteration, damped: ``v + damping (T(v) - v)``.

    Parameters
    ----------
    function : callable
        T, from tensors of the shape of v to such tensors. Runs without a graph.
    v : Tensor
        First iterate, of any shape, real or complex.
    rtol : float
        Stop when ``||T(v) - v|| <= rtol ||T(v)||``.
    max_iter : int
        Largest number of evaluations of T.
    memory : int
        Steps that are remembered: of no effect here, twice as many volumes for the other methods.
    damping : float, in (0, 1]
    progress : callable, optional
        Called with the share that is done, 0 to 1, as its rate of convergence tells, and the residual as "change".

    Returns
    -------
    FixedPoint

    Raises
    ------
    InvsrError
        When `max_iter` or `memory` is below 1, or `damping` not in (0, 1].
    """
    return _iterate(function, v, rtol, max_iter, memory, damping, None, progress)


def anderson(
    function: Callable[[Tensor], Tensor],
    v: Tensor,
    *,
    rtol: float = 1e-4,
    max_iter: int = 50,
    memory: int = 5,
    damping: float = 1.0,
    progress: ProgressCallback | None = None,
) -> FixedPoint:
    """Anderson's acceleration: `plain`, from the combination of the last iterates whose residual would be least.

    For linear T that is GMRES, restarted piece by piece. Parameters, result and errors are those of `plain`.

    References
    ----------
    Anderson (1965), J. ACM 12, 547-560.
    Walker & Ni (2011), SIAM J. Numer. Anal. 49, 1715-1735.
    """
    return _iterate(function, v, rtol, max_iter, memory, damping, _least_residual, progress)


def broyden(
    function: Callable[[Tensor], Tensor],
    v: Tensor,
    *,
    rtol: float = 1e-4,
    max_iter: int = 50,
    memory: int = 5,
    damping: float = 1.0,
    progress: ProgressCallback | None = None,
) -> FixedPoint:
    """Broyden's good method: Newton with the Jacobian nearest to ``-1 / damping`` that explains the last steps.

    Parameters, result and errors are those of `plain`.

    References
    ----------
    Broyden (1965), Math. Comput. 19, 577-593.
    Byrd, Nocedal, Schnabel (1994), Math. Program. 63, 129-156, theorem 6.2 (limited memory).
    """
    return _iterate(function, v, rtol, max_iter, memory, damping, _secant, progress)


METHODS: dict[str, Method] = {"anderson": anderson, "broyden": broyden, "plain": plain}
Coefficients = Callable[[list[Tensor], list[Tensor], Tensor, float], Tensor]


@torch.no_grad()
def _iterate(
    function: Callable[[Tensor], Tensor],
    v: Tensor,
    rtol: float,
    max_iter: int,
    memory: int,
    damping: float,
    coefficients: Coefficients | None,
    progress: ProgressCallback | None,
) -> FixedPoint:
    """Any of the methods: `coefficients` gives g from S, Y, r and the damping."""
    if max_iter < 1 or memory < 1 or not 0 < damping <= 1:
        raise InvsrError(
            f"fixed point with max_iter {max_iter}, memory {memory}, damping {damping}: "
            "the first two are at least 1, damping lies above 0 and up to 1"
        )
    best, best_r, least = v, torch.zeros_like(v), math.inf
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    last: tuple[Tensor, Tensor] | None = None
    history: list[float] = []
    status, evaluations = Status.MAX_ITER, Steps(progress)
    for _ in range(max_iter):
        with evaluations.step(steps_left(history, rtol, USUAL, max_iter)):
            image = function(v)
        r = image - v
        length, size = _norm(r), _norm(image)
        residual = length / size if length and size else math.inf * length if length else 0.0
        history.append(residual)
        evaluations.tell({"change": residual})
        if not (math.isfinite(length) and math.isfinite(size)):
            status = Status.BREAKDOWN
            break
        if residual < least:
            best, best_r, least = v, r, residual
        if residual <= rtol:
            status = Status.CONVERGED
            break
        if coefficients is None:
            v = v + damping * r
            continue
        if residual > GROWTH * least:
            # From the best iterate, and shorter each time: the same way would end at the same place.
            steps, changes, last, damping = [], [], None, damping / 2
            v = best + damping * best_r
            continue
        if last is not None:
            steps, changes = [*steps, v - last[0]][-memory:], [*changes, r - last[1]][-memory:]
        last = v, r
        v = v + damping * r
        if steps:
            for g, s, y in zip(coefficients(steps, changes, r, damping).tolist(), steps, changes, strict=True):
                v = v - g * (s + damping * y)
    evaluations.finish()
    return FixedPoint(best, status, len(history), least, tuple(history))


def _least_residual(steps: list[Tensor], changes: list[Tensor], r: Tensor, damping: float) -> Tensor:
    """``argmin_g ||r - Y g||``, regularised."""
    gram, scale = _products(changes, changes), _norms(changes)
    gram = gram / (scale[:, None] * scale)  # of trace n: residuals fall by orders of magnitude from step to step
    ridge = RIDGE * torch.eye(len(changes), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(gram + ridge, _products(changes, [r])[:, 0] / scale)
    return solution / scale


def _secant(steps: list[Tensor], changes: list[Tensor], r: Tensor, damping: float) -> Tensor:
    """``(S^T Y + L / damping)^-1 S^T r``, L being the part of ``S^T S`` below its diagonal."""
    scale = _norms(steps)
    system = _products(steps, changes) + _products(steps, steps).tril(-1) / damping
    # Least squares: the matrix may be singular, where a step did not change the residual along itself.
    right = _products(steps, [r]) / scale[:, None]
    solution: Tensor = torch.linalg.lstsq(system / (scale[:, None] * scale), right, driver="gelsd").solution
    return solution[:, 0] / scale


def _products(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack([inner(p, q) for q in b]) for p in a]).cpu()


def _norms(vectors: list[Tensor]) -> Tensor:
    # Not 0, because they divide; a vector of zeros has products of 0, and gets a coefficient of 0.
    return torch.stack([inner(vector, vector) for vector in vectors]).cpu().sqrt().clamp(min=1e-150)


def _norm(vector: Tensor) -> float:
    return math.sqrt(float(inner(vector, vector)))
