"""By how much the deviations that a network predicts must be widened, per acquisition: on volumes whose truth is known.

    python -m benchmarks.tuning.deviation_factors HIGH.nii.gz ... [--solver mri-unrolled] [--weights W.safetensors]
        [--out CALIBRATED.safetensors] [--crop 64] [--slices 2 3 4 6 8 12] [--levels 0.005 0.01 0.03]

On top of the factor that each scan shows of itself. A factor is the geometric mean of two: with one, 68 % of the true
voxels inside the head lie within one deviation, with the other 95 % within 1.96; then of those of all volumes. The
table shows for each volume what the factors make of it that the *other* volumes have set. --out writes the weights with
the factors of all volumes.
"""

import itertools
from pathlib import Path

import numpy as np
import torch

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.models.weights import save_weights
from invsr.pipeline.deviation import deviation_by
from invsr.solvers.trained import load_solver
from invsr.testing.metrics import head_mask
from invsr.uncertainty.predicted import (
    INTERVALS,
    PredictedDeviation,
    interval_factor,
    load_deviation,
    read_deviation,
    unknowns_per_value,
)


def measured(volumes, options, predicted):
    """For each volume, thickness and noise: the errors and the raw deviations inside the head; unknowns per value."""
    found, unknowns, solver = {}, {}, load_solver(options.solver)[0]
    for truth in volumes:
        mask = head_mask(truth.numpy())
        for thickness, noise in itertools.product(options.slices, options.levels):
            scan = invsr.simulate(truth, slice_thickness=thickness, axis=2, noise=noise, seed=options.seed)
            result = invsr.reconstruct(scan, method="unrolled", model=options.solver, reference=truth.grid)
            problem = result.problem
            with torch.no_grad():
                std = deviation_by(predicted, solver, problem, result.solution.x) * problem.scale
            error = np.abs(result.x[0, 0].numpy() - truth.numpy())[mask]
            found[stem(truth), thickness, noise] = error, std[0, 0].numpy()[mask]
            unknowns[thickness] = unknowns_per_value(problem.operator)
    return found, unknowns


def common(factors):
    """Their geometric mean."""
    return round(float(np.exp(np.mean(np.log(factors)))), 4)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", "--out", crop=64)
    arguments.add_argument("--solver", default="mri-unrolled")
    arguments.add_argument("--weights", type=Path, help="of the network [that of the solver]")
    arguments.add_argument("--slices", type=float, nargs="+", default=[2, 3, 4, 6, 8, 12], help="their thickness, mm")
    arguments.add_argument("--levels", type=float, nargs="+", default=[0.005, 0.01, 0.03], help="of the noise")
    options = arguments.parse_args()
    known = read_deviation(options.weights) if options.weights else load_deviation(options.solver)
    about = {name: value for name, value in known.about.items() if name != "calibration"}
    volumes = [normalised(one) for one in truths(options.volumes, options.crop)]
    found, unknowns = measured(volumes, options, PredictedDeviation(known.network, about))
    names = [stem(one) for one in volumes]
    factors = {cell: interval_factor(*map(torch.from_numpy, values)) for cell, values in found.items()}
    table(["volume", "mm", "noise", "factor", "others' factor", "in 68 %", "in 95 %", "std / error", "correlation"])
    for (name, thickness, noise), (error, std) in found.items():
        wide = common([factors[other, thickness, noise] for other in names if other != name] or [1.0])
        within = [f"{np.mean(error < width * wide * std):.0%}" for width in INTERVALS.values()]
        size = f"{wide * np.sqrt(np.mean(std**2)) / np.sqrt(np.mean(error**2)):.2f}"
        own = f"{factors[name, thickness, noise]:.2f}"
        like = f"{np.corrcoef(error, std)[0, 1]:.2f}"
        row([name, f"{thickness:g}", f"{noise:g}", own, f"{wide:.2f}", *within, size, like])
    if options.out:
        grid = [
            [common([factors[name, mm, noise] for name in names]) for noise in options.levels] for mm in options.slices
        ]
        calibration = {"unknowns": [unknowns[mm] for mm in options.slices], "noise": options.levels, "factors": grid}
        save_weights(known.network, options.out, about | {"calibration": calibration})
        print(f"\nwrote {options.out}")


if __name__ == "__main__":
    main()
