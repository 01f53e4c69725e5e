"""Seconds and peak memory of the whole command against the number of voxels; a table and, with --out, a plot.

    python -m benchmarks.speed.scaling [--sides 64 96 128 160] [--method tv unrolled] [--contrasts] [--memory GB]
                                       [--out PLOT.png]

The example head, resampled to cubes of those sides (``512x512x294``: to that many voxels), is scanned with slices four
voxels thick and reconstructed at its own spacing, in a process of its own. With --contrasts it is scanned in three
contrasts (its intensities mapped), in three directions, which are reconstructed together without registration. The
last column is the time per voxel beside that of the cube of 160.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import invsr
from benchmarks.arguments import OPTIONS, parser, row, table
from benchmarks.speed.whole_command import measured
from invsr.examples import example
from invsr.grid import Grid

REFERENCE = "160"


def shape_of(text):
    """``160`` or ``512x512x294``."""
    sides = [int(part) for part in text.split("x")]
    return tuple(sides * 3 if len(sides) == 1 else sides)


def scans_of(shape, contrasts):
    """Scans with thick slices of the example head, which has as many voxels as asked for: of one contrast or three."""
    head = example()
    factors = [n / m for n, m in zip(shape, head.grid.shape, strict=True)]
    data = ndimage.zoom(head.numpy(), factors, order=1, grid_mode=True, mode="nearest")
    grid = Grid.from_spacing(data.shape, 1.0)
    levels = torch.from_numpy(np.float32(data))[None, None] / float(data.max())
    maps = [levels, levels * (1.7 - 1.4 * levels), levels.sqrt() * (1 - 0.7 * levels)][: 3 if contrasts else 1]
    volumes = [invsr.Volume(one, grid) for one in maps]
    return [invsr.simulate(one, slice_thickness=4.0, axis=2 - n, noise=0.01, seed=n) for n, one in enumerate(volumes)]


def plot(rows, path):
    """Seconds and memory against voxels, a line for each method."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method in dict.fromkeys(method for method, *_ in rows):
        own = [(voxels / 1e6, seconds, megabytes / 1e3) for name, voxels, seconds, megabytes in rows if name == method]
        for axis, n in zip(axes, (1, 2), strict=True):
            axis.plot([one[0] for one in own], [one[n] for one in own], "o-", label=method)
    for axis, label in zip(axes, ("seconds", "peak memory, GB"), strict=True):
        axis.set(xlabel="voxels, millions", ylabel=label, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=100)


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--sides", nargs="+", default=["64", "96", "128", REFERENCE], help="of the volumes, voxels")
    arguments.add_argument("--method", nargs="+", default=["tv", "unrolled"])
    arguments.add_argument("--contrasts", action="store_true", help="three contrasts together")
    arguments.add_argument("--memory", help="budget, GB")
    arguments.add_argument("--out", **OPTIONS["--out"])
    options = arguments.parse_args()
    print(f"{torch.get_num_threads()} threads\n")
    table(["method", "size", "seconds", "peak, MB", "microseconds per voxel", f"beside {REFERENCE} cubed"])
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / ("out" if options.contrasts else "out.nii.gz")
        together = ["--contrasts", "--motion", "none"] if options.contrasts else []
        for size in options.sides:
            shape = shape_of(size)
            low = [Path(folder) / f"low{n}.nii.gz" for n in range(3 if options.contrasts else 1)]
            for scan, path in zip(scans_of(shape, options.contrasts), low, strict=True):
                invsr.save(scan, path)
            for method in options.method:
                scans = [str(path) for path in low]
                command = [
                    sys.executable,
                    "-m",
                    "invsr",
                    "reconstruct",
                    *scans,
                    "-o",
                    str(out),
                    "--spacing",
                    "1",
                    *together,
                ]
                budget = ["--memory", options.memory] if options.memory else []
                seconds, _, megabytes = measured([*command, "--method", method, *budget])
                voxels = int(np.prod(shape))
                found[method, size] = seconds / voxels
                rows.append((method, voxels, seconds, megabytes))
                ratio = found[method, size] / found[method, REFERENCE] if (method, REFERENCE) in found else None
                beside = "" if ratio is None else f"{ratio:.2f}"
                row([method, size, f"{seconds:.1f}", f"{megabytes:.0f}", f"{1e6 * seconds / voxels:.2f}", beside])
    if options.out:
        plot(rows, options.out)


if __name__ == "__main__":
    main()
