"""White noise removed from whole volumes: the denoisers that come with invsr beside classical ones.

    python benchmarks/denoising.py VOLUME.nii.gz ... [--sigma 2 5 10 20] [--denoiser NAME ...] [--crop 96] [--draws 1 8]

Noise in percent of the peak (the truth's 99.9th percentile); PSNR inside the head, seconds per volume in brackets.
BM4D is the package of its authors (`pip install "invsr[benchmarks]"`), non-local means and TV are scikit-image's,
TV with the best of three weights for each image. All are told the noise level. A network's "x 8" is its mean
over eight random flips and turns.
"""

import argparse
import functools
import time

import bm4d
import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

import invsr
from invsr.models.registry import models
from invsr.priors.loading import pretrained
from invsr.solvers.residuals import PEAK_PERCENTILE
from invsr.testing.metrics import head_mask


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2, 5, 10, 20])
    parser.add_argument("--denoiser", nargs="+", default=list(models("denoiser")))
    parser.add_argument("--draws", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--crop", type=int, help="central cube of this side only")
    options = parser.parse_args()
    columns = ["volume", "sigma", "noisy", "TV", "non-local means", "BM4D"]
    networks = []
    for name in options.denoiser:
        for draws in options.draws:
            columns.append(name if draws == 1 else f"{name} x {draws}")
            networks.append(functools.partial(network, pretrained(name, symmetries=draws if draws > 1 else False)))
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for path in options.volumes:
        volume = invsr.load(path)
        truth = volume.numpy()
        mask = head_mask(truth)
        truth = (truth / np.percentile(truth, PEAK_PERCENTILE)).astype(np.float32)
        if options.crop:
            box = tuple(slice((n - min(n, options.crop)) // 2, (n + min(n, options.crop)) // 2) for n in truth.shape)
            truth, mask = truth[box], mask[box]
        for percent in options.sigma:
            sigma = percent / 100
            noisy = truth + np.random.default_rng(0).normal(0, sigma, truth.shape).astype(np.float32)
            row = [f"{psnr(noisy, truth, mask):.2f}"]
            for way in (tv, non_local_means, bm4d.bm4d, *networks):
                begun = time.perf_counter()
                found = [way(noisy, sigma)] if way is not tv else [tv(noisy, w * sigma) for w in (0.5, 0.8, 1.2)]
                seconds = time.perf_counter() - begun
                row.append(f"{max(psnr(one, truth, mask) for one in found):.2f} ({seconds:.0f} s)")
            print(f"| {volume.name.split('.')[0]} | {percent:g} % | " + " | ".join(row) + " |", flush=True)


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
