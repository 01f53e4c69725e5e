"""The noise level that trained solvers assume, found on a part of the volume or on the whole; network passes.

    python -m benchmarks.quality.noise_level [HIGH.nii.gz ...] [--scans SCAN.nii.gz ...] [--crop 80] [--side 48]
        [--slices 2 4 8] [--noises 0.01] [--spacing 1.5] [--method unrolled deq] [--rtol 3e-3 5e-3 1e-2]

Slices are simulated of the volumes; real scans are reconstructed at `--spacing`. "x noise" is the level that the last
run assumed, over the noise. Network passes of the last run, and of all runs: passes of parts and of coarser grids
count there by their voxels.
"""

import itertools
import time
import warnings

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from invsr.errors import InvsrWarning
from invsr.priors.denoiser import Denoiser
from invsr.solvers import discrepancy, equilibrium, observation, trained, unrolled
from invsr.testing.metrics import evaluate, head_mask

COLUMNS = (
    "volume",
    "slices, mm",
    "noise",
    "method",
    "rtol",
    "found on",
    "x noise",
    "last run",
    "all runs",
    "seconds",
    "chi2",
    "PSNR",
)


class Counted:
    """Counts voxels that networks see, and notes the noise levels of runs."""

    def __init__(self):
        self.voxels, self.levels = 0, []
        prox, choose = Denoiser.prox, discrepancy.run_with_enough_noise

        def counted(prior, v, sigma):
            self.voxels += v.numel()
            return prox(prior, v, sigma)

        def noted(run, whole, sigma, progress=None):
            def once(seen, assumed, inner):
                self.levels.append(assumed / sigma)
                return run(seen, assumed, inner)

            return choose(once, whole, sigma, progress)

        Denoiser.prox = counted
        equilibrium.run_with_enough_noise = unrolled.run_with_enough_noise = noted


def psnr(found, truth):
    """Inside the head, dB."""
    return evaluate(found.x[0, 0].numpy(), truth.numpy(), head_mask(truth.numpy()), quick=True)["psnr"]


def cases(options):
    """Name, scan, what it is told, truth, thickness and noise."""
    for truth in map(normalised, truths(options.volumes, options.crop)):
        for thickness in options.slices:
            for noise in options.noises:
                scan = invsr.simulate(truth, slice_thickness=thickness, axis=2, noise=noise, seed=options.seed)
                yield stem(truth), scan, {"reference": truth.grid}, truth, thickness, f"{noise:g}"
    for scan in map(invsr.load, options.scans):
        thickness = float(scan.grid.spacing.max())
        yield stem(scan), scan, {"spacing": options.spacing}, None, round(thickness, 1), "estimated"


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=80)
    arguments.add_argument("--scans", nargs="*", default=[])
    arguments.add_argument("--side", type=int, default=observation.SIDE, help="of the part, voxels")
    arguments.add_argument("--slices", type=float, nargs="*", default=[4.0])
    arguments.add_argument("--noises", type=float, nargs="*", default=[0.01])
    arguments.add_argument("--spacing", type=float, default=1.5)
    arguments.add_argument("--method", nargs="+", default=["unrolled", "deq"])
    arguments.add_argument("--found-on", nargs="+", default=["whole", "part"])
    arguments.add_argument("--rtol", type=float, nargs="+", default=[trained.FIXED_POINT_RTOL], help="of deq")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    if options.scans and not options.volumes:
        options.slices = []
    counted, least = Counted(), {"whole": float("inf"), "part": observation.LEAST_PARTS}
    observation.SIDE = options.side
    table(COLUMNS)
    for name, scan, told, truth, thickness, noise in cases(options):
        for method in options.method:
            for where, rtol in itertools.product(options.found_on, options.rtol if method == trained.DEQ else [None]):
                counted.voxels, counted.levels = 0, []
                observation.LEAST_PARTS = least[where]
                trained.FIXED_POINT_RTOL = rtol
                start = time.perf_counter()
                found = invsr.reconstruct(scan, method=method, **told)
                seconds = time.perf_counter() - start
                figures = [
                    f"{counted.levels[-1]:.2f}",
                    len(found.solution.history),
                    f"{counted.voxels / found.x.numel():.1f}",
                ]
                figures += [f"{seconds:.0f}", f"{found.solution.chi2:.2f}"]
                figures += ["" if truth is None else f"{psnr(found, truth):.2f}"]
                row([name, thickness, noise, method, "" if rtol is None else f"{rtol:g}", where, *figures])


if __name__ == "__main__":
    main()
