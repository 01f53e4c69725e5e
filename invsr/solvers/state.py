"""What steps work on: the problem, the state of the iteration, and the contract of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Likelihood
from invsr.numerics.cache import learnable
from invsr.numerics.differences import difference, gradient, gradient_adjoint
from invsr.numerics.iteration import within
from invsr.numerics.linear import inner, largest_eigenvalue, largest_eigenvector, norm, number
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.residuals import as_tuple, back_project, target

# A weight or a penalty; trained drivers differentiate it.
Weight: TypeAlias = float | Tensor
# Most iterations of conjugate gradients in a data step: of total variation, and of denoisers. Three oblique contrasts
# gain 0.003 dB from 50 instead of 5 (64^3), which take the longer the larger the volume.
WARM, COLD = 5, 50


@dataclass(frozen=True)
class Problem:
    """Data term and prior: ``1/2 ||A x - t||^2 + lam R(x)``.

    Attributes
    ----------
    operator : LinearOperator
    prior : Prior
    back_projection : Tensor, shape (batch, channel, *operator.domain.shape)
        ``A* t``.
    target : Tensor (or tuple of them for a stack), optional
        t, shape of the data; only `objective` needs it.
    operator_norm : OperatorNorm, optional
        Shared by all problems that are made of this one.
    """

    operator: LinearOperator
    prior: Prior
    back_projection: Tensor
    target: Data | None = None
    operator_norm: OperatorNorm | None = None

    def __post_init__(self) -> None:
        if self.operator_norm is None:
            object.__setattr__(self, "operator_norm", OperatorNorm(self.operator, self.back_projection))

    @property
    def norm(self) -> Weight:
        """``||A*A||``, the Lipschitz constant of the data term's gradient; computed the first time it is asked for.

        A scalar tensor, with its gradient, where parameters of the operator ask for one; else a number.
        """
        assert self.operator_norm is not None
        return self.operator_norm.value

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of the data term, ``A* (A x - t)``."""
        return self.operator.gram(x) - self.back_projection

    def objective(self, x: Tensor, lam: float, rho: float) -> float | None:
        """``1/2 ||A x - t||^2 + lam R(x)``; None where the prior has no cost or the data are not at hand."""
        cost = self.prior.cost(analyse(self, x), (lam / rho) ** 0.5)
        if cost is None or self.target is None:
            return None
        misfit = sum(
            float(inner(a - b, a - b)) for a, b in zip(as_tuple(self.operator(x)), as_tuple(self.target), strict=True)
        )
        return 0.5 * misfit + lam * float(cost)

    def retargeted(
        self, likelihoods: tuple[Likelihood, ...], y: Data, x: Tensor, prediction: Data | None = None
    ) -> Problem:
        """The least-squares problem that majorises the likelihoods at x (majorise-minimise).

        Gaussian likelihoods leave the problem as it is.

        Parameters
        ----------
        likelihoods : tuple of Likelihood
            One for each scan.
        y : Tensor (or tuple of them for a stack)
            The data as measured.
        x : Tensor
            The volume at which the surrogate touches.
        prediction : Tensor (or tuple of them), optional
            ``A x``, where it is known already.
        """
        if not any(one.retargets for one in likelihoods):
            return self
        aim = target(likelihoods, y, self.operator(x) if prediction is None else prediction)
        return replace(self, back_projection=back_project(self.operator, aim), target=aim)


class OperatorNorm:
    """``||A*A||`` of an operator, computed when it is first asked for.

    Parameters
    ----------
    operator : LinearOperator
    like : Tensor, shape (batch, channel, *operator.domain.shape)
        For the number format and the device.
    """

    def __init__(self, operator: LinearOperator, like: Tensor) -> None:
        self.operator, self.like = operator, like

    @property
    def value(self) -> Weight:
        """The norm, never below the true one, at most 2 % above."""
        if not (torch.is_grad_enabled() and learnable(self.operator)):
            return self._number
        # The eigenvalue changes with the operator as ``v* A* A v`` does, v being its eigenvector (Hellmann 1937).
        square = inner(self._vector, self.operator.gram(self._vector))
        return self._number * (square / square.detach()).to(self.like.real.dtype)

    @cached_property
    def _number(self) -> float:
        return largest_eigenvalue(self.operator.gram, self.like.detach())

    @cached_property
    def _vector(self) -> Tensor:
        return largest_eigenvector(self.operator.gram, self.like.detach())


