"""Conjugate-gradient iterations of a TV reconstruction of several stacks, with and without the preconditioner.

    python benchmarks/preconditioner.py [VOLUME.nii.gz] [--crop 64]

Scenes as in benchmarks/stacks.py; by default the middle of the MNI152 template. All conjugate-gradient iterations of
the whole run, those of its first guess and of the weight's search included.
"""

import argparse

import numpy as np
from stacks import scene

import invsr
from invsr.app.demo import template
from invsr.operators import Stack
from invsr.operators import base as operators


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", nargs="?")
    parser.add_argument("--crop", type=int, default=64)
    options = parser.parse_args()
    volume = template(crop=options.crop) if options.volume is None else invsr.load(options.volume)
    truth, grid = volume.numpy().astype(np.float64), volume.grid
    if options.volume is not None:
        low = [max(0, (n - options.crop) // 2) for n in grid.shape]
        truth = truth[tuple(slice(a, a + options.crop) for a in low)]
        affine = grid.affine.copy()
        affine[:3, 3] = grid.to_world(low)
        grid = invsr.Grid(truth.shape, affine)
    truth = truth / np.percentile(truth[truth > 0], 99.9)
    # Anatomy that ends at the faces of the field of view would be another problem.
    truth = truth * (np.linalg.norm(grid.points() - grid.centre, axis=-1) < options.crop / 2 - 4)
    solve, own, counts = operators.conjugate_gradient, Stack._precondition, []

    def counted(*arguments):
        found = solve(*arguments)
        counts.append(found.n_iter)
        return found

    operators.conjugate_gradient = counted
    print("| scene | solves | iterations | without the preconditioner |\n|---|---|---|---|")
    for name in ("orthogonal", "two", "oblique"):
        scans = scene(name, truth, grid, 4.0, 0.01)[0]
        totals = []
        for step in (own, lambda self, r, rho, regulariser: r):
            Stack._precondition = step
            counts.clear()
            invsr.reconstruct(scans, method="tv", reference=grid)
            totals.append((len(counts), sum(counts)))
        print(f"| {name} | {totals[0][0]} | {totals[0][1]} | {totals[1][1]} |", flush=True)


if __name__ == "__main__":
    main()
