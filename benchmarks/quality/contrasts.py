"""Several contrasts of one head: alone, and together.

    python -m benchmarks.quality.contrasts T1.nii.gz T2.nii.gz FLAIR.nii.gz [--crop 96] [--scenes ...]
        [--aligned] [--out FOLDER | --leak]

PSNR inside the head, dB, of each contrast. Scenes: "directions" (slices across k, j, i), "axial" (all across k),
"guide" (the first contrast has voxels of 1 mm), "two" (the first two of "directions"), "noisy" and "thick" (as
"directions", the second contrast with 4 % noise, or slices twice as thick), "moved" (as "directions", the headers of
all but the first wrong by up to 10 mm and 10 degrees about each axis). Registration is on in "moved" alone. The mean
gain leaves out a guide. Methods: "tv" and "unrolled" see each scan alone; "joint tv, euclidean" and "joint tv, nuclear"
are the norms of `invsr.priors.JointTV`; "joint unrolled" is the network of all contrasts (--model).

With --aligned, the volumes are first registered to the first one, and resampled: what they are moved against each other
as they are stored is then no loss of a registration that finds it.

With --out, the scans and the volumes are written into that folder as well, for other tools to reconstruct; score their
results with `invsr evaluate`.

With --leak: balls of 5 mm that are in the last contrast only; of their contrast, the share that is recovered in the
last one, and what appears of it in the others.
"""

import time
import warnings

import numpy as np
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

import invsr
from benchmarks.arguments import normalised, parser, row, stem, table, truths
from benchmarks.quality.lesions import with_lesions
from invsr.errors import InvsrWarning
from invsr.motion.contrasts import align_contrasts
from invsr.operators.transforms import rigid_matrices
from invsr.pipeline.contrasts import reconstruct_contrasts
from invsr.pipeline.joint import JointTV, JointUnrolled
from invsr.testing.metrics import evaluate, head_mask

SCENES = ("directions", "axial", "guide", "two", "noisy", "thick", "moved")
ALONE = ("tv", "unrolled")
TOGETHER = {
    "joint tv, euclidean": JointTV(norm="euclidean"),
    "joint tv, nuclear": JointTV(norm="nuclear"),
    "joint unrolled": JointUnrolled(),
}
FARTHEST = 10.0  # mm and degrees about each axis


def simulated(scene, volumes, thickness, noise, seed):
    """The scans of a scene."""
    scans = []
    for n, volume in enumerate(volumes):
        axis = 2 if scene == "axial" else 2 - n
        here = {"slice_thickness": thickness, "axis": axis, "noise": noise, "seed": seed + n}
        here |= {"noise": 0.04} if scene == "noisy" and n == 1 else {}
        here |= {"slice_thickness": 2 * thickness} if scene == "thick" and n == 1 else {}
        here |= {"slice_thickness": 1.0} if scene == "guide" and n == 0 else {}
        scan = invsr.simulate(volume, **here)
        scans.append(moved(scan, volume.grid, np.random.default_rng(seed + n)) if scene == "moved" and n else scan)
    return scans


