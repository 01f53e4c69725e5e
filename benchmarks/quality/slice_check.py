"""How often the check of the slice thickness fails: false alarms where it is right, hits where it is wrong.

    python -m benchmarks.quality.slice_check [HIGH.nii.gz ...] [--crop 96]

Every volume along three axes; noise is a share of the peak, the method is told a Gaussian profile.
"""

import itertools

import numpy as np

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.pipeline.scan import Scan
from invsr.pipeline.slice_check import EXPECTED, slice_correlation

# Thickness and gap, voxels; noise; true profile.
ACQUISITIONS = (
    (4.0, 0.0, 0.01, "gaussian"),
    (4.0, 0.0, 0.03, "gaussian"),
    (2.0, 0.0, 0.005, "gaussian"),
    (2.5, 0.0, 0.02, "gaussian"),
    (5.0, 0.0, 0.005, "gaussian"),
    (6.0, 0.0, 0.01, "gaussian"),
    (8.0, 0.0, 0.02, "gaussian"),
    (3.3, 0.7, 0.01, "gaussian"),
    (5.0, 1.0, 0.02, "gaussian"),
    (3.0, 3.0, 0.01, "gaussian"),
    (4.0, 0.0, 0.01, "boxcar"),
    (4.0, 0.0, 0.01, "slr"),
)
# Width that is told over the true one.
TOLD = (0.6, 0.8, 1.0, 1.2, 1.5)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed")
    options = arguments.parse_args()
    volumes = truths(options.volumes, options.crop)
    print(f"usual: {EXPECTED[0]:g} to {EXPECTED[1]:g}; median correlation of residuals (alarms) by width told\n")
    table(["slices, gap, voxels", "noise", "profile", *(f"{width:g} times" for width in TOLD)])
    alarms, cases = np.zeros(len(TOLD), int), 0
    for thickness, gap, noise, profile in ACQUISITIONS:
        found = []
        for volume, axis in itertools.product(volumes, range(3)):
            voxel = float(volume.grid.spacing[axis])
            slices = {"slice_thickness": thickness * voxel, "gap": gap * voxel, "slice_profile": profile}
            scan = invsr.simulate(volume, axis=axis, noise=noise, seed=options.seed, **slices)
            told = [slice_correlation(Scan(scan, slice_thickness=thickness * voxel * width)) for width in TOLD]
            if None not in told:
                found.append(told)
        values = np.array(found)
        outside = ((values < EXPECTED[0]) | (values > EXPECTED[1])).sum(0)
        alarms, cases = alarms + outside, cases + len(values)
        cells = [f"{middle:+.2f} ({count})" for middle, count in zip(np.median(values, 0), outside, strict=True)]
        row([f"{thickness:g}, {gap:g}", f"{noise:.1%}", profile, *cells])
    row([f"alarms of {cases}", "", "", *alarms])


if __name__ == "__main__":
    main()
