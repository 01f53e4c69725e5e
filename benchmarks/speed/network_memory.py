"""Working memory of one pass of a network through a volume on the CPU, beside what is reckoned with.

    python -m benchmarks.speed.network_memory [--sides 96 128] [--model NAME ...] [--engine torch]

Each network runs in a process of its own; the peak is the resident memory that the pass adds, sampled every 2 ms.
The last but one column is what `invsr` reckons with when it keeps to a memory budget: it has to be above the measured.
"""

import itertools
import multiprocessing
import os

import torch

from benchmarks.arguments import parser, row, table
from benchmarks.peak import added_memory
from invsr.models import engines
from invsr.models.networks import DnCNN, UNet
from invsr.models.registry import models
from invsr.models.shuffled import ShuffledUNet
from invsr.priors.loading import pretrained
from invsr.solvers.trained import load_solver


def network_of(name):
    """The network of a shipped model, or one that is not trained."""
    untrained = {"DnCNN": lambda: DnCNN(3, 24), "UNet": lambda: UNet(3, (32, 64, 128)), "ShuffledUNet": ShuffledUNet}
    if name in untrained:
        return untrained[name]()
    if models()[name]["kind"] == "denoiser":
        return pretrained(name).network
    return next(one for one in load_solver(name, None)[0].modules() if isinstance(one, UNet))


def measured(name, side, engine, channel):
    """Send the memory of a pass in bytes, what is reckoned with, and the pass's seconds."""
    os.environ[engines.VARIABLE] = engine
    network = network_of(name).eval()
    x = torch.rand(1, 1, side, side, side)
    with torch.no_grad():
        network(x[:, :, :16, :16, :16], 0.1)  # what is made once
        taken, seconds = added_memory(lambda: network(x, 0.1), every=0.002)
    compiled = engine == engines.OPENVINO and not network.is_gradient_step
    reckoned = engines.whole_memory(network, side**3) if compiled else network.memory((side,) * 3, x.device)
    channel.send((taken - 4 * side**3, reckoned, seconds))


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--sides", nargs="+", type=int, default=[96, 128], help="of the volumes, voxels")
    arguments.add_argument("--model", nargs="+", default=[*models(), "UNet", "ShuffledUNet", "DnCNN"])
    arguments.add_argument("--engine", nargs="+", default=[engines.TORCH, engines.OPENVINO])
    options = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    table(["network", "side", "engine", "MB", "reckoned with, MB", "seconds"])
    for name in options.model:
        for side, engine in itertools.product(options.sides, options.engine):
            here, there = spawn.Pipe()
            worker = spawn.Process(target=measured, args=(name, side, engine, there))
            worker.start()
            taken, reckoned, seconds = here.recv()
            worker.join()
            row([name, side, engine, f"{taken / 1e6:.0f}", f"{reckoned / 1e6:.0f}", f"{seconds:.1f}"])


if __name__ == "__main__":
    main()
