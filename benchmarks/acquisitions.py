"""One set of weights over acquisitions: gain over cubic interpolation by slice thickness, gap and profile.

    python benchmarks/acquisitions.py VOLUME.nii.gz ... [--method unrolled] [--noise 0.01] [--crop 96]

Second table: what a wrong slice profile costs, against the right one: a Gaussian profile taken for a boxcar, and
widths taken for 20 % more and less than they are. PSNR inside the head, dB, the mean over the volumes.
"""

import argparse
import itertools
import warnings

import numpy as np
from convergence import cropped

import invsr
from invsr.errors import InvsrWarning
from invsr.testing.metrics import evaluate, head_mask

THICKNESSES = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
GAPS = (0.0, 0.2)
PROFILES = ("boxcar", "gaussian", "slr")


def psnr(truth, mask, scan, method, thickness, profile):
    found = invsr.reconstruct(
        scan, method=method, reference=truth.grid, slice_thickness=thickness, slice_profile=profile
    )  # fmt: skip
    return evaluate(found.x[0, 0].numpy(), truth.numpy(), mask, quick=True)["psnr"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+")
    parser.add_argument("--method", default="unrolled")
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--crop", type=int, default=96)
    options = parser.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    truths = [cropped(invsr.load(path), options.crop) for path in options.volumes]
    masks = [head_mask(truth.numpy()) for truth in truths]

    def gains(thickness, gap, true, told, width=1.0, base="cubic"):
        found = []
        for truth, mask in zip(truths, masks, strict=True):
            scan = invsr.simulate(
                truth, slice_thickness=thickness, gap=gap * thickness, slice_profile=true, axis=2, noise=options.noise
            )
            here = psnr(truth, mask, scan, options.method, width * thickness, told)
            there = psnr(truth, mask, scan, base, thickness, true)
            found.append(here - there)
        return np.mean(found)

    cells = list(itertools.product(GAPS, PROFILES))
    print(f"{options.method}: gain over cubic, dB\n")
    print("| thickness, voxels | " + " | ".join(f"{profile}, gap {gap:.0%}" for gap, profile in cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    for thickness in THICKNESSES:
        row = [f"{gains(thickness, gap, profile, profile):+.2f}" for gap, profile in cells]
        print(f"| {thickness:g} | " + " | ".join(row) + " |", flush=True)
    print("\n| the slices are | the method is told | against the right profile, dB |\n|---|---|---|")
    for told, width, words in (
        ("boxcar", 1.0, "boxcar"), ("gaussian", 1.2, "20 % wider"), ("gaussian", 0.8, "20 % narrower"),
    ):  # fmt: skip
        lost = gains(4.0, 0.0, "gaussian", told, width, base=options.method)
        print(f"| gaussian, 4 voxels | {words} | {lost:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
