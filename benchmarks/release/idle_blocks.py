"""Residual blocks of a trained U-Net that change nothing: which they are, and the weights without them.

    python -m benchmarks.release.idle_blocks WEIGHTS.safetensors HIGH.nii.gz [...] [--crop 56] [--out W.safetensors]

A ReLU's channels can go out for good in training; a block whose channels are all out adds nothing to what passes it.
For each block the table gives the largest change of the mean squared error in dB, either way, when the block is left
out: of denoising at 2 to 20 % for denoisers, of whole reconstructions from 2 to 8 mm slices with 1 and 3 % noise for
solvers. Blocks below `--least` are left out of the file that `--out` names, one after the other.
"""

import math

import torch
from torch import nn

from benchmarks.arguments import OPTIONS, normalised, parser, row, table, truths
from invsr.models.architectures import multiply_adds
from invsr.models.networks import UNet
from invsr.models.registry import holds_solver
from invsr.models.weights import load_weights, write_weights
from invsr.operators.scan_model import acquisition
from invsr.solvers.trained import load_solver
from invsr.testing.simulation import simulate

LEVELS = (0.02, 0.05, 0.1, 0.2)
ACQUISITIONS = ((2.0, 0.01), (4.0, 0.01), (4.0, 0.03), (8.0, 0.01))


def places(network):
    """The network's sequences of blocks, in the order that the image meets them, with their names."""
    down = [(f"encode.{n}", one) for n, one in enumerate(network.encode)]
    up = [(f"decode.{n}", one) for n, one in enumerate(network.decode)]
    return [*down, ("bottom", network.bottom), *reversed(up)]


def denoising_errors(network, volumes):
    """Mean squared errors of denoising."""
    found = []
    for volume in volumes:
        clean = volume.data
        for n, sigma in enumerate(LEVELS):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(n))
            with torch.no_grad():
                found.append(float((network(clean + sigma * noise, sigma) - clean).square().mean()))
    return found


def reconstruction_errors(solver, volumes):
    """Mean squared errors of the solver's volumes."""
    found = []
    for volume in volumes:
        for thickness, noise in ACQUISITIONS:
            scan = simulate(volume, slice_thickness=thickness, axis=2, noise=noise)
            operator = acquisition(scan.grid, reference=volume.grid, slice_thickness=thickness)
            x = solver.solve(operator, scan.data, noise).x
            found.append(float((x - volume.data).square().mean()))
    return found


def change(before, after):
    """Largest change in dB."""
    return max(abs(10 * math.log10(b / a)) for a, b in zip(before, after, strict=True))


def main():
    arguments = parser(__doc__)
    arguments.add_argument("weights", help="weights file of a UNet, or of a solver with one network for all steps")
    for name in ("volumes", "--crop", "--out"):
        arguments.add_argument(name, **OPTIONS[name])
    arguments.add_argument("--least", type=float, default=0.002, help="dB below which a block is left out")
    options = arguments.parse_intermixed_args()
    is_solver = holds_solver(options.weights)
    module, about = load_solver(options.weights, None) if is_solver else load_weights(options.weights)
    networks = [one for one in module.modules() if isinstance(one, UNet)]
    if about["architecture"] != "UNet" or len(networks) != 1:
        arguments.error(f"{options.weights} holds no single UNet")
    network = networks[0]
    volumes = [normalised(volume) for volume in truths(options.volumes, options.crop)]
    measure = reconstruction_errors if is_solver else denoising_errors
    begun = multiply_adds(network)
    at_first = measure(module, volumes)
    table(["block", "without it, dB", "stays"])
    for name, place in places(network):
        for n in reversed(range(len(place))):
            block = place[n]
            place[n] = nn.Identity()
            by = change(at_first, measure(module, volumes))
            stays = by >= options.least
            if stays:
                place[n] = block
            row([f"{name}, {n + 1}", f"{by:.4f}", "yes" if stays else "no"])
    for _, place in places(network):
        blocks = [block for block in place if not isinstance(block, nn.Identity)]
        del place[:]
        place.extend(blocks)
    network.config["blocks"] = tuple(len(place) for _, place in places(network))
    print(f"\n{begun:,.0f} multiply-adds per voxel, now {multiply_adds(network):,.0f}")
    if options.out:
        about["config"] = network.config
        about["multiply_adds"] = round(about["multiply_adds"] * multiply_adds(network) / begun)
        write_weights(module.state_dict(), options.out, about)


if __name__ == "__main__":
    main()
