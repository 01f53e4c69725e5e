"""Half-quadratic splitting that never raises its objective: momentum where it helps, backtracking where it must."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from invsr.errors import InvsrError
from invsr.numerics.linear import inner
from invsr.priors.base import GRADIENT
from invsr.solvers.state import Problem, State, data_step, extrapolated, split_residual

# Share of the squared step length, times rho, by which the objective has to fall (sufficient decrease).
SUFFICIENT = 0.1
# A step that falls short of it by this share of the objective is as good as float32 can tell.
ROUNDING = 1e-7
# The step is shortened by this factor, at most so many times.
BACKTRACKING, MAX_BACKTRACKING = 0.7, 30


@dataclass(frozen=True)
class _Objective:
    """``F(x) = 1/2 ||A x - t||^2 + lam R(x)`` at one weight and penalty, and its value at the current volume."""

    problem: Problem
    lam: float
    rho: float
    current: float

    def step(self, state: State, base: Tensor, z: Tensor, share: float, rounding: float) -> State | None:
        """From `base`, ``share / rho`` along the prior's gradient, then the data step; None unless F falls enough."""
        x = data_step(self.problem, base + share * (z - base), self.rho / share, base)
        reached = self.problem.objective(x, self.lam, self.rho)
        length = float(inner(x - base, x - base))
        bound = self.current - SUFFICIENT * self.rho / share * length + rounding * abs(self.current)
        if reached is None or reached > bound:
            return None
        # Momentum that points uphill starts anew (O'Donoghue & Candes 2015).
        momentum = state.momentum if float(inner(base - x, x - state.x)) <= 0 else 1.0
        ahead, following = extrapolated(x, state.x, momentum)
        return replace(
            state,
            x=x,
            v=x if momentum == 1.0 else ahead,
            split_residual=split_residual(x, z),
            variance=self.lam / self.rho,
            momentum=following,
            relaxation=share,
            objective=reached,
        )


def descend(state: State, problem: Problem, lam: float, rho: float) -> State:
    """One iteration of `HQS` with descent: see there.

    Raises
    ------
    InvsrError
        When the prior acts on differences, or has no cost.
    """
    prior = problem.prior
    if prior.analysis == GRADIENT:
        raise InvsrError("HQS with descent needs a prior on the volume, not on its differences")
    noise = (lam / rho) ** 0.5
    known = state.objective if state.variance == lam / rho else None
    current = known if known is not None else problem.objective(state.x, lam, rho)
    if current is None:
        raise InvsrError(
            f"HQS with descent needs a prior with a cost, and {prior.describe()} has none: use a gradient-step denoiser"
        )
    objective = _Objective(problem, lam, rho, current)
    if state.v is not state.x:
        if known is not None:
            found = objective.step(state, state.v, prior.prox(state.v, noise), state.relaxation, 0.0)
            if found is not None:
                return found
        # From the last volume itself descent is certain; momentum starts anew.
        state = replace(state, v=state.x, momentum=1.0)
    z, share = prior.prox(state.x, noise), state.relaxation
    for _ in range(MAX_BACKTRACKING):
        found = objective.step(state, state.x, z, share, ROUNDING)
        if found is not None and (found.objective or 0.0) <= current:
            return found
        if found is not None:  # the last step that float32 can tell: the volume stays where it is
            break
        share *= BACKTRACKING
    return replace(state, split_residual=split_residual(state.x, z), variance=lam / rho, objective=current)
