"""The standard deviation of a trained solver's error, predicted for a result."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invsr.operators.base import Data
from invsr.pipeline.problem import InverseProblem
from invsr.solvers.plug_and_play import smooth_guess
from invsr.uncertainty.predicted import PredictedDeviation

# Side of the cube of a result on which predicted deviations are set right, voxels.
CUBE = 64


def deviation_by(known: PredictedDeviation, solver: Any, problem: InverseProblem, x: Tensor) -> Tensor:
    """What a network predicts of a solver's error in a result, with the scan's own factor, found on a cube of it."""
    operator, cube = problem.cube(x, CUBE)
    solver = solver.to(problem.device)

    def run(y: Data) -> Tensor:
        found: Tensor = solver(operator, y, problem.sigma, smooth_guess(operator, y))
        return found

    return known.factor(run, operator, cube, problem.sigma) * known(problem.operator, x, problem.sigma)