def moved(scan, grid, rng):
    """The scan with a header that is wrong by a rigid motion about the middle of the volume."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(rng.uniform(-FARTHEST, FARTHEST, 3))).as_matrix()
    matrix[:3, 3] = grid.centre + rng.uniform(-FARTHEST, FARTHEST, 3) - matrix[:3, :3] @ grid.centre
    return scan.with_data(scan.data, invsr.Grid(scan.grid.shape, matrix @ scan.grid.affine))


def aligned(volumes):
    """The volumes, resampled to where registration to the first one puts them, and how far that is, mm RMS."""
    fixed, found, distances = volumes[0], [volumes[0]], []
    head = np.argwhere(head_mask(fixed.numpy())) @ fixed.grid.affine[:3, :3].T + fixed.grid.affine[:3, 3]
    for one in volumes[1:]:
        given = fixed.data.float(), fixed.grid, one.data.float(), one.grid
        motion = torch.from_numpy(align_contrasts(*given, fixed.grid.centre).motion)
        matrix = rigid_matrices(motion, torch.from_numpy(fixed.grid.centre)).numpy()
        to_voxel = np.linalg.inv(matrix @ one.grid.affine) @ fixed.grid.affine
        data = affine_transform(one.numpy(), to_voxel, output_shape=fixed.grid.shape, order=5, mode="nearest")
        found.append(one.with_data(torch.from_numpy(data)[None, None].to(one.data), fixed.grid))
        shift = head @ matrix[:3, :3].T + matrix[:3, 3] - head
        distances.append(float(np.sqrt((shift**2).sum(1).mean())))
    return found, distances


def solved(scans, grid, method, methods, motion="none"):
    """The scans by a method: alone, or together."""
    if method in ALONE:
        return [invsr.reconstruct(scan, method=method, reference=grid) for scan in scans]
    return reconstruct_contrasts(scans, method=methods[method], reference=grid, motion=motion)


def leak(volumes, thickness, noise, seed, methods):
    """Lesions of the last contrast: recovered there, and what the others show of them, in shares of their contrast."""
    mask = head_mask(volumes[-1].numpy())
    spoilt, lesions = with_lesions(volumes[-1], mask, seed)
    lesions = [ball for ball, diameter, _ in lesions if diameter == 5.0]
    contrast = spoilt.numpy() - volumes[-1].numpy()
    peaks = [np.percentile(one.numpy(), 99.9) for one in volumes]
    table(["slices", "method", "recovered", *(f"leaks into {stem(one)}" for one in volumes[:-1])])
    for scene in ("directions", "axial"):
        pairs = [simulated(scene, [*volumes[:-1], last], thickness, noise, seed) for last in (volumes[-1], spoilt)]
        for method in (*ALONE, *methods):
            both = [solved(scans, volumes[0].grid, method, methods) for scans in pairs]
            changes = [(b.x - a.x)[0, 0].numpy() / peak for a, b, peak in zip(*both, peaks, strict=True)]
            shares = []
            for change in changes:
                each = [change[ball].mean() / (contrast[ball].mean() / peaks[-1]) for ball in lesions]
                shares.append(np.mean(each) if change is changes[-1] else np.mean(np.abs(each)))
            row([scene, method, f"{shares[-1]:.0%}", *(f"{one:.1%}" for one in shares[:-1])])


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed", "--out")
    arguments.add_argument("--scenes", nargs="*", default=SCENES, choices=SCENES)
    arguments.add_argument("--aligned", action="store_true")
    arguments.add_argument("--leak", action="store_true")
    arguments.add_argument("--methods", nargs="*", default=list(TOGETHER), choices=list(TOGETHER))
    arguments.add_argument("--model", default=JointUnrolled.model, help="weights of the network of all contrasts")
    options = arguments.parse_args()
    if options.out and options.leak:
        arguments.error("--leak writes no scans: leave --out out")
    methods = {name: TOGETHER[name] for name in options.methods}
    if "joint unrolled" in methods:
        methods["joint unrolled"] = JointUnrolled(model=options.model)
    warnings.simplefilter("ignore", InvsrWarning)
    volumes = [normalised(one) for one in truths(options.volumes, options.crop)]
    if options.aligned:
        volumes, distances = aligned(volumes)
        print("moved by", ", ".join(f"{one:.2f} mm" for one in distances), "to the first one\n")
    if options.leak:
        leak(volumes, options.thickness, options.noise, options.seed, methods)
        return
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for one in volumes:
            invsr.save(one, options.out / f"{stem(one)}.nii.gz")
    table(["scene", "method", *map(stem, volumes), "mean gain over tv alone", "seconds"])
    for scene in options.scenes:
        given = volumes[:2] if scene == "two" else volumes
        grid, masks = given[0].grid, [head_mask(one.numpy()) for one in given]
        noise_and_seed = options.noise, options.seed
        scans = simulated(scene, given, options.thickness, *noise_and_seed)
        right = (
            scans
            if scene != "moved"
            else simulated("directions", given, options.thickness, options.noise, options.seed)
        )
        if options.out:
            for one, scan in zip(given, scans, strict=True):
                invsr.save(scan, options.out / f"{scene}_{stem(one)}.nii.gz")
        base = None
        for method in (*ALONE, *methods):
            begun = time.perf_counter()
            # Alone, a scan lies where it lies.
            given_scans = right if method in ALONE else scans
            found = solved(given_scans, grid, method, methods, "stack" if scene == "moved" else "none")
            seconds = time.perf_counter() - begun
            scored = zip(found, given, masks, strict=True)
            scores = [
                evaluate(one.x[0, 0].numpy(), truth.numpy(), mask, quick=True)["psnr"] for one, truth, mask in scored
            ]
            base = base or scores
            gained = np.mean(np.subtract(scores, base)[1 if scene == "guide" else 0 :])
            cells = [f"{one:.2f}" for one in scores] + [""] * (len(volumes) - len(given))
            row([scene, method, *cells, f"{gained:+.2f}", f"{seconds:.0f}"])


if __name__ == "__main__":
    main()
