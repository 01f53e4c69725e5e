"""Slices, slabs or volumes; U-Net or DnCNN: denoisers of equal cost and equal training, compared.

    python -m benchmarks.tuning.architectures --train DIR --out DIR            # five runs, minutes each
    python -m benchmarks.tuning.architectures --out DIR [HIGH.nii.gz ...]    # the table

About 115,000 multiply-adds per voxel each; 1,000 steps of 3 x 36^3 voxels (or as many in slices), white noise alone.
PSNR in the head, dB, the mean over the volumes, each network applied once: networks of slices to axial slices.
"""

from pathlib import Path

import numpy as np
import torch

from benchmarks.arguments import normalised, parser, row, table, truths
from invsr.models.architectures import multiply_adds
from invsr.models.weights import load_weights
from invsr.priors.denoiser import Denoiser
from invsr.testing.metrics import head_mask
from invsr.training.recipe import Recipe

SLICES, SLABS = (4, 108, 108), (8, 108, 108)
RUNS = {
    "u3": ("U-Net, volumes", {"config": {"dim": 3, "channels": [24, 48, 96]}}),
    "u2": ("U-Net, slices", {"config": {"dim": 2, "channels": [32, 64, 128]}, "patch": SLICES}),
    "u25": ("U-Net, slabs of 5", {"config": {"dim": 2, "channels": [32, 64, 128], "neighbours": 2}, "patch": SLABS}),
    "d3": ("DnCNN, volumes", {"architecture": "DnCNN", "config": {"dim": 3, "channels": 20, "depth": 12}}),
    "d2": (
        "DnCNN, slices",
        {"architecture": "DnCNN", "config": {"dim": 2, "channels": 35, "depth": 12}, "patch": SLICES},
    ),
}


def train(data, out):
    from invsr.training.denoiser import train_denoiser

    files = sorted(path for path in Path(data).rglob("*.nii.gz") if not path.name.startswith("stroke"))
    for name, (_, changes) in RUNS.items():
        train_denoiser(files, out / f"{name}.safetensors", Recipe(steps=1000, measured=0.0, average=0.99, **changes))


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", "--out")
    arguments.add_argument("--train", metavar="DIR")
    arguments.add_argument("--sigma", nargs="+", type=float, default=[2, 5, 10, 20])
    options = arguments.parse_args()
    if options.out is None:
        arguments.error("name the folder of the weights with --out")
    if options.train:
        train(options.train, options.out)
    table(["network", "parameters", "multiply-adds per voxel", *(f"{percent:g} %" for percent in options.sigma)])
    heads = [(normalised(one).numpy(), head_mask(one.numpy())) for one in truths(options.volumes, options.crop)]
    for name, (label, _) in RUNS.items():
        network, about = load_weights(options.out / f"{name}.safetensors")
        if about["steps"] != about["recipe"]["steps"]:
            arguments.error(f"{name}: its training stopped after {about['steps']} steps: run --train again")
        prior = Denoiser(network, planes=2, symmetries=False)
        cells = [label, f"{sum(one.numel() for one in network.parameters()):,}", f"{multiply_adds(network):,.0f}"]
        for percent in options.sigma:
            scores = []
            for truth, mask in heads:
                noise = np.random.default_rng(options.seed).normal(0, percent / 100, truth.shape).astype(np.float32)
                with torch.no_grad():
                    found = prior.prox(torch.from_numpy(truth + noise)[None, None], percent / 100)[0, 0].numpy()
                scores.append(-10 * np.log10(np.mean((found - truth)[mask] ** 2)))
            cells.append(f"{np.mean(scores):.2f}")
        row(cells)


if __name__ == "__main__":
    main()
