"""Reconstructions on a GPU: whether they are the CPU's, how long they take, and how much memory; in eight minutes.

    python -m benchmarks.gpu [--minutes 8] [--sides 64 128 160 256] [--tests] [--device cpu]

It needs PyTorch, numpy, scipy, safetensors and psutil, makes its own data, and reads the weights of the package.
Columns: the largest difference from the CPU's volume relative to that volume's maximum, both in float32; seconds of a
second run; peak memory that PyTorch took on the GPU. --tests runs pytest --device cuda first, for at most a half of the
time. What does not fit the time any more is left out, and said. --device cpu runs the same code without a GPU.
"""

import argparse
import subprocess
import sys
import time
from contextlib import nullcontext
from unittest import mock

import torch
from torch.nn.functional import interpolate

import invsr
from benchmarks.arguments import row, table
from invsr.errors import InvsrError
from invsr.models.architectures import multiply_adds
from invsr.models.registry import DEFAULT
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained
from invsr.testing.phantoms import centred_grid, shapes

METHODS = ("tikhonov", "tv", "pnp", "unrolled", "deq")
SIDES = (64, 128, 160, 256)
TESTS = ("tests/devices", "tests/operators/test_battery.py")
# Before the first run of a method nothing is known of its time; later runs take in proportion to voxels, or less.
FIRST_RUN, RUNS, MARGIN = 20.0, 2, 1.2
REPEATS = 5


class Clock:
    """Time left, and what did not fit it."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60 * minutes
        self.left_out = []

    def allows(self, seconds, what):
        fits = time.monotonic() + MARGIN * seconds < self.end
        if not fits:
            self.left_out.append(what)
        return fits


def synchronised(device):
    """Seconds on the clock once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_of(function, device, repeats=1):
    """What a function returns, and its seconds per call."""
    begun = synchronised(device)
    for _ in range(repeats):
        found = function()
    return found, (synchronised(device) - begun) / repeats


def scan_of(side):
    """A scan of 4 mm slices of a phantom of 1 mm voxels."""
    coarse = min(side, 64)  # larger phantoms take long to draw
    truth = shapes(centred_grid((coarse,) * 3), n_samples=coarse, size=float(coarse))
    volume = invsr.Volume(interpolate(truth, size=(side,) * 3, mode="trilinear"), centred_grid((side,) * 3), "phantom")
    return invsr.simulate(volume, slice_thickness=4.0, axis=2, noise=0.01)


def in_float32():
    """Networks and products in float32, whatever the device does faster."""
    return mock.patch.object(Denoiser, "number_format", lambda prior, device: nullcontext())


def difference(scan, method, device):
    """Largest relative difference of a device's volume from the CPU's, and the CPU's seconds."""
    torch.backends.cudnn.allow_tf32 = False
    with in_float32():
        expected, seconds = seconds_of(lambda: run(scan, method, torch.device("cpu")), torch.device("cpu"))
        found = run(scan, method, device)
    torch.backends.cudnn.allow_tf32 = True
    return float((found.x.cpu() - expected.x).abs().max() / expected.x.abs().max()), seconds


def run(scan, method, device):
    return invsr.reconstruct(scan, method=method, device=str(device))


def methods(options, clock):
    """A row for every method at every size, the largest last."""
    table(["method", "side", "difference", "CPU seconds", "seconds", "peak memory, MB", "bytes per voxel"])
    seconds = {}
    for side in sorted(options.sides):
        scan = scan_of(side)
        for method in options.methods:
            before = seconds.get(method)
            expected = FIRST_RUN if before is None else RUNS * before[1] * (side / before[0]) ** 3
            if not clock.allows(expected, f"{method} at {side}"):
                continue
            try:
                cells, taken = measured(scan, method, side, options)
            except (InvsrError, torch.cuda.OutOfMemoryError) as error:  # too large for this device
                row([method, side, str(error).splitlines()[0]])
                continue
            row(cells)
            seconds[method] = side, taken


