"""Seconds of each part of ``invsr reconstruct SCAN... --report DIR``, one row for each method.

    python -m benchmarks.speed.command_parts [HIGH.nii.gz] [--crop SIDE] [--method NAME ...] [--stacks]

From a volume of 1 mm, in slices of 4 mm; with `--stacks` three of them in three directions, of which two moved by 3
degrees and 2 mm, which is estimated (`--motion stack`). Start-up is that of a fresh process with everything imported.
"""

import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.grid import Grid
from invsr.motion import NONE, STACK
from invsr.pipeline.choice import method_of
from invsr.pipeline.grids import choose_grid
from invsr.pipeline.moved import estimate_motion
from invsr.pipeline.preparation import scans_of
from invsr.pipeline.problem import build_problem
from invsr.pipeline.run import solve_problem
from invsr.report import write_report

PARTS = ("start-up", "load", "motion", "problem", "solve", "checks", "write", "report")
IMPORTS = "import invsr.report, invsr.pipeline.run, invsr.io.nifti, scipy.ndimage, matplotlib.figure"


def moved(grid, degrees=3.0, shift=2.0):
    """The grid turned about its centre and shifted."""
    affine = grid.affine.copy()
    turn = Rotation.from_rotvec(np.full(3, degrees / 3**0.5), degrees=True).as_matrix()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = grid.centre + turn @ (grid.origin - grid.centre) + shift / 3**0.5
    return Grid(grid.shape, affine)


class Stopwatch:
    def __init__(self):
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name):
        begin = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begin


def processor():
    """Its name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def measured(paths, method, motion, folder):
    watch = Stopwatch()
    with watch.part("start-up"):
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    with watch.part("load"):
        scans = scans_of([invsr.load(path) for path in paths])
    with torch.no_grad():
        with watch.part("motion"):
            grid = choose_grid(scans)
            found = estimate_motion(scans, grid, motion)
        with watch.part("problem"):
            problem = build_problem(scans, grid, found)
        with watch.part("solve"):
            result = solve_problem(problem, method_of(method, {}))
    with watch.part("checks"):
        result.remarks()
    with watch.part("write"):
        result.save(folder / "out.nii.gz")
    with watch.part("report"):
        write_report(folder / "report", result, files={"the result": folder / "out.nii.gz"})
    return watch.seconds


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed")
    arguments.add_argument("--method", nargs="+", default=["cubic", "tikhonov", "tv", "unrolled"])
    arguments.add_argument("--stacks", action="store_true", help="three oblique stacks that moved")
    options = arguments.parse_args()
    truth = truths(options.volumes, options.crop)[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for n, axis in enumerate((2, 1, 0) if options.stacks else (2,)):
            scan = invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=options.noise, seed=options.seed + n)
            if n:
                scan = scan.with_data(scan.data, moved(scan.grid))
            paths.append(folder / f"scan-{n}.nii.gz")
            invsr.save(scan, paths[-1])
        print(f"{truth.grid}, {processor()}, {torch.get_num_threads()} threads\n")
        table(["method", *PARTS, "sum"])
        for method in options.method:
            seconds = measured(paths, method, STACK if options.stacks else NONE, folder)
            row([method, *(f"{one:.1f}" for one in seconds.values()), f"{sum(seconds.values()):.1f}"])


if __name__ == "__main__":
    main()
