"""Each stack predicted from the others: error of its slices, with and without motion.

    python -m benchmarks.quality.leave_one_out SCAN.nii.gz SCAN.nii.gz SCAN.nii.gz
        --mask MASK.nii.gz MASK.nii.gz MASK.nii.gz [--thickness 3] [--spacing 1.1] [--method tv]

Volumes of all stacks but one: the mean of their cubic interpolations where their headers put them, and reconstructions
with no motion, motion of stacks and motion of slices. The slices of the stack that was left out are then predicted
where its header puts them, where the stack as a whole fits the volume best, and where each of its slices does.
Normalised root mean square error inside its mask, of pixels that all volumes show, after one gain for the stack.
"""

import time
import warnings

import numpy as np
import torch

import invsr
from benchmarks.arguments import parser, row, table
from invsr.errors import InvsrError, InvsrWarning
from invsr.motion.align import RegisteredScan, align
from invsr.numerics.levels import peak
from invsr.operators import Resample, acquisition
from invsr.operators.scan_model import slice_profile_of

# Voxels for alignment, mm.
COARSE = 2.0
# Share of a pixel that a volume shows.
WHOLLY = 0.98
WHERE = ("as the header says", "aligned as a whole", "aligned slice by slice")


def placed(volume, grid, scan, mask, thickness):
    """Motion of the slices that were left out, for each of `WHERE`."""
    n = scan.grid.shape[scan.grid.through_plane]
    top = peak(volume)
    one = RegisteredScan(
        data=scan.data / top,
        grid=scan.grid,
        profile=slice_profile_of("gaussian", thickness),
        axis=scan.grid.through_plane,
        mask=mask,
        motion=torch.zeros(n, 6, dtype=torch.float64),
        centre=torch.from_numpy(grid.centre),
        weights=torch.ones(n, dtype=torch.float64),
        order=torch.arange(n),
        bias=torch.zeros(9, dtype=torch.float64),
    )
    coarse = grid.refine(COARSE)
    low = Resample(grid, coarse)(volume) / top
    whole = align(low, coarse, one.coarser(COARSE), each_slice=False, n_iter=30)
    each = align(low, coarse, whole, each_slice=True, stiffness=0.1, n_iter=20)
    return one.motion, whole.motion, each.motion


def main():
    arguments = parser(__doc__, "--thickness", thickness=3.0)
    arguments.add_argument("scans", nargs="+")
    arguments.add_argument("--mask", nargs="+", required=True)
    arguments.add_argument("--spacing", type=float, default=1.1)
    arguments.add_argument("--method", default="tv")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    scans, masks = [invsr.load(path) for path in options.scans], [invsr.load(path) for path in options.mask]
    rows = [("cubic", "none"), *((options.method, motion) for motion in ("none", "stack", "slice"))]
    table(["left out", "volume", "motion", *WHERE, "seconds"])
    totals = {one: [] for one in rows}
    for n, (scan, mask) in enumerate(zip(scans, masks, strict=True)):
        others, their = scans[:n] + scans[n + 1 :], masks[:n] + masks[n + 1 :]
        inside = mask.data != 0
        predictions, shown, seconds, refused = [], inside, [], set()
        for method, motion in rows:
            start = time.perf_counter()
            how = {"masks": their, "spacing": options.spacing, "slice_thickness": options.thickness}
            try:
                solution = invsr.reconstruct(others, method=method, motion=motion, **how)
            except InvsrError:  # no volume explains scans between which the head moved
                refused.add((method, motion))
                continue
            seconds.append(time.perf_counter() - start)
            with torch.no_grad():
                for where in placed(solution.x, solution.grid, scan, inside, options.thickness):
                    how = {"motion": where, "centre": solution.grid.centre}
                    A = acquisition(scan.grid, reference=solution.grid, slice_thickness=options.thickness, **how)
                    predictions.append(A(solution.x))
                    # A volume is 0 outside of its masks.
                    shown = shown & (A((solution.x != 0).to(solution.x)) > WHOLLY)
        y = scan.data[shown]
        errors = []
        for one in predictions:
            p = one[shown]
            errors.append(float((y - (p @ y) / (p @ p) * p).norm() / y.norm()))
        each = zip(np.reshape(errors, (-1, len(WHERE))), seconds, strict=True)
        for method, motion in rows:
            if (method, motion) in refused:
                row([scan.name, method, motion, *["refused"] * len(WHERE), ""])
                continue
            some, took = next(each)
            row([scan.name, method, motion, *(f"{value:.3f}" for value in some), f"{took:.0f}"])
            totals[method, motion].append(some)
    for (method, motion), some in totals.items():
        if len(some) == len(scans):
            row(["mean", method, motion, *(f"{value:.3f}" for value in np.mean(some, 0)), ""])


if __name__ == "__main__":
    main()
