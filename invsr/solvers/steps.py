"""One iteration of each solver: pure functions of state, data and parameters.

A step alternates data consistency (`LinearOperator.solve`) with refinement (`Prior.prox`). Who drives it
decides what it is: iterated until it converges, unrolled a fixed number of times, or solved for its
fixed point.

With f the data term ``1/2 ||A x - t||^2`` and D the prior's prox at ``sigma^2 = lam / rho``, the fixed points are

=========  ==========================================  ===================================
step       fixed point                                 same as
=========  ==========================================  ===================================
HQS, RED   ``grad f(x) + rho (x - D(x)) = 0``          each other, at the same rho
ADMM, PGD  ``x = D(x - grad f(x) / rho)``              each other, at the same rho
=========  ==========================================  ===================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.differences import gradient, gradient_adjoint
from invsr.numerics.linear import inner, number
from invsr.operators.base import LinearOperator
from invsr.priors.base import GRADIENT, Prior


@dataclass(frozen=True)
class Problem:
    """Data term and prior: ``1/2 ||A x - t||^2 + lam R(x)``, given as A, ``A* t``, t and ``||A*A||``."""

    operator: LinearOperator
    prior: Prior
    back_projection: Tensor
    target: Any = None
    norm: float = 1.0

    def slope(self, x: Tensor) -> Tensor:
        """The gradient of the data term, ``A* (A x - t)``."""
        return self.operator.gram(x) - self.back_projection

    def objective(self, x: Tensor, lam: float, rho: float) -> float | None:
        """``1/2 ||A x - t||^2 + lam R(x)``; None where the prior has no cost or the data are not at hand."""
        cost = self.prior.cost(_analyse(self, x), (lam / rho) ** 0.5)
        if cost is None or self.target is None:
            return None
        prediction = self.operator(x)
        pairs = (
            zip(prediction, self.target, strict=True) if isinstance(self.target, tuple) else [(prediction, self.target)]
        )
        misfit = sum(float(inner(a - b, a - b)) for a, b in pairs)
        return 0.5 * misfit + lam * float(cost)


@dataclass(frozen=True)
class State:
    """Where an iteration stands: the volume, and what the step carries along in one tensor.

    Attributes
    ----------
    x : Tensor
        The volume.
    z : Tensor
        The prior's last word, ``prox(...)``, in the prior's analysis domain.
    v : Tensor
        HQS, PGD, RED: where the prox acts next. ADMM: ``v = K x + u``, which holds the dual ``u = v - z``.
    split_residual : float
        ``||K x - z|| / ||K x||``.
    variance : float or None
        ``lam / rho`` of the last iteration.
    momentum : float
        Nesterov's sequence.
    relaxation : float
        HQS with descent: share of the prior's step that is taken, 1 where no backtracking was needed.
    objective : float or None
    """

    x: Tensor
    z: Tensor
    v: Tensor
    split_residual: float = 0.0
    variance: float | Tensor | None = None
    momentum: float = 1.0
    relaxation: float = 1.0
    objective: float | None = None


class Step(Protocol):
    """What the drivers repeat."""

    def start(self, problem: Problem, x: Tensor) -> State:
        """The state before the first iteration, from a first guess of the volume."""
        ...

    def __call__(self, state: State, problem: Problem, lam: Any, rho: Any) -> State:
        """The next state."""
        ...


@dataclass(frozen=True)
class HQS:
    """Half-quadratic splitting: the penalty method without a dual variable.

    .. code-block:: text

        z <- prox(K x, sqrt(lam / rho))
        x <- (A*A + rho K*K)^-1 (A*t + rho K*z)           exact where the operator allows

    Parameters
    ----------
    descend : bool
        For priors with a cost whose prox is a gradient step (`GradientStep` networks): go ahead by Nesterov's
        momentum where the objective ``1/2 ||A x - t||^2 + lam R(x)`` falls enough with it; else go on without, and
        shorten the prior's step until it does. The objective then never rises, and every limit of the iterates is
        a stationary point (Li & Lin 2015, theorem 1; without momentum Hurault et al. 2022, theorem 1), whatever A is.

    References
    ----------
    Geman & Yang (1995), IEEE Trans. Image Process. 4, 932-946.
    Zhang et al. (2022), IEEE Trans. Pattern Anal. Mach. Intell. 44, 6360-6376 (plug-and-play).
    Hurault, Leclaire, Papadakis (2022), Gradient step denoiser for convergent plug-and-play, ICLR.
    Li & Lin (2015), Accelerated proximal gradient methods for nonconvex programming, NeurIPS.
    O'Donoghue & Candes (2015), Found. Comput. Math. 15, 715-732.
    """

    descend: bool = False

    def start(self, problem: Problem, x: Tensor) -> State:
        v = _analyse(problem, x)
        return State(x, v, v)

    def __call__(self, state: State, problem: Problem, lam: float | Tensor, rho: float | Tensor) -> State:
        z = problem.prior.prox(state.v, (lam / rho) ** 0.5)
        if self.descend:
            return self._descend(state, problem, float(lam), float(rho), z)
        x = _consistent(problem, z, rho, state.x)
        k = _analyse(problem, x)
        return replace(state, x=x, z=z, v=k, split_residual=_distance(k, z))

    def _descend(self, state: State, problem: Problem, lam: float, rho: float, z: Tensor) -> State:
        if problem.prior.analysis == GRADIENT:
            raise InvsrError("HQS with descent needs a prior on the volume, not on its differences")
        before = state.objective if state.variance == lam / rho else None
        same = before is not None
        if before is None:
            before = problem.objective(state.x, lam, rho)
        if before is None:
            raise InvsrError(
                f"HQS with descent needs a prior with a cost, and {type(problem.prior).__name__} has none: "
                "use a gradient-step denoiser"
            )

        def attempt(base: Tensor, z: Tensor, share: float, rounding: float) -> State | None:
            """Gradient step on lam R of length share / rho, then the prox of f with the same length; if F falls."""
            x = _consistent(problem, base + share * (z - base), rho / share, base)
            after = problem.objective(x, lam, rho)
            length = float(inner(x - base, x - base))
            if after is None or after > before - 0.1 * rho / share * length + rounding * abs(before):
                return None
            # Momentum that points uphill starts anew (O'Donoghue & Candes 2015).
            momentum = state.momentum if float(inner(base - x, x - state.x)) <= 0 else 1.0
            ahead = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            v = x if momentum == 1.0 else x + (momentum - 1) / ahead * (x - state.x)
            return replace(
                state, x=x, z=z, v=v, split_residual=_distance(x, z), variance=lam / rho, momentum=ahead,
                relaxation=share, objective=after,
            )  # fmt: skip

        share, ahead_of_x = state.relaxation, state.v is not state.x
        if ahead_of_x:
            found = attempt(state.v, z, share, 0.0) if same else None
            if found is not None:
                return found
            # From the last volume itself descent is certain; momentum starts anew.
            state = replace(state, v=state.x, momentum=1.0)
            z = problem.prior.prox(state.x, (lam / rho) ** 0.5)
        for _ in range(30):
            # A step that is only as good as float32 can tell is the last: it stays where it is.
            found = attempt(state.x, z, share, 1e-7)
            if found is not None and (found.objective or 0.0) <= before:
                return found
            if found is not None:
                break
            share *= 0.7
        return replace(state, z=z, split_residual=_distance(state.x, z), variance=lam / rho, objective=before)


@dataclass(frozen=True)
class ADMM:
    """Alternating direction method of multipliers, splitting where the prior's prox acts.

    .. code-block:: text

        z <- prox(K x + u, sqrt(lam / rho))
        u <- u + K x - z
        x <- (A*A + rho K*K)^-1 (A*t + rho K*(z - u))     exact where the operator allows

    References
    ----------
    Boyd, Parikh, Chu, Peleato, Eckstein (2011), Found. Trends Mach. Learn. 3, 1-122, sections 3.1-3.4.
    Venkatakrishnan, Bouman, Wohlberg (2013), GlobalSIP, 945-948 (plug-and-play).
    """

    def start(self, problem: Problem, x: Tensor) -> State:
        v = _analyse(problem, x)
        return State(x, v, v)

    def __call__(self, state: State, problem: Problem, lam: float | Tensor, rho: float | Tensor) -> State:
        """The next state.

        The dual ``u`` is a subgradient of ``sigma^2 R`` and is rescaled with it when lam or rho change.
        """
        variance, v = lam / rho, state.v
        if state.variance is not None and state.variance is not variance and state.variance != variance:
            k = _analyse(problem, state.x)
            v = k + (v - k) * (variance / state.variance)
        z = problem.prior.prox(v, variance**0.5)
        u = v - z
        x = _consistent(problem, z - u, rho, state.x)
        k = _analyse(problem, x)
        return replace(state, x=x, z=z, v=u + k, split_residual=_distance(k, z), variance=variance)


@dataclass(frozen=True)
class PGD:
    """Proximal gradient descent; rho is one over the step length and at least ``||A*A||``.

    .. code-block:: text

        x <- prox(v - grad f(v) / rho, sqrt(lam / rho))
        v <- x + momentum (x - previous x)                 FISTA; v = x without acceleration

    Parameters
    ----------
    accelerate : bool
        FISTA's momentum: for priors with a cost. It amplifies what changes from call to call, as the noise level and
        the random symmetries of a denoiser do: off for those.

    References
    ----------
    Beck & Teboulle (2009), SIAM J. Imaging Sci. 2, 183-202.
    """

    accelerate: bool = False

    def start(self, problem: Problem, x: Tensor) -> State:
        if problem.prior.analysis == GRADIENT:
            raise InvsrError("PGD needs a prior on the volume, not on its differences: use ADMM")
        return State(x, x, x)

    def __call__(self, state: State, problem: Problem, lam: float | Tensor, rho: float | Tensor) -> State:
        x = problem.prior.prox(state.v - problem.slope(state.v) / rho, (lam / rho) ** 0.5)
        ahead = 0.5 * (1 + (1 + 4 * state.momentum**2) ** 0.5) if self.accelerate else 1.0
        v = x + (state.momentum - 1) / ahead * (x - state.x)
        return replace(state, x=x, z=x, v=v, momentum=ahead)


@dataclass(frozen=True)
class RED:
    """Regularisation by denoising, as gradient descent: the denoiser's residual serves as a gradient.

    .. code-block:: text

        x <- v - (grad f(v) + rho (v - prox(v, sqrt(lam / rho)))) / (||A*A|| + rho)

    Parameters
    ----------
    accelerate : bool
        Nesterov's momentum between iterations: as for PGD.

    References
    ----------
    Romano, Elad, Milanfar (2017), SIAM J. Imaging Sci. 10, 1804-1844.
    Reehorst & Schniter (2019), IEEE Trans. Comput. Imaging 5, 52-67.
    """

    accelerate: bool = False

    def start(self, problem: Problem, x: Tensor) -> State:
        if problem.prior.analysis == GRADIENT:
            raise InvsrError("RED needs a prior on the volume, not on its differences: use ADMM")
        return State(x, x, x)

    def __call__(self, state: State, problem: Problem, lam: float | Tensor, rho: float | Tensor) -> State:
        z = problem.prior.prox(state.v, (lam / rho) ** 0.5)
        x = state.v - (problem.slope(state.v) + rho * (state.v - z)) / (problem.norm + rho)
        ahead = 0.5 * (1 + (1 + 4 * state.momentum**2) ** 0.5) if self.accelerate else 1.0
        v = x + (state.momentum - 1) / ahead * (x - state.x)
        return replace(state, x=x, z=z, v=v, momentum=ahead, split_residual=_distance(x, z))


def _consistent(problem: Problem, z: Tensor, rho: float | Tensor, x0: Tensor) -> Tensor:
    """``argmin_x 1/2 ||A x - t||^2 + rho/2 ||K x - z||^2``."""
    rhs = problem.back_projection + rho * _synthesise(problem, z)
    # Inexact data steps (CG) only need to keep ahead of the outer iteration.
    return problem.operator.solve(rhs, rho, problem.prior.analysis, x0=x0, rtol=1e-5, max_iter=50).x


def _distance(k: Tensor, z: Tensor) -> float:
    return number((k - z).norm() / k.norm().clamp(min=1e-30))


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
