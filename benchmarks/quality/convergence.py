"""Does plug-and-play converge? Fixed-point residual and objective of HQS with the gradient-step denoiser.

    python -m benchmarks.quality.convergence [HIGH.nii.gz ...] [--crop 96] [--iterations 100] [--out PICTURE]

Slices of 4 mm, 1 % noise, as benchmarks/quality/pnp.py. The noise level of the denoiser is constant, and each step is
shortened until the objective falls (Hurault et al. 2022); beside it, HQS as it is, with the fast denoiser and its
schedule, which no theorem covers.
"""

import matplotlib
import numpy as np
import torch

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.priors import pretrained
from invsr.solvers import HQS, Schedule, iterate
from invsr.solvers.plug_and_play import DESCENT_LAST_LEVEL, DESCENT_WEIGHT

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = (
    "volume",
    "denoiser",
    "iterations",
    "below 1e-4 after",
    "fixed-point residual, last",
    "largest rise of the objective",
    "PSNR",
)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", "--out", crop=96)
    arguments.add_argument("--iterations", type=int, default=100)
    options = arguments.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    table(COLUMNS)
    for truth in map(normalised, truths(options.volumes, options.crop)):
        name = stem(truth)
        scan = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01, seed=options.seed)
        operator = invsr.operators.acquisition(scan.grid, reference=truth.grid, slice_thickness=4.0)
        for model, step in (("mri-denoiser-gs", HQS(descend=True)), ("mri-denoiser-fast", HQS())):
            level = DESCENT_LAST_LEVEL * 0.01
            schedule = Schedule(level, level, 1, DESCENT_WEIGHT * 0.01**2) if step.descend else None
            how = {"sigma": 0.01, "schedule": schedule, "max_iter": options.iterations, "rtol": 0.0}
            found = iterate(step, operator, scan.data, pretrained(model), **how)
            changes = [entry["change"] for entry in found.history]
            line = left.semilogy(changes, "-" if step.descend else ":", label=f"{name}, {model}")[0]
            rise = "has none"
            if step.descend:
                costs = np.array([entry["objective"] for entry in found.history])
                rise = f"{max(0.0, float(np.diff(costs).max())) / costs[0]:.1e} of it"
                right.semilogy(costs - costs.min() * (1 - 1e-4), color=line.get_color(), label=name)
            low = next((f"{n}" for n in range(len(changes)) if max(changes[n:]) < 1e-4), "never")
            score = -10 * float(torch.log10((found.x - truth.data).square().mean()))
            row([name, model, len(changes), low, f"{changes[-1]:.1e}", rise, f"{score:.2f}"])
    left.axhline(1e-4, color="grey", lw=0.8)
    left.set(xlabel="iteration", ylabel="$||x_{k+1} - x_k|| / ||x_k||$", title="Fixed-point residual")
    right.set(xlabel="iteration", ylabel="above its last value", title="Objective, gradient-step denoiser")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    if options.out:
        figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
