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

Where D is the prox of a convex cost R, those of ADMM and PGD minimise ``f + lam R``. Those of HQS and RED minimise it
with R replaced by its Moreau envelope, which is less: of ``1/2 ||x||^2`` it is ``rho / (lam + rho)`` times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from invsr.solvers.descent import descend
from invsr.solvers.state import (
    Problem,
    State,
    Step,
    Weight,
    analyse,
    data_solve,
    data_step,
    extrapolated,
    raised,
    rescaled,
    split_residual,
    synthesise,
)

__all__ = ["ADMM", "HQS", "PGD", "RED", "Problem", "State", "Step"]


@dataclass(frozen=True)
class HQS(Step):
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

    penalty_method = True
    descend: bool = False

    @property
    def descends(self) -> bool:
        return self.descend

    def __call__(self, state: State, problem: Problem, lam: Weight, rho: Weight) -> State:
        if self.descend:
            return descend(state, problem, float(lam), float(rho))
        z = problem.prior.prox(state.v, (lam / rho) ** 0.5)
        x = data_step(problem, z, rho, state.x)
        k = analyse(problem, x)
        return replace(state, x=x, v=k, split_residual=split_residual(k, z))


@dataclass(frozen=True)
class ADMM(Step):
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

    def __call__(self, state: State, problem: Problem, lam: Weight, rho: Weight) -> State:
        """The next state.

        The dual ``u`` is a subgradient of ``sigma^2 R`` and is rescaled with it when lam or rho change.
        """
        variance, v = lam / rho, state.v
        if state.variance is not None and state.variance is not variance and state.variance != variance:
            v = rescaled(problem, state.x, v, variance / state.variance)
        u = problem.prior.residual(v, variance**0.5)
        # K*(z - u), with z = v - u.
        rhs = torch.sub(synthesise(problem, v), synthesise(problem, u), alpha=2)
        rhs = problem.back_projection + rho * rhs
        x = data_solve(problem, rhs, rho, state.x)
        del rhs  # the most memory is needed below
        v, apart = raised(problem, x, u, v)
        return replace(state, x=x, v=v, split_residual=apart, variance=variance)


@dataclass(frozen=True)
class PGD(Step):
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

    explicit = True
    rho_is_norm = True
    accelerate: bool = False

    def __call__(self, state: State, problem: Problem, lam: Weight, rho: Weight) -> State:
        x = problem.prior.prox(state.v - problem.gradient(state.v) / rho, (lam / rho) ** 0.5)
        v, ahead = extrapolated(x, state.x, state.momentum) if self.accelerate else (x, 1.0)
        return replace(state, x=x, v=v, momentum=ahead)


@dataclass(frozen=True)
class RED(Step):
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

    explicit = True
    penalty_method = True
    n_levels = 16  # half a step towards the prior, half a step towards the data at a time takes more of them
    accelerate: bool = False

    def __call__(self, state: State, problem: Problem, lam: Weight, rho: Weight) -> State:
        z = problem.prior.prox(state.v, (lam / rho) ** 0.5)
        x = state.v - (problem.gradient(state.v) + rho * (state.v - z)) / (problem.norm + rho)
        v, ahead = extrapolated(x, state.x, state.momentum) if self.accelerate else (x, 1.0)
        return replace(state, x=x, v=v, momentum=ahead, split_residual=split_residual(x, z))
