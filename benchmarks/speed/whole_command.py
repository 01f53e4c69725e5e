"""Seconds and peak memory of the whole command, from start to file, on a volume of 1 mm from 4 mm slices.

    python -m benchmarks.speed.whole_command [HIGH.nii.gz] [--crop SIDE] [--route NAME ...]

scipy's cubic interpolation of the same scan, in a process of its own, is the yardstick in the same run. Processor
seconds are summed over cores; other work on the machine prolongs them less than the seconds on the clock.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import invsr
from benchmarks.arguments import parser, row, table, truths

# The gradient-step denoiser, made for its guarantee, takes minutes.
DENOISERS = ("mri-denoiser-fast", "mri-denoiser")
SPLINE = """
import sys, nibabel as nib
from scipy import ndimage
low = nib.load(sys.argv[1])
data = ndimage.zoom(low.get_fdata(dtype="float32"), (1, 1, 4), order=3, grid_mode=True, mode="nearest")
nib.save(nib.Nifti1Image(data, low.affine), sys.argv[2])
"""


def measured(command):
    """Seconds, processor seconds and peak resident MB of one child process."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *command], capture_output=True, text=True, check=False
    )  # the runner reports its own child's memory: RUSAGE_CHILDREN keeps the maximum of all children so far
    if done.returncode:
        sys.exit(done.stderr)
    kilobytes, processor = done.stdout.split()[-2:]
    return time.perf_counter() - begin, float(processor), int(kilobytes) / 1024


RUNNER = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(used.ru_maxrss, used.ru_utime + used.ru_stime)\n"
    "sys.exit(done.returncode)\n"
)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--noise", "--seed")
    arguments.add_argument("--route", nargs="+", help="only these rows")
    options = arguments.parse_args()
    truth = truths(options.volumes, options.crop)[0]
    with tempfile.TemporaryDirectory() as folder:
        low = Path(folder) / "low.nii.gz"
        scan = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=options.noise, seed=options.seed)
        invsr.save(scan, low)
        print(f"{truth.grid}, {torch.get_num_threads()} threads\n")
        table(["method", "seconds", "processor seconds", "MB"])
        rows = {"scipy cubic": [sys.executable, "-c", SPLINE, str(low), str(Path(folder) / "spline.nii.gz")]}
        routes = {method: ["--method", method] for method in ("cubic", "tikhonov", "tv")}
        routes |= {f"pnp, {name}": ["--method", "pnp", "--denoiser", name] for name in DENOISERS}
        routes |= {name: ["--method", name] for name in ("unrolled", "deq")}
        routes["mri-unrolled-fast"] = ["--method", "unrolled", "--model", "mri-unrolled-fast"]
        for name, flags in routes.items():
            out = str(Path(folder) / "out.nii.gz")
            rows[f"invsr {name}"] = [sys.executable, "-m", "invsr", "reconstruct", str(low), "-o", out, *flags]
        for name, command in rows.items():
            if not options.route or name in options.route:
                seconds, processor, megabytes = measured(command)
                row([name, f"{seconds:.1f}", f"{processor:.1f}", f"{megabytes:.0f}"])


if __name__ == "__main__":
    main()
