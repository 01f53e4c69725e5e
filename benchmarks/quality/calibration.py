"""Do stated uncertainties hold? Share of true voxels inside the stated 68 % and 95 % intervals.

    python -m benchmarks.quality.calibration [HIGH.nii.gz ...] [--crop 64] [--samples 8] [--levels 0.01 0.03]

Slices of 4 mm. Posterior samples, and the equivariant bootstrap of other methods; inside the head. "std / error":
the root mean squares of the stated deviation and of the true error, 1 if right on the whole; "correlation": of the
two voxel by voxel, which says whether the deviation is large where the error is.
"""

import time

import numpy as np

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.testing.metrics import head_mask

METHODS = ("posterior", "unrolled", "pnp", "tv")


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=64)
    arguments.add_argument("--samples", type=int, default=8)
    arguments.add_argument("--levels", type=float, nargs="+", default=[0.01, 0.03], help="of the noise")
    arguments.add_argument("--method", nargs="+", default=METHODS)
    arguments.add_argument("--denoiser", default="mri-denoiser", help="of posterior and pnp")
    options = arguments.parse_args()
    table(["volume", "noise", "method", "in 68 %", "in 95 %", "std / error", "correlation", "PSNR", "seconds"])
    for truth in map(normalised, truths(options.volumes, options.crop)):
        mask = head_mask(truth.numpy())
        for noise in options.levels:
            scan = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=noise, seed=options.seed)
            for method in options.method:
                start = time.perf_counter()
                how = {"n_samples": options.samples, "seed": options.seed}
                if method in ("posterior", "pnp"):
                    how["denoiser"] = options.denoiser
                if method != "posterior":
                    how["uncertainty"] = "bootstrap"
                found = invsr.reconstruct(scan, method=method, reference=truth.grid, **how)
                error = np.abs(found.x[0, 0].numpy() - truth.numpy())[mask]
                std = found.std[0, 0].numpy()[mask]
                rms = np.sqrt(np.mean(error**2))
                label = method if method == "posterior" else f"{method}, bootstrap"
                within = [f"{np.mean(error < width * std):.0%}" for width in (1.0, 1.96)]
                fit = [f"{np.sqrt(np.mean(std**2)) / rms:.2f}", f"{np.corrcoef(error, std)[0, 1]:.2f}"]
                last = [f"{-20 * np.log10(rms):.2f}", f"{time.perf_counter() - start:.0f}"]
                row([stem(truth), f"{noise:g}", label, *within, *fit, *last])


if __name__ == "__main__":
    main()
