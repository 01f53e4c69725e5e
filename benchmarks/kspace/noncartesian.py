"""Radial and spiral k-space: gridding, sigpy's TV app and our methods; scores and seconds.

    python -m benchmarks.kspace.noncartesian HIGH.nii.gz ... [--crop 64] [--slices 16] [--noise 0.01] [--scenes ...]
        [--methods ...]

Eight coils, smooth random phase, noise as a share of the peak in each part of a sample. Of slices in the middle of a
volume: "spokes N", golden angle, readouts oversampled twice; "spiral N", that many interleaves. Of the whole volume:
"ball N", that many spokes in all directions. All methods get the true coil maps and the noise. Gridding is the adjoint
with density compensation. The weight of sigpy's app is swept (`benchmarks.kspace.peers`), for slices alone, as a ball
takes it hours; ours choose theirs. PSNR and NRMSE of the magnitude inside the head, gridding scaled.
"""

import time

import numpy as np
import torch

from benchmarks.arguments import normalised, parser, row, stem, table, truths
from benchmarks.kspace.peers import ITERATIONS, best_of_sweep
from invsr.grid import Grid
from invsr.operators import NonUniformKSpace, density_weights, kooshball, radial, spiral
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.testing.kspace import simulate_noncartesian
from invsr.testing.metrics import evaluate, head_mask, peak
from invsr.volume import Volume

OURS = ("tikhonov", "tv", "pnp", "unrolled")
METHODS = ("gridding", "sigpy tv", *OURS)
SCENES = ("spokes 16", "spokes 32", "spiral 3")


def trajectory_of(scene, size):
    """Cycles per field of view."""
    kind, count = scene.split()
    if kind == "ball":
        return kooshball(int(count), size, size)
    return radial(int(count), 2 * size, size) if kind == "spokes" else spiral(int(count), 12 * size, size)


def middle(volume, count):
    """That many slices in the middle of a volume."""
    first = volume.grid.shape[2] // 2 - count // 2
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.to_world([0, 0, first])
    part = volume.data[..., first : first + count]
    return Volume(part, Grid(part.shape[2:], affine), volume.name)


def gridded(raw, maps):
    weights = density_weights(raw.trajectory, raw.grid.shape[: len(raw.axes)]).sqrt()
    operator = NonUniformKSpace(raw.grid, raw.trajectory, maps, weights, axes=raw.axes)
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
    options = parser(__doc__, "volumes", "--crop", "--noise", "--seed", crop=64)
    options.add_argument("--slices", type=int, default=16, help="[%(default)s]")
    options.add_argument("--scenes", nargs="+", default=SCENES, help="[all but balls]")
    options.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD", help="[all]")
    args = options.parse_args()
    table(["volume", "scene", "method", "PSNR", "NRMSE", "chi2", "s"])
    for volume in map(normalised, truths(args.volumes, args.crop)):
        sigma = args.noise * peak(volume.numpy())
        head = volume.with_data(torch.from_numpy(head_mask(volume.numpy()))[None, None] * 1.0)
        for scene in args.scenes:
            trajectory, ball = trajectory_of(scene, args.crop), scene.startswith("ball")
            axes = (0, 1, 2) if ball else (0, 1)
            cut, inside = (one if ball else middle(one, args.slices) for one in (volume, head))
            truth, within = cut.numpy(), inside.numpy() > 0
            raw, maps, _ = simulate_noncartesian(cut, trajectory, noise=args.noise, seed=args.seed, axes=axes)
            for method in args.methods:
                if ball and method == "sigpy tv":
                    continue
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