@dataclass(frozen=True)
class State:
    """Where an iteration stands: the volume, and what the step carries along in one tensor.

    Attributes
    ----------
    x : Tensor
        The volume.
    v : Tensor
        Where the prox acts next, in the prior's analysis domain. ADMM: ``v = K x + u``, which holds the dual u.
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
    v: Tensor
    split_residual: float = 0.0
    variance: float | Tensor | None = None
    momentum: float = 1.0
    relaxation: float = 1.0
    objective: float | None = None


class Step:
    """What the drivers repeat. A step of one's own writes `__call__`, and states what differs from the defaults.

    Attributes
    ----------
    explicit : bool
        The data term enters by its gradient (`Problem.gradient`), not by an exact data step. Drivers then give rho
        the operator's norm; the prior has to act on the volume; and an iteration does not end with a data step whose
        penalty could be chosen by the discrepancy principle.
    rho_is_norm : bool
        rho is one over the step length, so that trained drivers keep it at the operator's norm, too: lam then follows
        the noise level.
    penalty_method : bool
        At the fixed point x still differs from the prior's output z, and rho weighs one against the other (HQS, RED).
        Elsewhere ``x = z`` there.
    descends : bool
        The step decreases one objective: its weight and noise level stay fixed, and it carries more than one volume
        along, so that no `Equilibrium` takes it.
    n_levels : int
        Iterations over which plug-and-play lowers a denoiser's noise level.

    Examples
    --------
    >>> class ISTA(Step):
    ...     explicit = True
    ...
    ...     def __call__(self, state, problem, lam, rho):
    ...         x = problem.prior.prox(state.x - problem.gradient(state.x) / problem.norm, (lam / problem.norm) ** 0.5)
    ...         return State(x=x, v=x)
    """

    explicit: bool = False
    rho_is_norm: bool = False
    penalty_method: bool = False
    n_levels: int = 10

    @property
    def descends(self) -> bool:
        return False

    def start(self, problem: Problem, x: Tensor) -> State:
        """The state before the first iteration, from a first guess of the volume.

        Raises
        ------
        InvsrError
            When the step cannot use the prior.
        """
        if self.explicit and problem.prior.analysis == GRADIENT:
            raise InvsrError(f"{type(self).__name__} needs a prior on the volume, not on its differences: use ADMM")
        v = analyse(problem, x)
        return State(x, v)

    def __call__(self, state: State, problem: Problem, lam: Weight, rho: Weight) -> State:
        """The next state, with the prior's weight `lam` and the penalty `rho`: the prox acts at ``sqrt(lam / rho)``."""
        raise TypeError(f"{type(self).__name__} does not define __call__(state, problem, lam, rho)")


def data_step(problem: Problem, z: Tensor, rho: Weight, x0: Tensor) -> Tensor:
    """``argmin_x 1/2 ||A x - t||^2 + rho/2 ||K x - z||^2``."""
    return data_solve(problem, problem.back_projection + rho * synthesise(problem, z), rho, x0)


def data_solve(problem: Problem, rhs: Tensor, rho: Weight, x0: Tensor) -> Tensor:
    """``(A*A + rho K*K)^-1 rhs``."""
    # Inexact data steps (CG) only need to keep ahead of the outer iteration: those of total variation, of which there
    # are many and each starts where the last one ended, by few iterations.
    most = WARM if problem.prior.analysis == GRADIENT else COLD
    # It is the prior that tells of the step.
    with within(0.0, 0.0):
        return problem.operator.solve(rhs, rho, problem.prior.analysis, x0=x0, rtol=1e-4, max_iter=most).x


def rescaled(problem: Problem, x: Tensor, v: Tensor, factor: Weight) -> Tensor:
    """``K x + factor (v - K x)``: ADMM's v with its dual times a factor; one difference at a time, as in `raised`."""
    if problem.prior.analysis != GRADIENT or torch.is_grad_enabled():
        k = analyse(problem, x)
        return k + (v - k) * factor
    out = v * factor
    spacing, boundary = problem.operator.domain.spacing.tolist(), problem.operator.boundary
    for n in range(3):
        out[n] += difference(x, n, spacing[n], boundary[n]).mul_(1 - factor)
    return out


def raised(problem: Problem, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, float]:
    """ADMM's next v, ``u + K x``, and the `split_residual` of x and ``z = v - u``; it may overwrite u.

    One difference at a time where no gradient is recorded: those of a large volume do not fit into memory twice.
    """
    if problem.prior.analysis != GRADIENT or torch.is_grad_enabled():
        k = analyse(problem, x)
        following = u + k
        return following, number(norm(following - v) / norm(k).clamp(min=1e-30))
    apart = size = 0.0
    spacing, boundary = problem.operator.domain.spacing.tolist(), problem.operator.boundary
    for n in range(3):
        k = difference(x, n, spacing[n], boundary[n])
        u[n] += k
        size += float(norm(k)) ** 2
        apart += float(norm(u[n] - v[n])) ** 2
    return u, (apart / max(size, 1e-60)) ** 0.5


def extrapolated(x: Tensor, before: Tensor, momentum: float) -> tuple[Tensor, float]:
    """Nesterov's extrapolation of x along ``x - before``, and the next number of his sequence.

    References
    ----------
    Nesterov (1983), Soviet Math. Dokl. 27, 372-376. Beck & Teboulle (2009), SIAM J. Imaging Sci. 2, 183-202.
    """
    following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
    return x + (momentum - 1) / following * (x - before), following


def split_residual(k: Tensor, z: Tensor) -> float:
    """``||k - z|| / ||k||``, how far the two copies of the volume are apart."""
    return number(norm(k - z) / norm(k).clamp(min=1e-30))


def analyse(problem: Problem, x: Tensor) -> Tensor:
    """K x: the volume itself or its finite differences, as the prior takes it."""
    if problem.prior.analysis != GRADIENT:
        return x
    operator = problem.operator
    return gradient(x, operator.domain.spacing.tolist(), operator.boundary)


def synthesise(problem: Problem, z: Tensor) -> Tensor:
    """``K* z``."""
    if problem.prior.analysis != GRADIENT:
        return z
    operator = problem.operator
    return gradient_adjoint(z, operator.domain.spacing.tolist(), operator.boundary)
