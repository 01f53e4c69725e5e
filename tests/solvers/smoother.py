"""A linear denoiser and small problems, for steps and their driver."""

import numpy as np
import torch

from invsr.grid import Grid
from invsr.priors import Prior
from invsr.solvers import ADMM, HQS, PGD, RED
from invsr.solvers.steps import Problem

GRID = Grid((4, 5, 2), np.diag([1.0, 1.2, 3.0, 1.0]))
F64 = torch.float64
STEPS = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}


class Smoother(Prior):
    """A symmetric linear denoiser, ``(I + (strength sigma)^2 L)^-1`` with the periodic Laplacian L."""

    def __init__(self, strength=10.0):
        super().__init__()
        self.strength = strength

    def prox(self, v, sigma):
        a, b, c = (4 * torch.sin(torch.pi * torch.fft.fftfreq(n, dtype=v.real.dtype)) ** 2 for n in v.shape[-3:])
        laplacian = a[:, None, None] + b[:, None] + c
        axes = (-3, -2, -1)
        out = torch.fft.ifftn(torch.fft.fftn(v, dim=axes) / (1 + (self.strength * sigma) ** 2 * laplacian), dim=axes)
        return out if v.is_complex() else out.real


def problem(operator, y, prior):
    back = operator.adjoint(y)
    return Problem(operator, prior, back, y)


def repeat(step, task, lam, rho, n, state=None):
    state = step.start(task, torch.zeros_like(task.back_projection)) if state is None else state
    for _ in range(n):
        state = step(state, task, lam, rho)
    return state
