"""Peak memory of one training step: unrolled by depth, with and without checkpointing; equilibrium by iterations.

    python -m benchmarks.speed.training_memory [--side 48] [--out docs/training_memory.png]

Peak resident memory of a process that does that step alone, and what of it is more than that of a process that stops
before the step; float32 convolutions, the fast denoiser.
"""

import multiprocessing
import resource
import warnings

import matplotlib
import numpy as np
import torch

import invsr
from benchmarks.arguments import parser, row, table
from invsr.errors import InvsrWarning
from invsr.priors import pretrained
from invsr.solvers import HQS, Equilibrium, Unrolled

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DEPTHS = {"unrolled": (4, 8, 16), "unrolled, checkpointed": (4, 8, 16), "equilibrium": (10, 30, 100)}


def step(queue, side, kind, depth):
    """Peak memory in MB, after set-up alone if `kind` is None."""
    warnings.simplefilter("ignore", InvsrWarning)
    torch.manual_seed(0)
    grid = invsr.Grid((side,) * 3, np.eye(4))
    A = invsr.operators.acquisition(grid.coarsen((1, 1, 4)), reference=grid)
    truth = torch.rand(1, 1, *grid.shape)
    y = A(truth)
    prior = pretrained("mri-denoiser-fast", symmetries=False, crop=False, bfloat16=False)
    prior.requires_grad_(True)
    if kind is not None:
        if kind.startswith("equilibrium"):
            limits = {"rtol": 0.0, "max_iter": depth, "backward_rtol": 0.0, "backward_max_iter": depth}
            network = Equilibrium(HQS(), prior, **limits)
        else:
            network = Unrolled(HQS(), prior, depth, save_memory="checkpointed" in kind)
        (network(A, y, 0.01) - truth).square().mean().backward()
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(*arguments):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=step, args=(queue, *arguments))
    process.start()
    found = queue.get()
    process.join()
    return found


def main():
    arguments = parser(__doc__, "--out")
    arguments.add_argument("--side", type=int, default=48)
    options = arguments.parse_args()
    before = peak(options.side, None, 0)
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    table(["network", "steps or iterations", "peak, MB", "of the step, MB"])
    for kind, depths in DEPTHS.items():
        found = [peak(options.side, kind, depth) - before for depth in depths]
        for depth, memory in zip(depths, found, strict=True):
            row([kind, depth, f"{before + memory:.0f}", f"{memory:.0f}"])
        axes.plot(depths, found, "o-", label=kind)
    axes.set(xlabel="steps or iterations", ylabel="MB of a training step", xscale="log", ylim=(0, None))
    axes.legend()
    if options.out:
        figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
