"""Radial and spiral k-space of known slices: gridding, sigpy's TV app and our methods; scores and seconds.

    python -m benchmarks.kspace.noncartesian HIGH.nii.gz ... [--crop 96] [--slices 4] [--noise 0.01] [--methods ...]

Slices in the middle of a volume; eight coils, smooth random phase, noise as a share of the peak in each part of a
sample. "spokes N": golden angle, readouts oversampled twice; "spiral N": that many interleaves. All methods get the
true coil maps and the noise. Gridding is the adjoint with density compensation. The weight of sigpy's app is swept
(`benchmarks.kspace.peers`); ours choose theirs. PSNR and NRMSE of the magnitude inside the head, gridding scaled.
"""

import time

import numpy as np
import torch

from benchmarks.arguments import normalised, parser, row, stem, table, truths
from benchmarks.kspace.peers import ITERATIONS, best_of_sweep
from invsr.grid import Grid
from invsr.operators import NonUniformKSpace, density_weights, radial, spiral
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.testing.kspace import simulate_noncartesian
from invsr.testing.metrics import evaluate, head_mask, peak
from invsr.volume import Volume

OURS = ("tikhonov", "tv", "pnp", "unrolled")
METHODS = ("gridding", "sigpy tv", *OURS)


def scenes(size):
    """For each scene the trajectory, cycles per field of view."""
    return {
        "spokes 24": radial(24, 2 * size, size),
        "spokes 48": radial(48, 2 * size, size),
        "spiral 4": spiral(4, 12 * size, size),
    }


def middle(volume, count):
    """That many slices in the middle of a volume."""
    first = volume.grid.shape[2] // 2 - count // 2
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world([0, 0, first])
    part = volume.data[..., first : first + count]
    return Volume(part, Grid(part.shape[2:], affine), volume.name)


def gridded(raw, maps):
    weights = density_weights(raw.trajectory, raw.grid.shape[:2]).sqrt()
    operator = NonUniformKSpace(raw.grid, raw.trajectory, maps, weights, axes=(0, 1))
    return operator.adjoint(raw.samples * weights[..., None])[0, 0].abs().numpy()


def sigpy_tv(samples, trajectory, maps, weight):
    """Slices one by one."""
    from sigpy.mri.app import TotalVariationRecon

    found = []
    for k in range(maps.shape[-1]):
        y, s = samples[..., k].numpy(), maps[..., k].numpy()
        app = TotalVariationRecon(y, s, weight, coord=trajectory.numpy(), max_iter=ITERATIONS, show_pbar=False)
        found.append(np.abs(app.run()))
    return np.stack(found, -1)


def main():
    options = parser(__doc__, "volumes", "--crop", "--noise", "--seed", crop=96)
    options.add_argument("--slices", type=int, default=4, help="[%(default)s]")
    options.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD", help="[all]")
    args = options.parse_args()
    table(["volume", "scene", "method", "PSNR", "NRMSE", "chi2", "s"])
    for volume in map(normalised, truths(args.volumes, args.crop)):
        mask, sigma = head_mask(volume.numpy()), args.noise * peak(volume.numpy())
        cut = middle(volume, args.slices)
        truth, inside = cut.numpy(), middle(volume.with_data(torch.from_numpy(mask)[None, None] * 1.0), args.slices)
        within = inside.numpy() > 0
        for scene, trajectory in scenes(args.crop).items():
            raw, maps, _ = simulate_noncartesian(cut, trajectory, noise=args.noise, seed=args.seed)
            for method in args.methods:
                begun, misfit, name = time.perf_counter(), "", method
                if method == "gridding":
                    image = gridded(raw, maps)
                    image = image * float((image * truth).sum() / (image**2).sum())
                elif method == "sigpy tv":
                    data = (raw.samples[0], trajectory.float(), maps)
                    image, name, _, seconds = best_of_sweep(sigpy_tv, data, sigma, truth, within, method)
                else:
                    result = reconstruct_raw(raw, method=method, maps=maps, noise=sigma)
                    image, misfit = result.volume.numpy(), f"{result.chi2:.2f}"
                if method != "sigpy tv":
                    seconds = time.perf_counter() - begun
                scores = evaluate(image, truth, within, quick=True)
                cells = [f"{scores['psnr']:.2f}", f"{scores['nrmse']:.4f}", misfit, f"{seconds:.1f}"]
                row([stem(volume), scene, name, *cells])


if __name__ == "__main__":
    main()
