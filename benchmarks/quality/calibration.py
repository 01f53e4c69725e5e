"""Do stated uncertainties hold? Share of true voxels inside the stated 68 % and 95 % intervals.

    python -m benchmarks.quality.calibration [HIGH.nii.gz ...] [--crop 64] [--samples 8] [--slices 4]
                                             [--levels 0.01 0.03] [--method posterior "unrolled, predicted" ...]

Posterior samples, the equivariant bootstrap of other methods, and what a network predicts of their errors; inside the
head. The factors of that network were set on volumes of `benchmarks.tuning.deviation_factors`, whose table is of
volumes that set nothing. "std / error": the root mean squares
of the stated deviation and of the true error, 1 if right on the whole; "correlation": of the two voxel by voxel, which
says whether the deviation is large where the error is; "factor": the multiple of the stated deviation within which 68 %
of the true voxels lie.
"""

import itertools
import time

import numpy as np

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.pipeline.repetitions import PREDICTED
from invsr.testing.metrics import head_mask

METHODS = ("posterior", "unrolled, predicted", "unrolled, bootstrap", "pnp, bootstrap", "tv, bootstrap")


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=64)
    arguments.add_argument("--samples", type=int, default=8)
    arguments.add_argument("--slices", type=float, nargs="+", default=[4.0], help="their thickness, mm")
    arguments.add_argument("--levels", type=float, nargs="+", default=[0.01, 0.03], help="of the noise")
    arguments.add_argument("--method", nargs="+", default=METHODS, metavar="METHOD, KIND", help="[all]")
    arguments.add_argument("--denoiser", default="mri-denoiser", help="of posterior and pnp")
    options = arguments.parse_args()
    factors = {}
    table(
        [
            *("volume", "mm", "noise", "method", "in 68 %", "in 95 %"),
            *("std / error", "correlation", "factor", "PSNR", "s"),
        ]
    )
    for truth in map(normalised, truths(options.volumes, options.crop)):
        mask = head_mask(truth.numpy())
        for thickness, noise in itertools.product(options.slices, options.levels):
            scan = invsr.simulate(truth, slice_thickness=thickness, axis=2, noise=noise, seed=options.seed)
            for label in options.method:
                method, _, uncertainty = label.partition(", ")
                how = {} if uncertainty == PREDICTED else {"n_samples": options.samples}
                if method in ("posterior", "pnp"):
                    how["denoiser"] = options.denoiser
                begun = time.perf_counter()
                found = invsr.reconstruct(
                    scan, method=method, reference=truth.grid, uncertainty=uncertainty or None, seed=options.seed, **how
                )
                seconds = f"{time.perf_counter() - begun:.1f}"
                error = np.abs(found.x[0, 0].numpy() - truth.numpy())[mask]
                std = found.std[0, 0].numpy()[mask]
                rms = np.sqrt(np.mean(error**2))
                within = [f"{np.mean(error < width * std):.0%}" for width in (1.0, 1.96)]
                fit = [f"{np.sqrt(np.mean(std**2)) / rms:.2f}", f"{np.corrcoef(error, std)[0, 1]:.2f}"]
                factor = np.quantile(error / np.maximum(std, 1e-9), 0.6827)
                factors.setdefault(label, []).append(np.log(factor))
                psnr = f"{-20 * np.log10(rms):.2f}"
                row([stem(truth), f"{thickness:g}", f"{noise:g}", label, *within, *fit, f"{factor:.2f}", psnr, seconds])
    print()
    table(["method", "factor, geometric mean", "standard deviation of its logarithm"])
    for label, logs in factors.items():
        row([label, f"{np.exp(np.mean(logs)):.2f}", f"{np.std(logs):.2f}"])


if __name__ == "__main__":
    main()
