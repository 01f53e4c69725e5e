"""What faults of slices cost, with the data kept as they are and with the faults corrected.

    python -m benchmarks.quality.fault_cost [HIGH.nii.gz] [--crop 80] [--noise 0.01]

PSNR in dB inside the volume, of scans with boxcar slices of 4 mm.
"""

import torch

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.examples import example
from invsr.inspection.slices import shifted
from invsr.testing.metrics import evaluate


def faulty(slices):
    """The same slices, shape (i, j, slices), with one fault each."""
    odd = torch.arange(slices.shape[2]) % 2 == 1
    middle, top = slices.shape[2] // 2, float(slices.max())
    yield "none", slices
    yield "every other slice moved by 1.8 mm", shifted(slices, torch.tensor([1.8, 0.0])[:, None] * odd)
    yield "every other slice 15 % darker", torch.where(odd, 0.85 * slices, slices)
    empty, spiked = slices.clone(), slices.clone()
    empty[..., middle] = 0
    yield "one empty slice", empty
    spiked[30, 40, middle - 1], spiked[50, 20, middle + 2] = 1000 * top, 1000 * top
    yield "two spiked voxels, a thousand times the rest", spiked


def main():
    options = parser(__doc__, "volumes", "--crop", "--noise", "--seed").parse_args()
    volume = truths(options.volumes, options.crop)[0] if options.volumes else example(options.crop or 80)
    profile = {"slice_profile": "boxcar"}
    scan = invsr.simulate(volume, slice_thickness=4, noise=options.noise, seed=options.seed, **profile)
    table(["what the scan has", "tv, kept", "tv, corrected", "unrolled, kept", "unrolled, corrected"])
    for name, slices in faulty(scan.data[0, 0]):
        cells = []
        for method in ("tv", "unrolled"):
            for faults in ("keep", "auto"):
                given = scan.with_data(slices[None, None])
                found = invsr.reconstruct(given, method=method, faults=faults, reference=volume.grid, **profile)
                cells.append(f"{evaluate(found.volume.numpy(), volume.numpy())['psnr']:.2f}")
        row([name, *cells])


if __name__ == "__main__":
    main()
