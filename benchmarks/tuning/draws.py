"""A sheet of training patches beside patches of real volumes, to be looked at: are they alike?

    python -m benchmarks.tuning.draws [HIGH.nii.gz ...] --data FOLDER --out SHEET.png [--seed 0]

Thirty random patches of what networks are trained on (`--data`, as of `invsr train`), then thirty of the volumes: the
central slice of each.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.arguments import normalised, parser, truths
from invsr.app.train import volumes_in
from invsr.training.random_draws import seeded
from invsr.training.synthesis import Anatomies

ROWS, COLUMNS, SIDE = 3, 10, 64


def real(volumes, generator):
    """A slice of a random patch of a random volume, across a random axis; most of it is no air."""
    while True:
        volume = volumes[int(generator.integers(len(volumes)))]
        data = np.moveaxis(volume.numpy(), int(generator.integers(3)), 0)
        first = [int(generator.integers(max(1, n - SIDE + 1))) for n in data.shape[1:]]
        found = data[int(generator.integers(len(data)))][first[0] : first[0] + SIDE, first[1] : first[1] + SIDE]
        if (found > 0.1).mean() > 0.3:
            return found


def main():
    arguments = parser(__doc__, "volumes", "--seed", "--out")
    arguments.add_argument("--data", type=Path, required=True)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    anatomies = Anatomies(volumes_in([options.data]))
    drawn = [anatomies.patch([8, SIDE, SIDE], seeded(options.seed, n))[0, 4].numpy() for n in range(ROWS * COLUMNS)]
    volumes = [normalised(one) for one in truths(options.volumes)]
    generator = np.random.default_rng(options.seed)
    others = [real(volumes, generator) for _ in drawn]
    figure, axes = plt.subplots(2 * ROWS, COLUMNS, figsize=(1.3 * COLUMNS, 2.6 * ROWS + 0.4))
    for axis, image in zip(axes.flat, drawn + others, strict=True):
        axis.imshow(image.T, cmap="gray", vmin=0, vmax=1.1, origin="lower")
        axis.axis("off")
    axes[0, 0].set_title("training patches", loc="left")
    axes[ROWS, 0].set_title("real volumes", loc="left")
    figure.tight_layout(pad=0.3)
    figure.savefig(options.out, dpi=90)


if __name__ == "__main__":
    main()
