"""The exact data step against deepinv's iterative one and against one matrix product of the same size.

    python benchmarks/exact_step.py

Solves ``(A* A + rho I) x = b`` for 4:1 and 6:1 thick slices. "error" is the relative residual in float64;
"product" multiplies the volume by one dense matrix along the slice axis. Medians of alternating runs.
"""

import statistics
import time

import deepinv
import numpy as np
import torch

from invsr.grid import Grid
from invsr.numerics.axes import multiply
from invsr.operators import acquisition

CASES = {"256x256x64 -> 256^3": ((256, 256, 64), 4.0), "512x512x30 -> 180": ((512, 512, 30), 6.0)}
RHO = 0.05
RUNS = 5


class ThickSlices(deepinv.physics.LinearPhysics):
    """The same operator as a deepinv user would write it, with deepinv's own conjugate gradients."""

    def __init__(self, operator):
        super().__init__(max_iter=500, tol=1e-6, solver="CG")
        self.operator = operator

    def A(self, x, **_):
        return self.operator(x)

    def A_adjoint(self, y, **_):
        return self.operator.adjoint(y)


def residual(operator, x, b):
    x, b = x.double(), b.double()
    return float((operator.normal(x, RHO) - b).norm() / b.norm())


def timed(function):
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


@torch.no_grad()
def main():
    print("case | exact s | deepinv CG s | ratio | product s | exact / product | exact error | CG error")
    for name, (shape, step) in CASES.items():
        operator = acquisition(Grid(shape, np.diag([1.0, 1.0, step, 1.0])), 1.0)
        physics = ThickSlices(operator)
        generator = torch.Generator().manual_seed(0)
        y = torch.rand((1, 1, *shape), generator=generator)
        z = torch.rand((1, 1, *operator.domain.shape), generator=generator)
        b = operator.adjoint(y) + RHO * z
        dense = torch.rand((operator.domain.shape[2],) * 2, generator=generator)
        steps = {
            "exact": lambda a=operator, b=b: a.solve(b, RHO).x,
            "cg": lambda p=physics, y=y, z=z: p.prox_l2(z, y, gamma=1 / RHO),
            "product": lambda m=dense, b=b: multiply(m, b, 2),
        }
        for step_of in steps.values():
            step_of()  # set-up and first touch
        seconds = {key: [] for key in steps}
        for _ in range(RUNS):
            for key, step_of in steps.items():
                elapsed, result = timed(step_of)
                seconds[key].append(elapsed)
                if key == "exact":
                    exact = result
                elif key == "cg":
                    iterative = result
        exact_s, cg_s, product_s = (statistics.median(seconds[key]) for key in steps)
        print(
            f"{name} | {exact_s:.3f} | {cg_s:.2f} | {cg_s / exact_s:.0f}x | {product_s:.3f} | "
            f"{exact_s / product_s:.2f} | {residual(operator, exact, b):.1e} | {residual(operator, iterative, b):.1e}"
        )


if __name__ == "__main__":
    main()
