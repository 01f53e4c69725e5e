"""Solvers: one step, several drivers."""

from invsr.linalg import LinearSolution, Status, conjugate_gradient
from invsr.solvers.cubic import cubic
from invsr.solvers.equilibrium import Equilibrium
from invsr.solvers.iterate import iterate
from invsr.solvers.likelihood import L1, Gaussian, Huber, Likelihood, Rician, likelihood
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, HQS, PGD, RED
from invsr.solvers.tikhonov import solve_quadratic
from invsr.solvers.unrolled import Unrolled
from invsr.solvers.weight import Schedule

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
    "Rician",
    "Schedule",
    "Solution",
    "Status",
    "Unrolled",
    "conjugate_gradient",
    "cubic",
    "iterate",
    "likelihood",
    "solve_quadratic",
]
