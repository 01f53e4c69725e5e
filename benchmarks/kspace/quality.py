"""k-space of known volumes, reconstructed by our methods and by other packages: scores and seconds.

    python -m benchmarks.kspace.quality HIGH.nii.gz ... [--crop 64] [--noise 0.01] [--scenes ...] [--methods ...]
        [--phantom] [--maps]

Scenes: "poisson 4" and "poisson 8" (three-dimensional, variable-density Poisson discs along two axes), "lines 4"
(slices, random lines along one axis around twelve in the middle), "partial" (slices, 6/8 of the lines along one axis),
"half" (half the matrix along each axis). Eight coils, smooth random phase, noise as a share of the peak in each part of
a sample. All methods get the true coil maps, unless --maps: then ours estimate them, and the noise.

The others' weights (`benchmarks.kspace.peers`) are swept, and the best of the sweep in PSNR is shown, with the seconds
of that one run; ours choose theirs. PSNR and NRMSE of the magnitude inside the head. MRpro takes `pip install mrpro`.
"""

import time

import numpy as np
import torch
from torch.nn.functional import pad

from benchmarks.arguments import normalised, parser, row, stem, table, truths
from benchmarks.kspace.peers import PEERS, best_of_sweep
from invsr.operators.kspace import KSpaceMask
from invsr.operators.kspace_weights import partial_fourier, poisson_disc, random_mask
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.testing.kspace import simulate_kspace
from invsr.testing.metrics import evaluate, head_mask, peak
from invsr.volume import Volume

OURS = ("tv", "pnp", "unrolled")
METHODS = ("zero-filled", *PEERS, *OURS)


def scenes(shape, seed):
    """For each scene, the mask, the Fourier axes and the matrix."""
    flat, line, middle = (1, *shape[1:]), (1, shape[1], 1), [max(12, n // 8) for n in shape[1:]]
    lines = random_mask(line, 4, 12 / shape[1], torch.Generator().manual_seed(seed), axes=(1,))
    return {
        "poisson 4": (poisson_disc(flat, 4, middle, seed), (0, 1, 2), None),
        "poisson 8": (poisson_disc(flat, 8, middle, seed), (0, 1, 2), None),
        "lines 4": (lines, (0, 1), None),
        "partial": (partial_fourier(line, 0.75, 1), (0, 1), None),
        "half": (None, (0, 1, 2), [n // 2 for n in shape]),
    }


def phantom(side):
    """sigpy's three-dimensional phantom."""
    import sigpy

    return Volume.from_array(np.abs(sigpy.shepp_logan((side,) * 3)), 1.0, name="shepp_logan")


def embedded(raw, shape):
    """Samples and counts on the matrix of the truth, with zeros where k-space was cut off; intensities stay."""
    pads = [n for have, size in zip(raw.grid.shape[::-1], shape[::-1], strict=True) for n in around(have, size)]
    scale = float(np.sqrt(np.prod(shape) / raw.grid.size))
    return pad(raw.samples, pads) * scale, pad(raw.counts, pads)


def around(have, size):
    """Zeros before and after, index N // 2 on index N // 2."""
    before = size // 2 - have // 2
    return before, size - have - before


def by_us(method, raw, spacing, known):
    """The magnitude, the method's name, chi2 and seconds."""
    begun = time.perf_counter()
    result = reconstruct_raw(raw, method=method, spacing=spacing, **known)
    return result.volume.numpy(), method, f"{result.chi2:.2f}", time.perf_counter() - begun


def main():
    options = parser(__doc__, "volumes", "--crop", "--noise", "--seed", crop=64)
    options.add_argument("--scenes", nargs="+", help="[all]")
    options.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD", help="[all]")
    options.add_argument("--phantom", action="store_true", help="sigpy's Shepp-Logan phantom, too, of that many voxels")
    options.add_argument("--maps", action="store_true", help="ours estimate the coil maps, and the noise")
    args = options.parse_args()
    table(["volume", "scene", "method", "PSNR", "NRMSE", "chi2", "s"])
    volumes = truths(args.volumes, args.crop) if args.volumes or not args.phantom else []
    for volume in map(normalised, [*volumes, *([phantom(args.crop)] if args.phantom else [])]):
        truth = volume.numpy()
        mask, sigma = head_mask(truth), args.noise * peak(truth)
        for scene, (sampled, axes, matrix) in scenes(truth.shape, args.seed).items():
            if args.scenes and scene not in args.scenes:
                continue
            how = {"noise": args.noise, "seed": args.seed, "axes": axes}
            raw, maps, _ = simulate_kspace(volume, mask=sampled, matrix=matrix, **how)
            _, fine, _ = simulate_kspace(volume, **how)
            samples, counts = embedded(raw, truth.shape)
            known = {} if args.maps else {"maps": maps, "noise": sigma}
            for method in args.methods:
                if method in OURS:
                    found = by_us(method, raw, volume.grid.spacing.tolist(), known)
                elif method == "zero-filled":
                    begun = time.perf_counter()
                    folded = KSpaceMask(volume.grid, counts, fine, axes=axes).adjoint(samples)
                    found = folded[0, 0].abs().numpy(), method, "", time.perf_counter() - begun
                else:
                    data = (samples[0], counts, fine, axes)
                    found = best_of_sweep(PEERS[method], data, sigma, truth, mask, method)
                image, name, misfit, seconds = found
                scores = evaluate(image, truth, mask, quick=True)
                cells = [f"{scores['psnr']:.2f}", f"{scores['nrmse']:.4f}", misfit, f"{seconds:.1f}"]
                row([stem(volume), scene, name, *cells])


if __name__ == "__main__":
    main()
