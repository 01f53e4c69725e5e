"""Working memory of reconstructions from k-space, beside what is reckoned with.

    INVSR_ENGINE=torch python -m benchmarks.kspace.memory [--sides 64 96] [--coils 1 8] [--method tikhonov tv]

Each runs in a process of its own, on a phantom, with true coil maps; the peak is the resident memory that is added once
the problem stands, sampled every 5 ms. Samples: "lines" on the Cartesian grid, "spokes" within slices, and "ball",
spokes in all directions. Total variation runs for three iterations, after its weight was found. The last but one column
is what `invsr` reckons with when it keeps to a memory budget: it has to be above the measured, but for a few MB.
"""

import itertools
import multiprocessing

import torch

from benchmarks.arguments import parser, row, table
from benchmarks.peak import added_memory
from invsr.operators import kooshball, poisson_disc, radial
from invsr.pipeline.methods import METHODS
from invsr.pipeline.raw_problem import build_raw_problem
from invsr.pipeline.raw_run import raw_method_of
from invsr.testing.kspace import simulate_kspace, simulate_noncartesian
from invsr.testing.phantoms import shepp_logan
from invsr.volume import Volume

SAMPLES = ("lines", "spokes", "ball")
NOISE = 0.01


def simulated(samples, side, coils):
    """k-space of a phantom, and the coils' maps."""
    truth = Volume(*shepp_logan((side,) * 3, 200.0))
    given = {"n_coils": coils, "noise": NOISE}
    if samples == "lines":
        return simulate_kspace(truth, mask=poisson_disc((1, side, side), 4, (16, 16), seed=0), **given)[:2]
    if samples == "spokes":
        return simulate_noncartesian(truth, radial(side // 3, side, side), axes=(0, 1), **given)[:2]
    return simulate_noncartesian(truth, kooshball(side**2 // 16, side, side), axes=(0, 1, 2), **given)[:2]


def measured(samples, name, side, coils, channel):
    """Send the memory of a run in bytes, what is reckoned with, and the run's seconds."""
    raw, maps = simulated(samples, side, coils)
    problem = build_raw_problem(raw, maps=maps, noise=NOISE)
    method = raw_method_of(name, {"max_iter": 3} if name == "tv" else {})
    with torch.no_grad():
        taken, seconds = added_memory(lambda: method.solve(problem), every=0.005)
    channel.send((taken, method.memory(problem), seconds))


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--sides", nargs="+", type=int, default=[64, 96], help="of the matrix")
    arguments.add_argument("--coils", nargs="+", type=int, default=[1, 8])
    arguments.add_argument("--samples", nargs="+", choices=SAMPLES, default=SAMPLES)
    arguments.add_argument("--method", nargs="+", choices=[*METHODS], default=["tikhonov", "tv"])
    options = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    table(["samples", "method", "matrix", "coils", "MB", "reckoned with, MB", "seconds"])
    for case in itertools.product(options.samples, options.method, options.sides, options.coils):
        here, there = spawn.Pipe()
        worker = spawn.Process(target=measured, args=(*case, there))
        worker.start()
        taken, reckoned, seconds = here.recv()
        worker.join()
        row([*case, f"{taken / 1e6:.0f}", f"{reckoned / 1e6:.0f}", f"{seconds:.1f}"])


if __name__ == "__main__":
    main()
