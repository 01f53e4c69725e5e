"""Conjugate-gradient iterations of a TV reconstruction of several stacks, with and without the preconditioner.

    python -m benchmarks.speed.preconditioner [HIGH.nii.gz] [--scenes oblique ...] [--crop 64]

Scenes as in benchmarks/quality/stacks.py. All conjugate-gradient iterations of the whole run, including those of the
initial guess and of the search for the regularisation parameter.
"""

import invsr
from benchmarks.arguments import parser, row, table, truths
from benchmarks.quality.stacks import ball, scene
from invsr.operators import Stack, normal_equations


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=64, seed=1)
    arguments.add_argument("--scenes", nargs="+", default=["orthogonal", "two", "oblique"])
    options = arguments.parse_args()
    truth, grid = ball(truths(options.volumes)[0], options.crop)
    solve, own, counts = normal_equations.conjugate_gradient, Stack._precondition, []

    def counted(*arguments):
        found = solve(*arguments)
        counts.append(found.n_iter)
        return found

    normal_equations.conjugate_gradient = counted
    table(["scene", "solves", "iterations", "without the preconditioner"])
    for name in options.scenes:
        scans = scene(name, truth, grid, 4.0, 0.01, options.seed)[0]
        totals = []
        for step in (own, lambda self, r, rho, regulariser: r):
            Stack._precondition = step
            counts.clear()
            invsr.reconstruct(scans, method="tv", reference=grid)
            totals.append((len(counts), sum(counts)))
        row([name, *totals[0], totals[1][1]])


if __name__ == "__main__":
    main()
