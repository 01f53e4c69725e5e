"""Peak memory of one training step: unrolled by depth, with and without checkpointing; equilibrium by iterations.

    python benchmarks/training_memory.py [--side 48] [--plot docs/training_memory.png]

Peak resident memory of a process that does that step alone, and what of it is more than that of a process that stops
before the step; float32 convolutions, the fast denoiser.
"""

import argparse
import multiprocessing
import resource
import warnings

import matplotlib
import numpy as np
import torch

import invsr
from invsr.errors import InvsrWarning
from invsr.priors import pretrained
from invsr.solvers import HQS, Equilibrium, Unrolled

matplotlib.use("Agg")
import matplotlib.pyplot as plt


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
            network = Equilibrium(
                HQS(), prior, rtol=0.0, max_iter=depth, backward_rtol=0.0, backward_max_iter=depth
            )  # fmt: skip
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--plot")
    options = parser.parse_args()
    before = peak(options.side, None, 0)
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    print("| network | steps or iterations | peak, MB | of the step, MB |\n|---|---|---|---|")
    for kind, depths in (
        ("unrolled", (4, 8, 16)), ("unrolled, checkpointed", (4, 8, 16)), ("equilibrium", (10, 30, 100)),
    ):  # fmt: skip
        found = [peak(options.side, kind, depth) - before for depth in depths]
        for depth, memory in zip(depths, found, strict=True):
            print(f"| {kind} | {depth} | {before + memory:.0f} | {memory:.0f} |", flush=True)
        axes.plot(depths, found, "o-", label=kind)
    axes.set(xlabel="steps or iterations", ylabel="MB of a training step", xscale="log", ylim=(0, None))
    axes.legend()
    if options.plot:
        figure.savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
