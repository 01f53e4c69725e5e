"""One iteration of each solver: pure functions of state, data and parameters.

A step alternates data consistency (`LinearOperator.solve`) with refinement (`Prior.prox`). Who drives it
decides what it is: iterated until it converges, unrolled a fixed number of times, or solved for its
fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from invsr.differences import gradient, gradient_adjoint
from invsr.operators.base import LinearOperator
from invsr.priors.base import GRADIENT, Prior


@dataclass(frozen=True)
class Problem:
    """Data term and prior: ``1/2 ||A x - t||^2 + lam R(x)``, given as A and ``A* t``."""

    operator: LinearOperator
    prior: Prior
    back_projection: Tensor


@dataclass(frozen=True)
class State:
    """Where an iteration stands: the volume, and the split variable plus its dual in one tensor.

    ``v = K x + u`` holds both of ADMM's other variables: ``z = prox(v)`` and ``u = v - z``.
    """

    x: Tensor
    v: Tensor
    split_residual: float = 0.0


@dataclass(frozen=True)
class ADMM:
    """Alternating direction method of multipliers, splitting where the prior's prox acts.

    .. code-block:: text

        x <- (A*A + rho K*K)^-1 (A*t + rho K*(z - u))     exact where the operator allows
        z <- prox(K x + u, sqrt(lam / rho))
        u <- u + K x - z

    References
    ----------
    Boyd, Parikh, Chu, Peleato, Eckstein (2011), Found. Trends Mach. Learn. 3, 1-122, sections 3.1-3.4.
    """

    def start(self, problem: Problem, x: Tensor) -> State:
        """The state before the first iteration, from a first guess of the volume."""
        return State(x, _analyse(problem, x))

    def __call__(self, state: State, problem: Problem, lam: float | Tensor, rho: float | Tensor) -> State:
        """The next state.

        Changing `lam` and `rho` between calls by one common factor keeps the dual valid; another change
        needs ``u`` rescaled by the ratio of the two rho.
        """
        sigma = (lam / rho) ** 0.5
        z = problem.prior.prox(state.v, sigma)
        u = state.v - z
        rhs = problem.back_projection + rho * _synthesise(problem, z - u)
        # Inexact data steps (CG) only need to keep ahead of the outer iteration.
        x = problem.operator.solve(rhs, rho, problem.prior.analysis, x0=state.x, rtol=1e-5, max_iter=50).x
        k = _analyse(problem, x)
        split = float((k - z).norm() / k.norm().clamp(min=1e-30))
        return replace(state, x=x, v=u + k, split_residual=split)


def _analyse(problem: Problem, x: Tensor) -> Tensor:
    if problem.prior.analysis != GRADIENT:
        return x
    operator = problem.operator
    return gradient(x, operator.domain.spacing.tolist(), operator.boundary)


def _synthesise(problem: Problem, z: Tensor) -> Tensor:
    if problem.prior.analysis != GRADIENT:
        return z
    operator = problem.operator
    return gradient_adjoint(z, operator.domain.spacing.tolist(), operator.boundary)
