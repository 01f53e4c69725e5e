"""Interleaved packages of one scan that moved against each other: what is found, and what is won.

    python -m benchmarks.quality.packages [HIGH.nii.gz ...] [--cases 40] [--solved 4] [--methods tv unrolled]

Each case: a ball in the middle of a volume, an axis, slices of 3 to 7 voxels, 1 or 2 % noise, and slices of odd number
turned by up to 1.5 degrees about and moved by up to 1 mm along each axis; and the same without motion. Slices are read
from a cubic spline of the volume (`benchmarks.quality.stacks`). "left" is the distance, mm, between where points of the
head were and are said to be, RMS. "share found" is the regression of the translation that is found on the true one,
over all cases. The first cases are also reconstructed.
"""

import numpy as np
import torch
from scipy import ndimage

import invsr
from benchmarks.arguments import parser, row, stem, table, truths
from benchmarks.quality.stacks import ball, measure, moved
from invsr.motion.packages import amount
from invsr.pipeline.moved import LEAST_MOTION, packages_moved, with_packages_noted
from invsr.pipeline.preparation import scans_of
from invsr.testing.metrics import evaluate, head_mask


def simulated(truth, grid, axis, thickness, motion, noise, rng):
    """A scan whose slices of odd number moved."""
    spacing = grid.spacing.copy()
    spacing[axis] = thickness
    stack = grid.coarsen(tuple(spacing))
    each = np.zeros((stack.shape[axis], 6))
    each[1::2] = motion
    coefficients = ndimage.spline_filter(truth, order=3, mode="nearest")
    data = measure(coefficients, grid, stack, axis, thickness, each, noise, rng)
    return invsr.Volume(data, stack, "scan", thickness, slice_axis=axis)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=96)
    arguments.add_argument("--cases", type=int, default=40)
    arguments.add_argument("--solved", type=int, default=4)
    arguments.add_argument("--methods", nargs="+", default=["tv", "unrolled"])
    options = arguments.parse_args()
    volumes, rng = truths(options.volumes), np.random.default_rng(options.seed)
    left, found, rows, shifts = {False: [], True: []}, {False: [], True: []}, [], []
    for case in range(options.cases):
        volume = volumes[case % len(volumes)]
        truth, grid = ball(volume, options.crop)
        axis, thickness, noise = int(rng.integers(3)), float(rng.uniform(3, 7)), float(rng.choice([0.01, 0.02]))
        inside = head_mask(truth)
        points = grid.points()[inside][::97]
        scores = []
        for motion in (np.zeros(6), np.concatenate([np.radians(rng.uniform(-1.5, 1.5, 3)), rng.uniform(-1, 1, 3)])):
            scan = simulated(truth, grid, axis, thickness, motion, noise, rng)
            (sound,) = scans_of(scan, faults="keep")
            seen = packages_moved(sound, grid, 0.0)
            size = amount(torch.from_numpy(seen.scans[0].motion))
            away = moved(seen.scans[0].motion[1], points, seen.centre) - moved(motion, points, grid.centre)
            left[bool(motion.any())].append(np.sqrt((away**2).sum(1).mean()))
            if motion.any():
                both = np.array([seen.scans[0].motion[1, 3:], motion[3:]]) @ grid.directions
                shifts.append(np.roll(both, 2 - axis, axis=1))
            noted = with_packages_noted(sound, grid) is not sound
            found[bool(motion.any())].append((size >= LEAST_MOTION * thickness, noted))
            for method in options.methods if case < options.solved else []:
                for how in ("none", "packages") if motion.any() else ("none",):
                    result = invsr.reconstruct(scan, method=method, motion=how, reference=grid)
                    scores.append(f"{evaluate(result.volume.numpy(), truth, inside, quick=True)['psnr']:.2f}")
        if scores:
            n = len(options.methods)
            rows.append([stem(volume), "ijk"[axis], f"{thickness:.1f}", *scores[:n], *scores[n:]])
    table(["scans", "left, median", "left, 95 %", "corrected on request", "noted by default"])
    for is_moved, name in ((False, "still"), (True, "moved")):
        shares = [f"{100 * one:.0f} %" for one in np.mean(found[is_moved], 0)]
        row([name, *(f"{np.percentile(left[is_moved], share):.2f}" for share in (50, 95)), *shares])
    print()
    table(["translation", "share found", "error, mm"])
    for part, name in ((slice(2, 3), "through the slices"), (slice(2), "within them")):
        told, true = np.stack(shifts, 1)[..., part].reshape(2, -1)
        row([name, f"{told @ true / (true @ true):.2f}", f"{np.sqrt(((told - true) ** 2).mean()):.2f}"])
    if not rows:
        return
    print()
    still = [f"{method}, still" for method in options.methods]
    pairs = [f"{method}, {how}" for method in options.methods for how in ("moved", "--motion packages")]
    table(["volume", "axis", "thickness, voxels", *still, *pairs])
    for cells in rows:
        row(cells)


if __name__ == "__main__":
    main()
