"""Do stated uncertainties hold? Share of true voxels inside the stated 68 % and 95 % intervals.

    python benchmarks/calibration.py VOLUME.nii.gz ... [--crop 64] [--samples 8] [--noise 0.01 0.03]

Slices of 4 mm. Posterior samples, and the equivariant bootstrap of other methods; inside the head. "std / error":
the root mean squares of the stated deviation and of the true error, 1 if right on the whole; "correlation": of the
two voxel by voxel, which says whether the deviation is large where the error is.
"""

import argparse
import time

import numpy as np
from convergence import cropped

import invsr
from invsr.testing.metrics import head_mask

METHODS = ("posterior", "unrolled", "pnp", "tv")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03])
    parser.add_argument("--method", nargs="+", default=METHODS)
    parser.add_argument("--denoiser", default="mri-denoiser", help="of posterior and pnp")
    options = parser.parse_args()
    columns = ["volume", "noise", "method", "in 68 %", "in 95 %", "std / error", "correlation", "PSNR", "seconds"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for path in options.volumes:
        volume = invsr.load(path)
        truth = cropped(volume, options.crop)
        mask = head_mask(truth.numpy())
        for noise in options.noise:
            scan = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=noise)
            for method in options.method:
                start = time.perf_counter()
                found = invsr.reconstruct(
                    scan, method=method, reference=truth.grid, denoiser=options.denoiser, n_samples=options.samples,
                    uncertainty=None if method == "posterior" else "bootstrap",
                )  # fmt: skip
                error = np.abs(found.x[0, 0].numpy() - truth.numpy())[mask]
                std = found.std[0, 0].numpy()[mask]
                rms = np.sqrt(np.mean(error**2))
                label = method if method == "posterior" else f"{method}, bootstrap"
                row = [
                    volume.name.removesuffix(".nii.gz"), f"{noise:g}", label,
                    f"{np.mean(error < std):.0%}", f"{np.mean(error < 1.96 * std):.0%}",
                    f"{np.sqrt(np.mean(std**2)) / rms:.2f}", f"{np.corrcoef(error, std)[0, 1]:.2f}",
                    f"{-20 * np.log10(rms):.2f}", f"{time.perf_counter() - start:.0f}",
                ]  # fmt: skip
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
