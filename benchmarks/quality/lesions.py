"""Small lesions, erased or kept: the contrast that comes back, and how much is wrong where there is none, per method.

    python -m benchmarks.quality.lesions [HIGH.nii.gz ...] [--method cubic tv pnp unrolled]

Balls of 3 to 8 mm, 10 to 50 % brighter or darker than where they lie, are put at random into the head, far apart;
the volume with them and the volume without are measured in slices with the same noise and reconstructed.
Recovered: the two results' difference over a ball, as a share of the truths'. Off: voxels where the result without
lesions, smoothed over 4 mm, is off the smoothed truth by more than a tenth of the peak, per litre of head.
"""

import numpy as np
import torch
from scipy import ndimage

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.numerics.levels import PERCENTILE
from invsr.testing.metrics import head_mask

DIAMETERS = (3.0, 5.0, 8.0)
CONTRASTS = (-0.5, -0.2, 0.1, 0.2, 0.5)
COPIES = 4


def with_lesions(truth, mask, seed=0):
    """The volume with lesions, and a list of (ball, diameter, contrast)."""
    rng = np.random.default_rng(seed)
    data = truth.numpy().copy()
    grid = np.indices(data.shape)
    deep = np.argwhere(ndimage.binary_erosion(mask, iterations=8))
    taken = np.zeros(data.shape, bool)
    lesions = []
    wanted = [(d, c) for _ in range(COPIES) for d in DIAMETERS for c in CONTRASTS]
    for diameter, contrast in wanted:
        for _ in range(200):
            centre = deep[rng.integers(len(deep))]
            distance = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0))
            if not taken[distance < diameter / 2 + 8].any():
                break
        else:
            continue
        # Edges as sharp as the voxels allow: the share of a voxel inside the ball.
        ball = np.clip(diameter / 2 + 0.5 - distance, 0, 1)
        data += contrast * ball * data
        taken |= distance < diameter / 2
        lesions.append((ball > 0.5, diameter, contrast))
    return invsr.Volume(torch.from_numpy(data)[None, None], truth.grid), lesions


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed")
    arguments.add_argument("--method", nargs="+", default=["cubic", "tikhonov", "tv", "pnp", "unrolled", "deq"])
    options = arguments.parse_args()
    recovered = {method: {d: [] for d in DIAMETERS} for method in options.method}
    by_sign = {method: {-1: [], 1: []} for method in options.method}
    off = {method: [] for method in options.method}
    for truth in truths(options.volumes, options.crop):
        mask = head_mask(truth.numpy())
        spoilt, lesions = with_lesions(truth, mask, options.seed)
        peak = np.percentile(truth.numpy()[truth.numpy() > 0], PERCENTILE)
        difference = spoilt.numpy() - truth.numpy()
        slices = {"slice_thickness": options.thickness, "axis": 2, "noise": options.noise, "seed": options.seed}
        for method in options.method:
            without, found = (
                invsr.reconstruct(invsr.simulate(one, **slices), method=method, reference=truth.grid).x[0, 0].numpy()
                for one in (truth, spoilt)
            )
            for ball, diameter, contrast in lesions:
                share = float((found - without)[ball].mean() / difference[ball].mean())
                recovered[method][diameter].append(share)
                by_sign[method][int(np.sign(contrast))].append(share)
            error = np.abs(ndimage.uniform_filter(without - truth.numpy(), 4))
            litres = mask.sum() * float(np.prod(truth.grid.spacing)) * 1e-6
            off[method].append(float((error[mask] > 0.1 * peak).sum()) / litres)
    table(["method", *(f"{d:g} mm" for d in DIAMETERS), "dark", "bright", "off, voxels per litre"])
    for method in options.method:
        by_size = [f"{np.mean(recovered[method][d]):.0%}" for d in DIAMETERS]
        signs = [f"{np.mean(by_sign[method][sign]):.0%}" for sign in (-1, 1)]
        row([method, *by_size, *signs, f"{np.mean(off[method]):.0f}"])


if __name__ == "__main__":
    main()
