"""One set of weights over acquisitions: slice thickness, gap, profile and axis, noise, zero-filling.

    python -m benchmarks.quality.acquisitions [HIGH.nii.gz ...] [--crop 64] [--method cubic tv pnp unrolled deq]

PSNR inside the head and the slices' field of view, dB, means over the volumes. Slices have a Gaussian profile, lie
across the third axis and have 1 % noise where nothing else is said; "points" are boxcars of a tenth of their distance.
"worst" is the least over the volumes of the last method (unrolled) less the better one of TV and cubic interpolation.
Other names than those of methods are weights of unrolled solvers (mri-unrolled-fast, W.safetensors). Last table: what a
wrong slice profile costs the method `--wrong`, against the right one.
"""

import warnings

import numpy as np

import invsr
from benchmarks.arguments import normalised, parser, row, table, truths
from benchmarks.quality.zero_filling import WHOLE, filled
from invsr.errors import InvsrError, InvsrWarning
from invsr.testing.metrics import evaluate, head_mask

METHODS = ("cubic", "tv", "pnp", "deq", "unrolled")
THICKNESSES, GAPS = (2, 3, 4, 5, 6, 8, 12), (0.0, 0.2, 0.6)
# In the plane, the share of k-space that was measured of slices that are zero-filled by 1.5.
SHARE = 1 / 1.5
# What the method is told of Gaussian slices: profile, width over the true one, words.
WRONG = (("boxcar", 1.0, "boxcar"), ("gaussian", 1.2, "20 % wider"), ("gaussian", 0.8, "20 % narrower"))


def acquisitions():
    """In words, and as thickness, gap as a share of it, profile, axis, noise, and whether slices are zero-filled."""
    base = {"thickness": 4, "gap": 0.0, "profile": "gaussian", "axis": 2, "noise": 0.01, "zeros": False}
    for gap in GAPS:
        for thickness in THICKNESSES:
            yield f"{thickness} voxels, gap {gap:.0%}", base | {"thickness": thickness, "gap": gap}
    for thickness in (4, 6):
        for noise in (0.005, 0.03):
            yield f"{thickness} voxels, noise {noise:.1%}", base | {"thickness": thickness, "noise": noise}
    for thickness in (3, 6):
        for profile in ("boxcar", "slr"):
            yield f"{thickness} voxels, {profile}", base | {"thickness": thickness, "profile": profile}
        points = {"thickness": 0.1 * thickness, "gap": 9.0, "profile": "boxcar"}
        yield f"points, {thickness} voxels apart", base | points
    for axis in (0, 1):
        yield f"4 voxels, axis {axis + 1}", base | {"axis": axis}
    for thickness in (3, 5):
        yield f"{thickness} voxels, zero-filled", base | {"thickness": thickness, "zeros": True}


def simulated(truth, seed, thickness, gap, profile, axis, noise, zeros):
    """The scan of a volume with a peak of 1."""
    slices = {"slice_thickness": thickness, "gap": gap * thickness, "slice_profile": profile, "axis": axis}
    if not zeros:
        return invsr.simulate(truth, noise=noise, seed=seed, **slices)
    scan = invsr.simulate(truth, **slices)
    data = filled(scan.numpy(), (SHARE, SHARE), noise, False, np.random.default_rng(seed))
    return scan.with_data(data[None, None] / WHOLE)


def psnr(truth, mask, scan, method, thickness, profile):
    slices = {"slice_thickness": thickness, "slice_profile": profile}
    chosen = method if method in METHODS else invsr.methods.Unrolled(model=method)
    try:
        found = invsr.reconstruct(scan, method=chosen, reference=truth.grid, **slices)
    except InvsrError:  # an equilibrium takes no masked data: slices that are taken for padding
        return float("nan")
    inside = mask & scan.grid.contains(truth.grid.points())
    return evaluate(found.x[0, 0].numpy(), truth.numpy(), inside, quick=True)["psnr"]


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--seed", crop=64)
    arguments.add_argument("--method", nargs="+", default=METHODS)
    arguments.add_argument("--wrong", default="unrolled", help="method of the last table")
    options = arguments.parse_args()
    warnings.simplefilter("ignore", InvsrWarning)
    volumes = [normalised(volume) for volume in truths(options.volumes, options.crop)]
    masks = [head_mask(truth.numpy()) for truth in volumes]
    methods = list(dict.fromkeys(["cubic", "tv", *options.method]))

    table(["slices", *methods, "worst"])
    for words, how in acquisitions():
        found = []
        for truth, mask in zip(volumes, masks, strict=True):
            scan = simulated(truth, options.seed, **how)
            found.append([psnr(truth, mask, scan, method, how["thickness"], how["profile"]) for method in methods])
        worst = float(np.min([one[-1] - max(one[:2]) for one in found]))
        means = ["refused" if np.isnan(mean) else f"{mean:.2f}" for mean in np.mean(found, 0)]
        row([words, *means, "" if np.isnan(worst) else f"{worst:+.2f}"])
    print()
    table(["the slices are", "the method is told", "against the right profile, dB"])
    for told, width, words in WRONG:
        lost = []
        for truth, mask in zip(volumes, masks, strict=True):
            scan = invsr.simulate(truth, slice_thickness=4, axis=2, noise=0.01, seed=options.seed)
            right = psnr(truth, mask, scan, options.wrong, 4, "gaussian")
            lost.append(psnr(truth, mask, scan, options.wrong, width * 4, told) - right)
        row(["gaussian, 4 voxels", words, f"{np.mean(lost):+.2f}"])


if __name__ == "__main__":
    main()
