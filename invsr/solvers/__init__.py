"""Solvers: one step, several drivers."""

from invsr.noise.likelihoods import L1, Gaussian, Huber, Likelihood, Rician, likelihood
from invsr.numerics.iteration import Status
from invsr.numerics.linear import LinearSolution, conjugate_gradient
from invsr.solvers.equilibrium import Equilibrium
from invsr.solvers.plug_and_play import iterate
from invsr.solvers.quadratic import solve_quadratic
from invsr.solvers.solution import Solution
from invsr.solvers.spline import cubic
from invsr.solvers.state import Problem, State, Step
from invsr.solvers.steps import ADMM, HQS, PGD, RED
from invsr.solvers.unrolled import Unrolled
from invsr.solvers.weighting import Schedule

__all__ = [
    "ADMM",
    "HQS",
    "L1",
    "PGD",
    "RED",
    "Equilibrium",
    "Gaussian",
    "Huber",
    "Likelihood",
    "LinearSolution",
    "Problem",
    "Rician",
    "Schedule",
    "Solution",
    "State",
    "Status",
    "Step",
    "Unrolled",
    "conjugate_gradient",
    "cubic",
    "iterate",
    "likelihood",
    "solve_quadratic",
]