def measured(scan, method, side, options):
    """The cells of a row, and the seconds."""
    on_gpu = options.device.type == "cuda"
    compared = ["", ""]
    if side <= options.compare:
        deviation, processor = difference(scan, method, options.device)
        compared = [f"{deviation:.1e}", f"{processor:.1f}"]
    run(scan, method, options.device)  # chooses kernels, fills caches
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(options.device)
    _, taken = seconds_of(lambda: run(scan, method, options.device), options.device)
    peak = torch.cuda.max_memory_allocated(options.device) if on_gpu else None
    memory = ["", ""] if peak is None else [f"{peak / 1e6:.0f}", f"{peak / side**3:.0f}"]
    return [method, side, *compared, f"{taken:.2f}", *memory], taken


def formats(options, clock):
    """A row for each number format and order in memory of one pass of the default denoiser."""
    table(["network", "order", "difference", "seconds", "GFLOP/s", "of the matrix product's"])
    network = pretrained(DEFAULT).network.to(options.device)
    operations = 2e-9 * multiply_adds(pretrained(DEFAULT).network) * options.pass_side**3
    shape = (1, 1, *(options.pass_side,) * 3)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(options.device)
    kind = options.device.type
    contexts = {"float32": (torch.float32, nullcontext), "TensorFloat-32": (torch.float32, nullcontext)}
    for dtype in (torch.bfloat16, torch.float16):
        contexts[f"{dtype}".removeprefix("torch.")] = dtype, lambda dtype=dtype: torch.autocast(kind, dtype)
    reference = None
    for order in (torch.contiguous_format, torch.channels_last_3d):
        network, x = network.to(memory_format=order), image.contiguous(memory_format=order)
        for name, (dtype, context) in contexts.items():
            what = f"{name}, {str(order).removeprefix('torch.')}"
            if not clock.allows(FIRST_RUN / 4, what):
                continue
            fast = name == "TensorFloat-32"
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = fast
            with torch.no_grad(), context():
                network(x, 0.05)
                out, taken = seconds_of(lambda net=network, x=x: net(x, 0.05), options.device, REPEATS)
            reference = out if reference is None else reference
            deviation = float((out.float() - reference).abs().max() / reference.abs().max())
            share = operations / taken / product_rate(dtype, options)
            row([*what.split(", "), f"{deviation:.1e}", f"{taken:.4f}", f"{operations / taken:.0f}", f"{share:.0%}"])


def product_rate(dtype, options):
    """GFLOP/s of a matrix product on the device."""
    side = options.product_side
    a = torch.randn(side, side, device=options.device).to(dtype)
    a @ a
    return 2e-9 * side**3 / seconds_of(lambda: a @ a, options.device, REPEATS)[1]


def tests(options):
    """Run the tests of devices; their summary."""
    command = [sys.executable, "-m", "pytest", "--device", options.device.type, "-p", "no:cacheprovider", *TESTS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30 * options.minutes)
    except subprocess.TimeoutExpired as late:
        print(f"tests: not done after {late.timeout:.0f} s")
        return
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print("\n".join([*failed, f"tests: {(done.stdout + done.stderr).strip().splitlines()[-1]}"]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="[cuda]")
    parser.add_argument("--minutes", type=float, default=8.0, help="stop by then [8]")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of cubes, voxels [64 128 160 256]")
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"[{' '.join(METHODS)}]")
    parser.add_argument("--compare", type=int, default=64, help="largest side that the CPU reconstructs, too [64]")
    parser.add_argument("--pass-side", type=int, default=128, help="of the volume that the network is timed on [128]")
    parser.add_argument("--product-side", type=int, default=4096, help="of the matrices that are multiplied [4096]")
    parser.add_argument("--tests", action="store_true", help="run the tests on the device first")
    options = parser.parse_args()
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here: --device cpu tries the script without one")
    clock = Clock(options.minutes)
    on_gpu = options.device.type == "cuda"
    where = torch.cuda.get_device_name(options.device) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; PyTorch {torch.__version__}; CPU threads {torch.get_num_threads()}\n")
    if options.tests:
        tests(options)
    formats(options, clock)
    print()
    methods(options, clock)
    print(f"\nleft out for want of time: {', '.join(clock.left_out) or 'nothing'}")


if __name__ == "__main__":
    main()
