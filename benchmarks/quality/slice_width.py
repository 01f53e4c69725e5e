"""How well the width of slices is found from the data, and what reconstructing with it costs.

    python -m benchmarks.quality.slice_width [HIGH.nii.gz ...] [--crop SIDE] [--loss tv unrolled]

Every volume along three axes. Error: estimate over truth, less 1. "samples": every n-th slice of the volume, which
counts as found where the default takes it for samples. With `--loss`, PSNR with the estimate less that with the truth,
dB, beside what a Gaussian as wide as the spacing costs.
"""

import itertools
import warnings

import numpy as np
import torch

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.errors import InvsrWarning
from invsr.noise import add_noise
from invsr.pipeline.scan import Scan
from invsr.pipeline.thickness import SAMPLES, width_seen
from invsr.testing.metrics import evaluate

# Thickness in voxels, gap as a share of it, noise as a share of the peak, profile.
ACQUISITIONS = (
    (2.0, 0.0, 0.01, "gaussian"),
    (2.0, 0.6, 0.02, "slr"),
    (3.0, 0.0, 0.03, "boxcar"),
    (3.0, 0.3, 0.005, "sinc"),
    (4.0, 0.0, 0.01, "gaussian"),
    (4.0, 0.0, 0.01, "slr"),
    (4.0, 0.6, 0.01, "boxcar"),
    (5.0, 0.2, 0.03, "gaussian"),
    (6.0, 0.0, 0.01, "slr"),
    (6.0, 0.3, 0.02, "sinc"),
    (8.0, 0.0, 0.005, "boxcar"),
    (8.0, 0.6, 0.01, "gaussian"),
)
SPACINGS = (3, 4, 6)
LOSS = ((4.0, 0.0, 0.01, "gaussian"), (6.0, 0.0, 0.01, "slr"), (3.0, 0.3, 0.02, "boxcar"))


def scans(volumes, thickness, gap, noise, profile, seed):
    """Each volume along each axis: truth, what is known of the slices, their thickness in mm, the simulated scan."""
    for volume, axis in itertools.product(volumes, range(3)):
        width = thickness * float(volume.grid.spacing[axis])
        slices = {"slice_thickness": width, "gap": gap * width, "slice_profile": profile, "axis": axis}
        yield volume, width, invsr.simulate(volume, noise=noise, seed=seed, **slices)


def samples(volume, axis, every, noise, seed):
    """Every n-th slice."""
    affine = volume.grid.affine.copy()
    affine[:, axis] *= every
    chosen = volume.data.index_select(2 + axis, torch.arange(0, volume.grid.shape[axis], every))
    peak = float(np.percentile(chosen[chosen > 0].numpy(), 99.9))
    data = add_noise(chosen, noise * peak, generator=torch.Generator().manual_seed(seed))
    return invsr.Volume(data, invsr.Grid(data.shape[2:], affine), volume.name, slice_axis=axis)


def estimates(volumes, seed):
    table(["thickness", "gap", "noise", "profile", "median", "5 to 95 %", "error", "in range", "none"])
    errors, inside = [], []
    for thickness, gap, noise, profile in ACQUISITIONS:
        found, held, none = [], [], 0
        for _, width, scan in scans(volumes, thickness, gap, noise, profile, seed):
            seen = width_seen(Scan(scan, slice_profile=profile))
            if seen is None:
                none += 1
                continue
            found.append(seen.width / width)
            held.append(seen.low <= width <= seen.high)
        values = np.array(found)
        errors, inside = [*errors, *np.abs(values - 1)], [*inside, *held]
        low, high = np.percentile(values, [5, 95])
        cells = [f"{np.median(values):.2f}", f"{low:.2f} to {high:.2f}", f"{np.median(np.abs(values - 1)):.0%}"]
        row([f"{thickness:g}", f"{gap:.0%}", f"{noise:.1%}", profile, *cells, f"{np.mean(held):.0%}", none])
    row(["all", "", "", "", "", "", f"{np.median(errors):.1%}", f"{np.mean(inside):.0%}", ""])
    print()
    table(["samples", "found", "of", "width over spacing"])
    for every in SPACINGS:
        seen = [
            (width_seen(Scan(scan)), scan.grid.spacing[axis])
            for volume, axis in itertools.product(volumes, range(3))
            for scan in [samples(volume, axis, every, 0.01, seed)]
        ]
        known = [(one, spacing) for one, spacing in seen if one is not None]
        right = sum(one.high < SAMPLES * spacing for one, spacing in known)
        middle = np.median([one.width / spacing for one, spacing in known])
        row([f"every {every}", right, len(seen), f"{middle:.2f}"])


def loss(volumes, methods, seed):
    print()
    table(["thickness, gap", "profile", "method", "true", "auto", "auto, told Gaussian", "spacing, told Gaussian"])
    for (thickness, gap, noise, profile), method in itertools.product(LOSS, methods):
        costs = []
        for volume, width, scan in scans(volumes, thickness, gap, noise, profile, seed):
            told = (
                {"slice_thickness": width, "slice_profile": profile},
                {"slice_thickness": "auto", "slice_profile": profile},
                {"slice_thickness": "auto"},
                {"slice_thickness": width * (1 + gap)},
            )
            found = [invsr.reconstruct(scan, method=method, reference=volume.grid, **one) for one in told]
            costs.append([evaluate(one.volume.numpy(), volume.numpy(), quick=True)["psnr"] for one in found])
        first, *others = np.transpose(costs)
        cells = [f"{np.median(one - first):+.2f} ({np.min(one - first):+.2f})" for one in others]
        row([f"{thickness:g}, {gap:.0%}", profile, method, f"{np.mean(first):.2f}", *cells])


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed")
    arguments.add_argument("--loss", nargs="*", default=(), metavar="METHOD", help="reconstruct by these methods")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    volumes = truths(options.volumes, options.crop)
    if options.loss:
        loss(volumes, options.loss, options.seed)
    else:
        estimates(volumes, options.seed)


if __name__ == "__main__":
    main()
