"""The exact data step against deepinv's iterative ones and against one matrix product of the same size.

    python -m benchmarks.speed.exact_step [--case NAME ...] [--runs 5]

Solves ``(A* A + rho I) x = A* y + rho z`` for 4:1 and 6:1 thick slices. deepinv's ``prox_l2`` runs conjugate gradients
from z, without a preconditioner: to a relative tolerance of 1e-6, and with its default settings (1e-4, at most 50
iterations). "error" is the relative residual in float64; the matrix product multiplies the volume by one dense matrix
along the slice axis. Medians of alternating runs.
"""

import statistics
import time

import deepinv
import numpy as np
import torch

from benchmarks.arguments import parser, row, table
from invsr.grid import Grid
from invsr.numerics.axes import multiply
from invsr.operators import acquisition

CASES = {"256x256x64 -> 256^3": ((256, 256, 64), 4.0), "512x512x30 -> 180": ((512, 512, 30), 6.0)}
RHO = 0.05
EXACT, PRODUCT = "exact", "one matrix product"
ITERATIVE = {
    "deepinv, CG to 1e-6": {"tol": 1e-6, "max_iter": 500},
    "deepinv, default (CG to 1e-4)": {},
}


class ThickSlices(deepinv.physics.LinearPhysics):
    """The same operator as a deepinv user would write it, with deepinv's own solver."""

    def __init__(self, operator, **solver):
        super().__init__(**solver)
        self.operator = operator

    def A(self, x, **_):
        return self.operator(x)

    def A_adjoint(self, y, **_):
        return self.operator.adjoint(y)


def data_steps(shape, step, seed):
    """The operator, the right-hand side b, and the ways to solve for x, by name."""
    operator = acquisition(Grid(shape, np.diag([1.0, 1.0, step, 1.0])), 1.0)
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand((1, 1, *shape), generator=generator)
    z = torch.rand((1, 1, *operator.domain.shape), generator=generator)
    b = operator.adjoint(y) + RHO * z
    dense = torch.rand((operator.domain.shape[2],) * 2, generator=generator)
    steps = {EXACT: lambda: operator.solve(b, RHO).x}
    for name, solver in ITERATIVE.items():
        physics = ThickSlices(operator, **solver)
        steps[name] = lambda physics=physics: physics.prox_l2(z, y, gamma=1 / RHO)
    steps[PRODUCT] = lambda: multiply(dense, b, 2)
    return operator, b, steps


def residual(operator, x, b):
    x, b = x.double(), b.double()
    return float((operator.normal(x, RHO) - b).norm() / b.norm())


@torch.no_grad()
def main():
    arguments = parser(__doc__, "--seed")
    arguments.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--runs", type=int, default=5)
    options = arguments.parse_args()
    print(f"{torch.get_num_threads()} threads\n")
    table(["case", "data step", "seconds", "over the exact step's", "error"])
    for case in options.case:
        shape, step = CASES[case]
        operator, b, steps = data_steps(shape, step, options.seed)
        found = {name: solve() for name, solve in steps.items()}  # set-up and first touch
        seconds = {name: [] for name in steps}
        for _ in range(options.runs):
            for name, solve in steps.items():
                begin = time.perf_counter()
                solve()
                seconds[name].append(time.perf_counter() - begin)
        exact = statistics.median(seconds[EXACT])
        for name in steps:
            median = statistics.median(seconds[name])
            error = "" if name == PRODUCT else f"{residual(operator, found[name], b):.1e}"
            row([case, name, f"{median:.3f}", f"{median / exact:.2f}", error])


if __name__ == "__main__":
    main()
