"""How much of a plug-and-play run is the denoiser, and how near its rate comes to that of a matrix product.

    python -m benchmarks.speed.denoiser_rate [HIGH.nii.gz] [--denoiser NAME ...]

The case of benchmarks/speed/whole_command.py, 4 mm slices. A multiply-add counts as two operations; voxels
count as the network sees them, padding and overlaps of tiles included. The matrix product has the networks' number
format, 2048 x 2048, on the same threads in the same process.
"""

import time

import torch

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.models.architectures import multiply_adds
from invsr.models.registry import models
from invsr.priors.loading import pretrained


class Watch:
    """Counts seconds and voxels of the calls of a network."""

    def __init__(self, network):
        self.seconds, self.voxels = 0.0, 0
        network.register_forward_pre_hook(self.begin)
        network.register_forward_hook(self.end)

    def begin(self, network, inputs):
        self.begun = time.perf_counter()

    def end(self, network, inputs, out):
        self.seconds += time.perf_counter() - self.begun
        self.voxels += out.numel()


def product_rate(number_format, side=2048, repeats=10):
    """GFLOP/s of a matrix product."""
    a = torch.randn(side, side).to(number_format)
    a @ a
    begun = time.perf_counter()
    for _ in range(repeats):
        a @ a
    return 2e-9 * side**3 * repeats / (time.perf_counter() - begun)


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed")
    arguments.add_argument("--denoiser", nargs="+", default=list(models("denoiser")))
    options = arguments.parse_args()
    truth = truths(options.volumes, options.crop)[0]
    scan = invsr.simulate(truth, slice_thickness=options.thickness, axis=2, noise=options.noise, seed=options.seed)
    print(f"{torch.get_num_threads()} threads\n")
    table(["denoiser", "format", "seconds", "share of the denoiser", "GFLOP/s", "of the matrix product's"])
    for name in options.denoiser:
        prior = pretrained(name)
        watch = Watch(prior.network)
        begun = time.perf_counter()
        invsr.reconstruct(scan, method="pnp", denoiser=prior)
        seconds = time.perf_counter() - begun
        rate = 2e-9 * multiply_adds(pretrained(name).network) * watch.voxels / watch.seconds
        coarse = isinstance(prior.number_format(torch.device("cpu")), torch.autocast)
        used = torch.bfloat16 if coarse else torch.float32  # the other can take minutes where it is emulated
        share = rate / product_rate(used)
        row([name, used, f"{seconds:.1f}", f"{watch.seconds / seconds:.0%}", f"{rate:.0f}", f"{share:.0%}"])


if __name__ == "__main__":
    main()
