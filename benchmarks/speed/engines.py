"""How fast each engine runs a network in each number format, beside a matrix product of that format.

    python -m benchmarks.speed.engines [--model mri-denoiser ...] [--sides 64 96] [--repeats 5] [--compile]

One pass over a cube of each side, the shortest of a few; the ways and the product (2048 x 2048) take turns, so that
other work on the machine meets all of them. A multiply-add counts as two operations. The difference is the largest from
PyTorch's float32, relative to the largest estimated noise. Formats that the processor would emulate are left out.
--compile adds torch.compile.
"""

import argparse
import math
import os
import time

import torch

from benchmarks.arguments import row, table
from benchmarks.speed.denoiser_rate import product_rate
from invsr.models import compiled, engines
from invsr.models.architectures import build, multiply_adds
from invsr.models.registry import models, weights_of
from invsr.models.weights import load_weights, read_description
from invsr.solvers.trained import load_solver

CPU = torch.device("cpu")


def network_of(name):
    """The network of a model; of an unrolled solver, that of its first step."""
    if models()[name]["kind"] == "denoiser":
        return load_weights(*weights_of(name))[0]
    solver = load_solver(name, None)[0]
    return (solver.priors[0] if hasattr(solver, "priors") else solver.prior).network


def passes(network, x, options):
    """A function for each way to make a pass, by its name."""
    found = {"torch float32": lambda: network.body(x)}
    if engines.multiplies_bfloat16(CPU):
        found["torch bfloat16"] = lambda: in_bfloat16(network, x)
    if options.compile:
        body = torch.compile(network.body)
        found["torch.compile float32"] = lambda: body(x)
    if compiled.is_usable():
        found["openvino float32"] = lambda: compiled.run(network, x)
    return found


def in_bfloat16(network, x):
    with torch.autocast("cpu", torch.bfloat16):
        return network.body(x)


def rates(name, side, options):
    """Rows of one network at one side."""
    about = read_description(weights_of(name)[0])
    operations = 2e-9 * multiply_adds(build(about["architecture"], about["config"])) * side**3
    network = network_of(name)
    image = torch.rand((1, 2, side, side, side), generator=torch.Generator().manual_seed(0))
    ways = passes(network, image.contiguous(memory_format=torch.channels_last_3d), options)
    with torch.no_grad():
        outs = {way: call() for way, call in ways.items()}  # compiles, and chooses kernels
        seconds = dict.fromkeys(ways, math.inf)
        formats = {torch.bfloat16 if way.endswith("bfloat16") else torch.float32 for way in ways}
        products = dict.fromkeys(formats, 0.0)
        for _ in range(options.repeats):
            products = {one: max(rate, product_rate(one, repeats=5)) for one, rate in products.items()}
            for way, call in ways.items():
                begun = time.perf_counter()
                call()
                seconds[way] = min(seconds[way], time.perf_counter() - begun)
    expected = outs["torch float32"]
    for way, taken in seconds.items():
        rate = operations / taken
        share = rate / products[torch.bfloat16 if way.endswith("bfloat16") else torch.float32]
        difference = float((outs[way].float() - expected).abs().max() / expected.abs().max())
        faster = seconds["torch float32"] / taken
        row([name, side, way, f"{taken:.2f}", f"{rate:.0f}", f"{share:.0%}", f"{faster:.2f}", f"{difference:.0e}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mri-denoiser-fast", "mri-denoiser", "mri-unrolled"])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96], help="of the cubes, voxels [64 96]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    sets = ", ".join(engines.instruction_sets())
    print(f"{engines.processor()} ({sets}), {torch.get_num_threads()} threads", end="; ")
    print(f"PyTorch {torch.__version__}, OpenVINO {compiled.version()}", end="; ")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    columns = ["seconds", "GFLOP/s", "of the product's", "over torch float32's", "difference"]
    table(["network", "side", "engine and format", *columns])
    for name in options.model:
        for side in options.sides:
            rates(name, side, options)


if __name__ == "__main__":
    main()
