"""Voxels larger than those of the networks' training: what the methods gain there.

    python -m benchmarks.quality.voxel_size [HIGH.nii.gz ...] [--crop 64] [--factors 1 2 3] [--method cubic tv unrolled]

Each volume is averaged over blocks of so many voxels along each axis, which is the truth then; its central part has up
to --crop voxels along each axis. Gaussian slices four voxels thick across the third axis, 1 % noise. PSNR inside the
head, dB; last, the last method less TV.
"""

import warnings

import torch

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.errors import InvsrWarning
from invsr.testing.metrics import evaluate, head_mask

THICKNESS = 4
BASE = "tv"


def averaged(volume, factor):
    """The means of blocks of voxels."""
    sides = [n // factor * factor for n in volume.grid.shape]
    part = volume.grid.part((0, 0, 0), sides)
    i, j, k = sides
    return invsr.Volume(
        torch.nn.functional.avg_pool3d(volume.data[..., :i, :j, :k], factor), part.coarsen((factor,) * 3), volume.name
    )


def middle(volume, side):
    """The central part of up to `side` voxels along each axis, whole slices of them."""
    sides = [min(side, n) // THICKNESS * THICKNESS for n in volume.grid.shape]
    low = [(n - size) // 2 for n, size in zip(volume.grid.shape, sides, strict=True)]
    high = [at + size for at, size in zip(low, sides, strict=True)]
    cut = tuple(map(slice, low, high))
    return invsr.Volume(volume.data[(..., *cut)].contiguous(), volume.grid.part(low, high), volume.name)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed", crop=64)
    arguments.add_argument(
        "--factors", type=int, nargs="+", default=[1, 2, 3], help="voxels along each axis of a block"
    )
    arguments.add_argument("--method", nargs="+", default=["cubic", "tv", "pnp", "unrolled"])
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    last = options.method[-1]
    table(["volume", "voxels, mm", *options.method, f"{last} - {BASE}"])
    for volume in truths(options.volumes):
        for factor in options.factors:
            truth = normalised(middle(averaged(volume, factor), options.crop))
            spacing = float(truth.grid.spacing[2])
            scan = invsr.simulate(
                truth, slice_thickness=THICKNESS * spacing, axis=2, noise=options.noise, seed=options.seed
            )
            mask, scores = head_mask(truth.numpy()), {}
            for method in options.method:
                found = invsr.reconstruct(scan, method=method, reference=truth.grid, seed=options.seed)
                scores[method] = evaluate(found.x[0, 0].numpy(), truth.numpy(), mask, quick=True)["psnr"]
            gain = f"{scores[last] - scores[BASE]:+.2f}" if BASE in scores else "-"
            row([stem(volume), f"{spacing:.3g}", *(f"{one:.2f}" for one in scores.values()), gain])


if __name__ == "__main__":
    main()
