"""Seconds and peak memory of the whole command on three-dimensional k-space of several coils, beside sigpy's TV app.

    python -m benchmarks.kspace.speed HIGH.nii.gz [--shape 256 256 160] [--coils 8] [--acceleration 8]
        [--methods tv pnp] [--memory 6] [--sigpy]

The volume is resampled to the matrix; k-space is a Poisson disc along two axes with 1 % noise, as an array. Reading,
noise, coil maps and the choice of the weight are part of the command. With --sigpy: its total variation from the same
array with known coil maps, known weight and 100 iterations.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmarks.arguments import normalised, parser, row, table, truths
from benchmarks.speed.whole_command import measured
from invsr.grid import Grid
from invsr.operators import poisson_disc
from invsr.testing.kspace import simulate_kspace
from invsr.volume import Volume

CENTRE = 24
SIGPY = """
import sys, numpy as np, sigpy.mri.app as apps
samples, maps = (np.load(name) for name in sys.argv[1:3])
weights = (samples != 0).any(0).astype(np.float32)
app = apps.TotalVariationRecon(samples, maps, float(sys.argv[3]), weights=weights, max_iter=100, show_pbar=False)
found = app.run()
np.save(sys.argv[4], found)
"""


def main():
    options = parser(__doc__, "volumes", "--seed")
    options.add_argument("--shape", nargs=3, type=int, default=(256, 256, 160), help="matrix")
    options.add_argument("--coils", type=int, default=8, help="number of coils")
    options.add_argument("--acceleration", type=float, default=8.0, help="undersampling")
    options.add_argument("--methods", nargs="+", default=("tv",), help="of invsr")
    options.add_argument("--memory", help="GB that invsr may hold")
    options.add_argument("--sigpy", action="store_true", help="beside sigpy's total variation")
    args = options.parse_args()
    truth = normalised(truths(args.volumes)[0])
    fine = interpolate(truth.data, tuple(args.shape), mode="trilinear")
    volume = Volume(fine, Grid.from_spacing(args.shape, truth.grid.extent / np.array(args.shape)))
    mask = poisson_disc((1, *args.shape[1:]), args.acceleration, CENTRE, args.seed)
    raw, maps, _ = simulate_kspace(volume, n_coils=args.coils, mask=mask, noise=0.01, seed=args.seed)
    print(f"{volume.grid}, {args.coils} coils, {args.acceleration:g}-fold, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        samples, coils, out = (Path(folder) / name for name in ("samples.npy", "maps.npy", "out.nii.gz"))
        np.save(samples, raw.samples[0].numpy())
        np.save(coils, maps.numpy())
        del raw, maps
        spacing = "x".join(f"{value:.6g}" for value in volume.grid.spacing)
        given = [str(samples), "-o", str(out), "--raw-spacing", spacing, "--quiet"]
        given += ["--memory", args.memory] if args.memory else []
        rows = {
            f"invsr {method}": [sys.executable, "-m", "invsr", "reconstruct", *given, "--method", method]
            for method in args.methods
        }
        if args.sigpy:
            weight = str(0.025 * 0.01)
            rows["sigpy tv"] = [
                sys.executable,
                "-c",
                SIGPY,
                str(samples),
                str(coils),
                weight,
                str(out.with_suffix(".npy")),
            ]
        table(["method", "seconds", "processor seconds", "MB"])
        for name, command in rows.items():
            seconds, processor, megabytes = measured(command)
            row([name, f"{seconds:.0f}", f"{processor:.0f}", f"{megabytes:.0f}"])


if __name__ == "__main__":
    main()
