"""What the automatic choice of a method gives where networks were not trained: gaps, thick slices, coarse targets.

    python -m benchmarks.quality.choice [HIGH.nii.gz ...] [--crop 80] [--noise 0.01] [--axes k] [--method NAME ...]

PSNR in dB, means over volumes and axes; the worst of automatic minus cubic stands last.
"""

import warnings

import numpy as np

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.errors import InvsrWarning
from invsr.operators.sampling import Sampling
from invsr.pipeline.choice import choose_method
from invsr.pipeline.preparation import scans_of
from invsr.pipeline.problem import build_problem
from invsr.testing.metrics import evaluate

# Thickness and gap in voxels, the target's spacing in voxels.
ACQUISITIONS = (
    (1.0, 3.0, 1.0),
    (2.0, 2.0, 1.0),
    (2.0, 4.0, 1.0),
    (3.0, 3.0, 1.0),
    (3.0, 6.0, 1.0),
    (5.0, 5.0, 1.0),
    (9.0, 0.0, 1.0),
    (12.0, 0.0, 1.0),
    (1.5, 0.0, 1.0),
    (4.0, 0.0, 2.0),
    (5.0, 1.0, 2.0),
    (8.0, 0.0, 2.0),
)
METHODS = ("cubic", "tikhonov", "tv", "pnp", "unrolled")


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed")
    arguments.add_argument("--axes", default="ijk", help="slice axes")
    arguments.add_argument("--method", nargs="*", default=METHODS, help="methods beside the choice")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    volumes = truths(options.volumes, options.crop)
    table(["thickness, gap", "target", *options.method, "chosen", "worst"])
    for thickness, gap, target in ACQUISITIONS:
        scores, chosen = [], set()
        for volume in volumes:
            voxel = float(volume.grid.spacing.min())
            truth = volume
            if target > 1:
                coarse = volume.grid.coarsen((target * voxel,) * 3)
                truth = invsr.Volume(Sampling(volume.grid, coarse, ["kspace"] * 3)(volume.data), coarse)
            for axis in ("ijk".index(one) for one in options.axes):
                slices = {"slice_thickness": thickness * voxel, "gap": gap * voxel}
                scan = invsr.simulate(volume, axis=axis, noise=options.noise, seed=options.seed, **slices)
                (only,) = scans_of(scan)
                method = choose_method(build_problem([only], truth.grid, None))
                chosen.add(method.name)
                found = {
                    name: evaluate(
                        invsr.reconstruct(scan, method=name, reference=truth.grid).volume.numpy(), truth.numpy()
                    )["psnr"]
                    for name in {*options.method, method.name}
                }
                scores.append([*(found[name] for name in options.method), found[method.name] - found["cubic"]])
        means = np.mean(scores, 0)
        worst = np.min(scores, 0)[-1]
        row(
            [
                f"{thickness:g}, {gap:g}",
                f"{target:g}",
                *(f"{one:.2f}" for one in means[:-1]),
                "/".join(sorted(chosen)),
                f"{worst:+.2f}",
            ]
        )


if __name__ == "__main__":
    main()
