"""One set of weights over acquisitions: gain over cubic interpolation by slice thickness, gap and profile.

    python -m benchmarks.quality.acquisitions [HIGH.nii.gz ...] [--method unrolled] [--noise 0.01] [--crop 96]

Second table: what a wrong slice profile costs, against the right one: a Gaussian profile taken for a boxcar, and
widths taken for 20 % more and less than they are. PSNR inside the head, dB, the mean over the volumes.
"""

import itertools
import warnings

import numpy as np

import invsr
from benchmarks.arguments import normalised, parser, row, table, truths
from invsr.errors import InvsrWarning
from invsr.testing.metrics import evaluate, head_mask

THICKNESSES = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
GAPS = (0.0, 0.2)
PROFILES = ("boxcar", "gaussian", "slr")
# What the method is told of Gaussian slices: profile, width over the true one, words.
WRONG = (("boxcar", 1.0, "boxcar"), ("gaussian", 1.2, "20 % wider"), ("gaussian", 0.8, "20 % narrower"))


def psnr(truth, mask, scan, method, thickness, profile):
    slices = {"slice_thickness": thickness, "slice_profile": profile}
    found = invsr.reconstruct(scan, method=method, reference=truth.grid, **slices)
    return evaluate(found.x[0, 0].numpy(), truth.numpy(), mask, quick=True)["psnr"]


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed", crop=96)
    arguments.add_argument("--method", default="unrolled")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    volumes = [normalised(volume) for volume in truths(options.volumes, options.crop)]
    masks = [head_mask(truth.numpy()) for truth in volumes]

    def gains(thickness, gap, true, told, width=1.0, base="cubic"):
        found = []
        for truth, mask in zip(volumes, masks, strict=True):
            slices = {"slice_thickness": thickness, "gap": gap * thickness, "slice_profile": true}
            scan = invsr.simulate(truth, axis=2, noise=options.noise, seed=options.seed, **slices)
            here = psnr(truth, mask, scan, options.method, width * thickness, told)
            there = psnr(truth, mask, scan, base, thickness, true)
            found.append(here - there)
        return np.mean(found)

    cells = list(itertools.product(GAPS, PROFILES))
    print(f"{options.method}: gain over cubic, dB\n")
    table(["thickness, voxels", *(f"{profile}, gap {gap:.0%}" for gap, profile in cells)])
    for thickness in THICKNESSES:
        row([f"{thickness:g}", *(f"{gains(thickness, gap, profile, profile):+.2f}" for gap, profile in cells)])
    print()
    table(["the slices are", "the method is told", "against the right profile, dB"])
    for told, width, words in WRONG:
        row(["gaussian, 4 voxels", words, f"{gains(4.0, 0.0, 'gaussian', told, width, base=options.method):+.2f}"])


if __name__ == "__main__":
    main()
