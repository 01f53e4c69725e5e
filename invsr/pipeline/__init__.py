"""From scans to one isotropic volume: choose the grid, estimate motion, build the problem, solve it."""

from invsr.pipeline import methods
from invsr.pipeline.choice import choose_method
from invsr.pipeline.contrasts import reconstruct_contrasts
from invsr.pipeline.grids import choose_grid
from invsr.pipeline.joint import JointTV, JointUnrolled
from invsr.pipeline.moved import estimate_motion
from invsr.pipeline.problem import InverseProblem, build_problem
from invsr.pipeline.raw_problem import RawProblem
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.pipeline.reconstruction import Reconstruction
from invsr.pipeline.run import reconstruct, register, solve, solve_problem
from invsr.pipeline.scan import Scan

__all__ = [
    "InverseProblem",
    "JointTV",
    "JointUnrolled",
    "RawProblem",
    "Reconstruction",
    "Scan",
    "build_problem",
    "choose_grid",
    "choose_method",
    "estimate_motion",
    "methods",
    "reconstruct",
    "reconstruct_contrasts",
    "reconstruct_raw",
    "register",
    "solve",
    "solve_problem",
]
