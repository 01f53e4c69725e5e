"""Banding of real scans: power of the result at the frequency of the slices and its harmonics, over the neighbours'.

    python -m benchmarks.quality.banding SCAN.nii.gz ... [--method cubic tv unrolled] [--spacing MM]

Power spectra across the slices, of all columns that lie in the body for the most part, with a Hann window; at each
harmonic below the Nyquist frequency the power over what the trend of its neighbours predicts, up to half the slice
frequency away. Without bands it is about 1; the largest one is shown, and in brackets the harmonic.
"""

import warnings

import numpy as np

import invsr
from benchmarks.arguments import parser, row, table
from invsr.errors import InvsrWarning

# Of the level of the brightest voxels, below it is air; columns with fewer voxels than this share are left out.
AIR, SHARE = 0.1, 0.5


def harmonics(volume, axis, frequency):
    """Power over the neighbours' at the multiples of a frequency, cycles per voxel, across an axis."""
    columns = np.moveaxis(volume, axis, 0).reshape(volume.shape[axis], -1).astype(np.float64)
    bright = columns > AIR * np.percentile(columns[columns > 0], 99)
    columns = columns[:, bright.mean(0) > SHARE]
    n = len(columns)
    window = np.hanning(n + 2)[1:-1, None]
    columns = (columns - (window * columns).sum(0) / window.sum()) * window
    power = (np.abs(np.fft.rfft(columns, axis=0)) ** 2).mean(1)
    at, found = np.arange(len(power)) / n, []
    for k in range(1, int(0.5 / frequency) + 1):
        if k * frequency > 0.5 - 1 / n:
            break
        away = np.abs(at - k * frequency)
        beside = (away > 2.5 / n) & (away < frequency / 2)
        # The spectrum falls steeply: compare with the neighbours' trend.
        slope = np.polyfit(at[beside], np.log(power[beside] + 1e-30), 1)
        peak = away < 1 / n
        found.append(float(np.mean(power[peak] / np.exp(np.polyval(slope, at[peak])))))
    return found


def main():
    arguments = parser(__doc__)
    arguments.add_argument("scans", nargs="+")
    arguments.add_argument("--method", nargs="+", default=["cubic", "tv", "unrolled"])
    arguments.add_argument("--spacing", type=float)
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    table(["scan", "slices apart, voxels", *options.method])
    for path in options.scans:
        scan = invsr.load(path)
        cells = []
        for method in options.method:
            found = invsr.reconstruct(scan, method=method, spacing=options.spacing).volume
            across = scan.grid.directions[:, scan.grid.through_plane]
            axis = int(np.abs(across @ found.grid.directions).argmax())
            apart = scan.grid.spacing[scan.grid.through_plane] / found.grid.spacing[axis]
            ratios = harmonics(found.numpy(), axis, 1 / apart)
            largest = int(np.argmax(ratios))
            cells.append(f"{ratios[largest]:.2f} ({largest + 1})")
        row([scan.name, f"{apart:.2f}", *cells])


if __name__ == "__main__":
    main()
