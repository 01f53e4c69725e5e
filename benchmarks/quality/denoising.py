"""White noise removed from whole volumes: the denoisers that come with invsr beside classical ones.

    python -m benchmarks.quality.denoising [HIGH.nii.gz ...] [--sigma 2 5 10 20] [--denoiser NAME ...] [--draws 1 8]

Noise in percent of the peak (the truth's 99.9th percentile); PSNR inside the head, seconds per volume in brackets.
BM4D is the package of its authors (`pip install "invsr[benchmarks]"`), non-local means and TV are scikit-image's,
TV with the best of three weights for each image. All are told the noise level. A network's "x 8" is its mean
over eight random flips and turns.
"""

import functools
import time

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from benchmarks.arguments import parser, row, stem, table, truths
from invsr.models.registry import models
from invsr.numerics.levels import PERCENTILE
from invsr.priors.loading import pretrained
from invsr.testing.metrics import head_mask


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed")
    arguments.add_argument("--sigma", nargs="+", type=float, default=[2, 5, 10, 20])
    arguments.add_argument("--denoiser", nargs="+", default=list(models("denoiser")))
    arguments.add_argument("--draws", nargs="+", type=int, default=[1, 8])
    options = arguments.parse_args()
    from bm4d import bm4d

    columns = ["volume", "sigma", "noisy", "TV", "non-local means", "BM4D"]
    networks = []
    for name in options.denoiser:
        for draws in options.draws:
            columns.append(name if draws == 1 else f"{name} x {draws}")
            networks.append(functools.partial(network, pretrained(name, symmetries=draws if draws > 1 else False)))
    table(columns)
    for volume in truths(options.volumes):
        truth = volume.numpy()
        mask = head_mask(truth)
        truth = (truth / np.percentile(truth, PERCENTILE)).astype(np.float32)
        if options.crop:  # peak and head are the whole volume's
            box = tuple(slice((n - min(n, options.crop)) // 2, (n + min(n, options.crop)) // 2) for n in truth.shape)
            truth, mask = truth[box], mask[box]
        for percent in options.sigma:
            sigma = percent / 100
            noisy = truth + np.random.default_rng(options.seed).normal(0, sigma, truth.shape).astype(np.float32)
            cells = [f"{psnr(noisy, truth, mask):.2f}"]
            for way in (tv, non_local_means, bm4d, *networks):
                begun = time.perf_counter()
                found = [way(noisy, sigma)] if way is not tv else [tv(noisy, w * sigma) for w in (0.5, 0.8, 1.2)]
                seconds = time.perf_counter() - begun
                cells.append(f"{max(psnr(one, truth, mask) for one in found):.2f} ({seconds:.0f} s)")
            row([stem(volume), f"{percent:g} %", *cells])


def tv(noisy, weight):
    return denoise_tv_chambolle(noisy, weight=weight, max_num_iter=100)


def non_local_means(noisy, sigma):
    return denoise_nl_means(noisy, patch_size=3, patch_distance=4, h=0.7 * sigma, sigma=sigma, fast_mode=True)


def network(prior, noisy, sigma):
    with torch.no_grad():
        return prior.prox(torch.from_numpy(noisy)[None, None], sigma)[0, 0].numpy()


def psnr(estimate, truth, mask):
    return -10 * np.log10(np.mean((estimate[mask] - truth[mask]) ** 2))


if __name__ == "__main__":
    main()
