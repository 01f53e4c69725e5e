"""What odd scans cost, with the data taken as they are and with what is found in them corrected.

    python -m benchmarks.quality.fault_cost [HIGH.nii.gz ...] [--crop 80] [--noise 0.01] [--everywhere]

PSNR in dB inside the volume, of scans with boxcar slices of 4 mm. Then of every fourth slice; of slices whose pixels
were interpolated by zero-filling from half as many along each axis; and of slices that were standardised (mean 0,
deviation 1): with chi2, and the noise that is estimated over the true one. With --everywhere, what is lost against the
scan without fault by the default method, over all volumes, three axes, and slices of 4 and 6 voxels.
"""

import numpy as np
import torch

import invsr
from benchmarks.arguments import parser, row, stem, table, truths
from invsr.examples import example
from invsr.inspection.slices import shifted
from invsr.noise import add_noise
from invsr.numerics.levels import peak
from invsr.operators.sampling import Sampling
from invsr.testing.metrics import evaluate

PROFILE = {"slice_profile": "boxcar"}


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
    dark, swapped = slices.clone(), slices.clone()
    dark[..., middle] *= 0.65
    yield "one slice 35 % darker", dark
    swapped[..., middle] = slices[..., middle // 2]
    yield "one slice in another's place", swapped


def samples(volume, options):
    """Every fourth slice of the volume, of unknown thickness."""
    affine = volume.grid.affine.copy()
    affine[:, 2] *= 4
    sigma = options.noise * peak(volume.data)
    data = add_noise(volume.data[..., ::4], sigma, generator=torch.Generator().manual_seed(options.seed))
    scan = invsr.Volume(data, invsr.Grid(data.shape[2:], affine), "samples", slice_axis=2)
    return "every fourth slice", scan, sigma, {"slice_thickness": 4.0}, {}, (0.0, 1.0)


def zero_filled(scan, options):
    """The same slices from half of the k-space matrix, filled with zeros to the whole."""
    half = Sampling(scan.grid, scan.grid.coarsen([2, 2, 1] * scan.grid.spacing), ["kspace", "kspace", "none"])
    sigma = options.noise * peak(scan.data)
    data = add_noise(half(scan.data), sigma, generator=torch.Generator().manual_seed(options.seed))
    return "zero-filled", scan.with_data(4 * half.adjoint(data)), sigma, {"zero_filling": "keep"}, PROFILE, (0.0, 1.0)


def standardised(scan, options):
    """The same slices less their mean, over their standard deviation."""
    mean, deviation = float(scan.data.mean()), float(scan.data.std())
    sigma = options.noise * peak(scan.data) / deviation
    given = scan.with_data((scan.data - mean) / deviation)
    return "standardised", given, sigma, {"faults": "keep"}, PROFILE, (mean, deviation)


def everywhere(volumes, options):
    """Median and largest loss by the default method, over volumes, axes and thicknesses."""
    losses = {}
    for volume in volumes:
        for axis in (0, 1, 2):
            for voxels in (4, 6):
                thickness = voxels * float(volume.grid.spacing[axis])
                told = {"slice_thickness": thickness, "slice_profile": "boxcar"}
                scan = invsr.simulate(volume, axis=axis, noise=options.noise, seed=options.seed, **told)
                clean = None
                for name, slices in faulty(scan.data[0, 0].movedim(axis, -1)):
                    given = scan.with_data(slices.movedim(-1, axis)[None, None].contiguous())
                    found = invsr.reconstruct(given, slice_axis=axis, reference=volume.grid, **told)
                    psnr = evaluate(found.volume.numpy(), volume.numpy(), quick=True)["psnr"]
                    clean = psnr if clean is None else clean
                    losses.setdefault(name, []).append(
                        (clean - psnr, f"{stem(volume)}, {'ijk'[axis]}, {voxels} voxels")
                    )
    table(["what the scan has", "scans", "loss, median", "largest", "where"])
    for name, each in list(losses.items())[1:]:
        largest, where = max(each)
        row([name, len(each), f"{np.median([loss for loss, _ in each]):.2f}", f"{largest:.2f}", where])


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed")
    arguments.add_argument("--everywhere", action="store_true")
    options = arguments.parse_args()
    if options.everywhere:
        everywhere(truths(options.volumes, options.crop), options)
        return
    volume = truths(options.volumes, options.crop)[0] if options.volumes else example(options.crop or 80)
    scan = invsr.simulate(volume, slice_thickness=4, noise=options.noise, seed=options.seed, **PROFILE)
    table(["what the scan has", "tv, kept", "tv, corrected", "unrolled, kept", "unrolled, corrected"])
    for name, slices in faulty(scan.data[0, 0]):
        cells = []
        for method in ("tv", "unrolled"):
            for faults in ("keep", "auto"):
                given = scan.with_data(slices[None, None])
                found = invsr.reconstruct(given, method=method, faults=faults, reference=volume.grid, **PROFILE)
                cells.append(f"{evaluate(found.volume.numpy(), volume.numpy(), quick=True)['psnr']:.2f}")
        row([name, *cells])
    print()
    table(["what the scan has", "method", "kept", "default", "chi2", "noise over the true"])
    odd = samples(volume, options), zero_filled(scan, options), standardised(scan, options)
    for name, given, sigma, kept, told, (offset, factor) in odd:
        for method in ("tv", "unrolled"):
            before, after = (
                invsr.reconstruct(given, method=method, reference=volume.grid, **told, **how) for how in (kept, {})
            )
            found = (one.volume.numpy() * factor + offset for one in (before, after))
            scores = [f"{evaluate(one, volume.numpy(), quick=True)['psnr']:.2f}" for one in found]
            row([name, method, *scores, f"{after.chi2:.2f}", f"{after.sigma / sigma:.2f}"])


if __name__ == "__main__":
    main()
