"""How well the matrix that was measured is found, in slices whose k-space was filled with zeros and in others.

    python -m benchmarks.quality.zero_filling [HIGH.nii.gz ...] [--plain SCAN.nii.gz ...]

Magnitude images of slices four voxels thick, noise as a share of the peak; errors of the share found, both axes of all
volumes. `--plain`: files that were not zero-filled, each axis within their slices.
"""

from pathlib import Path

import numpy as np
import torch

import invsr
from benchmarks.arguments import normalised, parser, row, table, truths
from invsr.inspection import measured_matrix, measured_share

THICKNESS = 4
# A peak of 1 in the whole numbers that files hold.
WHOLE = 1000
NOISE = (0.002, 0.01, 0.03)
SHARES = ((1.0, 1.0), (0.5, 0.6), (0.55, 0.65), (0.7, 0.8), (0.75, 0.85), (0.8, 0.9), (0.9, 0.5))


def filled(slices, share, noise, ellipse, generator):
    """Slices (i, j, slices) from the central share of their k-space, with noise."""
    image = slices + noise * (generator.normal(size=slices.shape) + 1j * generator.normal(size=slices.shape))
    k = np.fft.fftshift(np.fft.fft2(image, axes=(0, 1)), axes=(0, 1))
    i, j = (np.abs(np.arange(n) - n // 2) / (n / 2) / part for n, part in zip(slices.shape, share, strict=False))
    inside = i[:, None] ** 2 + j**2 <= 1 if ellipse else np.maximum(i[:, None], j) <= 1
    found = np.abs(np.fft.ifft2(np.fft.ifftshift(k * inside[..., None], axes=(0, 1)), axes=(0, 1)))
    return torch.from_numpy(np.round(WHOLE * found)).float()


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed")
    arguments.add_argument("--plain", nargs="*", type=Path, default=[])
    options = arguments.parse_args()
    generator, images = np.random.default_rng(options.seed), []
    for volume in truths(options.volumes, options.crop):
        data = normalised(volume).numpy()
        data = data[..., : data.shape[2] // THICKNESS * THICKNESS]
        images.append(data.reshape(*data.shape[:2], -1, THICKNESS).mean(3))
    table(["share of i and j", "k-space", "axes", "found", "largest error"])
    for ellipse in (False, True):
        for share in SHARES:
            errors = []
            for noise in NOISE:
                for image in images:
                    slices = filled(image, share, noise, ellipse, generator)
                    errors += [measured_share(slices, axis) / share[axis] - 1 for axis in (0, 1)]
            truly = share != (1.0, 1.0)
            missed = sum(abs(one) > 0.1 for one in errors) if truly else sum(one == 0 for one in errors)
            there = len(errors) - missed
            kind = "ellipse" if ellipse else "rectangle"
            row([f"{share[0]:g}, {share[1]:g}", kind, len(errors), there, f"{max(map(abs, errors)):.1%}"])
    plain = [invsr.load(path) for path in options.plain]
    alarms = [one.name for one in plain if measured_matrix(one.data, one.grid.fine_axes[:3]) != one.grid.shape]
    print(f"\nfindings in {len(alarms)} of {len(plain)} files that were not zero-filled: {', '.join(alarms) or 'none'}")


if __name__ == "__main__":
    main()
