"""A result on the grid of its own scans, where their headers put them, instead of the grid that all contrasts share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.motion import Motion
from invsr.motion.align import composed
from invsr.operators.base import Data
from invsr.operators.transforms import Rigid
from invsr.operators.warp import Resample
from invsr.pipeline.grids import choose_grid
from invsr.pipeline.problem import InverseProblem, build_problem
from invsr.pipeline.reconstruction import Reconstruction
from invsr.solvers.residuals import back_project, chi2, gain, target

# Penalties that are tried, in units of the squared operator; how exactly the one is found; logarithms.
LEAST, MOST, TOLERANCE = math.log(1e-4), math.log(1e4), 0.02


def on_own_grid(result: Reconstruction, spacing: float | Sequence[float] | None = None) -> Reconstruction:
    """The result on its first scan's own grid, in the place that the scan's header names.

    The volume is interpolated there, motion undone, and brought back to its data by one data step:

    .. code-block:: text

        argmin_x 1/2 ||A x - y||^2 + rho/2 ||x - z||^2

    with z the interpolated volume, A on the scan's own axes, where the step is exact, and rho such that chi2 is that of
    the result.

    Parameters
    ----------
    result : Reconstruction
        Its scans moved as a whole, or not at all.
    spacing : float or three, mm, optional
        As of `invsr.reconstruct`.

    Raises
    ------
    InvsrError
        When the result has no scans, or slices moved one by one.
    """
    scans = result.problem.scans
    if not scans:
        raise InvsrError("a result without scans has no other grid")
    grid = choose_grid(scans, spacing)
    first, between = _motions(result)
    problem = build_problem(scans, grid, between)
    with torch.no_grad():
        there = Resample(result.grid, grid, first, interpolation="cubic")
        x, misfit = _explaining(problem, there(result.solution.x.contiguous()), result.solution.chi2)
        kept = gain(problem.likelihoods, problem.y, problem.operator(x))
        shown = problem.shown(x)
    solution = replace(result.solution, x=x, grid=grid, chi2=misfit, gain=kept, std=None, samples=None)
    return replace(result, x=shown, problem=problem, solution=solution)


def _motions(result: Reconstruction) -> tuple[Rigid | None, Motion | None]:
    """Where points of the first scan lie in the volume, and the other scans' motion against the first one."""
    motion = result.motion
    if motion is None:
        return None, None
    vectors = [one.of_scan for one in motion.scans]
    if any(one is None for one in vectors):
        raise InvsrError("slices that moved one by one have no grid of their own: use the common one")
    first = torch.from_numpy(np.stack([one for one in vectors if one is not None]))[:1]
    turn = composed(torch.cat([-first[:, :3], torch.zeros(1, 3)], 1), torch.cat([torch.zeros(1, 3), -first[:, 3:]], 1))
    moved = [replace(one, motion=composed(turn, torch.from_numpy(one.motion)).numpy()) for one in motion.scans]
    moved[0] = replace(moved[0], motion=np.zeros_like(moved[0].motion))
    place = Rigid(first[0], motion.centre)
    return place, Motion(motion.centre, tuple(moved)) if len(moved) > 1 else None


def _explaining(problem: InverseProblem, z: Tensor, aim: float | None) -> tuple[Tensor, float]:
    """The volume near z whose chi2 is `aim`, or comes nearest to it, and its chi2."""
    from scipy.optimize import brentq  # takes longer to import than all the rest

    operator, y, kinds = problem.operator, problem.y, problem.likelihoods
    seen: Data = target(kinds, y, operator(z))
    back = back_project(operator, seen)

    def at(logarithm: float) -> Tensor:
        penalty = math.exp(logarithm)
        return operator.solve(back + penalty * z, penalty, x0=z, rtol=1e-5).x

    def misfit(x: Tensor) -> float:
        return chi2(operator, kinds, y, operator(x))

    def excess(logarithm: float) -> float:
        return misfit(at(logarithm)) - (1.0 if aim is None else aim)

    if excess(LEAST) > 0:
        found = LEAST
    elif excess(MOST) < 0:
        found = MOST
    else:
        found = float(brentq(excess, LEAST, MOST, xtol=TOLERANCE))
    x = at(found)
    return x, misfit(x)
