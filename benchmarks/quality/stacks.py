"""Several thick-slice stacks of one volume, still or moving: the gain over the mean of their cubic interpolations.

    python -m benchmarks.quality.stacks [HIGH.nii.gz ...] [--scenes orthogonal two oblique ...] [--methods tv pnp]
                                        [--thickness 4] [--noise 0.01] [--crop SIDE]

With --crop, a ball in the middle of the volume.

Scenes: "orthogonal" (three stacks), "two", "oblique" (the second and third turned by 15 degrees), "stacks" (each
stack but the first moved by up to 5 mm and 5 degrees along and about each axis), "slices" (slices moved by a
first-order autoregressive walk of 2 mm and 2 degrees RMS), "interleaved" (the same, even slices before odd ones),
"bad" (as "slices", and every tenth slice darkened to 30 % or swapped with one far away), "shaded" (as "orthogonal",
the second and third multiplied by smooth fields that differ by up to 30 %).

Stacks are simulated by cubic spline interpolation of the volume at half-millimetre steps across the slices (scipy), a
Gaussian profile and white noise; none of the package's operators. PSNR inside the head, peak at its 99.9th
percentile. "left" is the motion that is left after removing one rigid motion common to all: RMS over points of
the head, mm. "found" is recall and precision of the bad slices.
"""

import time

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

import invsr
from benchmarks.arguments import parser, row, table, truths
from invsr.examples import crop
from invsr.testing.metrics import evaluate, head_mask

SCENES = ("orthogonal", "two", "oblique", "stacks", "slices", "interleaved", "bad", "shaded")
MOTION = {"stacks": "stack", "slices": "slice", "interleaved": "slice", "bad": "slice"}


def ball(volume, side=None):
    """The volume as an array with a peak of 1, and its grid; with `side`, a ball in the central cube of that side."""
    truth, grid = volume.numpy().astype(np.float64), volume.grid
    truth = truth / np.percentile(truth[truth > 0], 99.9)
    if side:
        grid = crop(volume, side).grid
        low = np.round(volume.grid.to_voxel(grid.origin)).astype(int)
        truth = truth[tuple(slice(a, a + n) for a, n in zip(low, grid.shape, strict=True))]
        # Anatomy that ends at the faces of the field of view would be another problem.
        truth = truth * (np.linalg.norm(grid.points() - grid.centre, axis=-1) < side / 2 - 4)
    return truth, grid


def stack_grid(grid, axis, thickness, turn=None):
    """Slices across an axis of `grid`, turned about its middle by a rotation vector."""
    spacing = grid.spacing.copy()
    spacing[axis] = thickness
    found = grid.coarsen(tuple(spacing))
    if turn is None:
        return found
    rotation = Rotation.from_rotvec(turn).as_matrix()
    affine = found.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = grid.centre + rotation @ (affine[:3, 3] - grid.centre)
    return invsr.Grid(found.shape, affine)


def moved(motion, points, centre):
    turned = Rotation.from_rotvec(motion[:3]).apply((points - centre).reshape(-1, 3))
    return turned.reshape(points.shape) + centre + motion[3:]


def measure(coefficients, grid, stack, axis, thickness, motion, noise, rng):
    """A stack of slices, each read where its motion puts it."""
    offsets = np.arange(-1.6 * thickness, 1.6 * thickness + 1e-9, 0.5)
    weights = np.exp(-4 * np.log(2) * (offsets / thickness) ** 2)
    points = np.moveaxis(stack.points(), axis, 0)
    out = np.zeros(points.shape[:3])
    for n, places in enumerate(points):
        seen = np.zeros(places.shape[:2])
        for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
            at = moved(motion[n], places + offset * stack.directions[:, axis], grid.centre)
            inside = grid.contains(at)
            values = ndimage.map_coordinates(
                coefficients, np.moveaxis(grid.to_voxel(at), -1, 0), order=3, mode="nearest", prefilter=False
            )
            out[n] += weight * values * inside
            seen += weight * inside
        out[n] = np.where(seen > 0.5, out[n] / np.maximum(seen, 0.5), 0)
    data = np.moveaxis(out, 0, axis) + noise * rng.normal(size=stack.shape)
    return torch.from_numpy(data.astype(np.float32))[None, None]


def walk(n, rng, mm=2.0, degrees=2.0, memory=0.85):
    """Autoregressive motion of n slices, RMS lengths as given."""
    steps = rng.normal(size=(n, 6))
    path = np.empty((n, 6))
    path[0] = steps[0]
    for k in range(1, n):
        path[k] = memory * path[k - 1] + np.sqrt(1 - memory**2) * steps[k]
    return path * np.repeat([np.radians(degrees), mm], 3) / np.sqrt(3)


def scene(name, truth, grid, thickness, noise, seed):
    """Scans, their motion, and which slices are bad."""
    rng = np.random.default_rng(seed)
    coefficients = ndimage.spline_filter(truth, order=3, mode="nearest")
    scans, motions, bad = [], [], []
    for n, axis in enumerate((2, 1, 0)[: 2 if name == "two" else 3]):
        turn = None
        if name == "oblique" and n:
            turn = np.radians(15) * np.roll([1.0, 0.0, 0.0], n)
        stack = stack_grid(grid, axis, thickness, turn)
        n_slices = stack.shape[axis]
        motion = np.zeros((n_slices, 6))
        if name == "stacks" and n:
            motion += np.concatenate([np.radians(rng.uniform(-5, 5, 3)), rng.uniform(-5, 5, 3)])
        if MOTION.get(name) == "slice":
            motion = walk(n_slices, rng)
        if name == "interleaved":
            motion[[*range(0, n_slices, 2), *range(1, n_slices, 2)]] = motion.copy()
        data = measure(coefficients, grid, stack, axis, thickness, motion, noise, rng)
        if name == "shaded" and n:
            place = (stack.points() - grid.centre) / (np.array(grid.shape) * grid.spacing / 2)
            data = data * torch.from_numpy(1 + 0.3 * np.sin(place @ rng.uniform(-1, 1, 3))).float()
        wrong = []
        if name == "bad":
            rows = data[0, 0].movedim(axis, 0)
            before = rows.clone()
            wrong = rng.choice(np.arange(n_slices // 6, n_slices - n_slices // 6), round(n_slices / 10), replace=False)
            for k, s in enumerate(wrong):
                rows[s] = 0.3 * before[s] if k % 2 else before[(s + n_slices // 3) % n_slices]
        scans.append(invsr.Volume(data, stack, f"stack {n + 1}", thickness))
        motions.append(motion)
        bad.append(set(map(int, wrong)))
    return scans, motions, bad


def left(found, motions, bad, scans, grid):
    """RMS distance, mm, between where points of the head were and are said to be, but for one rigid motion."""
    said, true = [], []
    for one, motion, wrong, scan in zip(found.scans, motions, bad, scans, strict=True):
        axis = scan.grid.through_plane
        points, rows = np.moveaxis(scan.grid.points(), axis, 0), np.moveaxis(scan.numpy(), axis, 0)
        for s in range(len(motion)):
            if s in wrong or s in one.rejected:
                continue
            some = points[s][rows[s] > 0.1][::50]
            said.append(moved(one.motion[s], some, found.centre))
            true.append(moved(motion[s], some, grid.centre))
    said, true = np.concatenate(said), np.concatenate(true)
    about = said.mean(0), true.mean(0)
    best, _ = Rotation.align_vectors(true - about[1], said - about[0])
    away = best.apply(said - about[0]) + about[1] - true
    # The volume that goes with it, moved back to where the truth is.
    return np.sqrt((away**2).sum(1).mean()), (best, about)


def score(solution, truth, grid, inside, back=None):
    """PSNR on the truth's grid; `back` takes the solution's positions to the truth's."""
    x = solution.x[0, 0].numpy().astype(np.float64)
    points = grid.points()
    if back is not None:
        best, about = back
        points = best.inv().apply((points - about[1]).reshape(-1, 3)).reshape(points.shape) + about[0]
    at = solution.grid.to_voxel(points)
    if np.abs(at - np.round(at)).max() < 1e-3:
        i, j, k = np.moveaxis(np.round(at).astype(int), -1, 0)
        found = x[i, j, k]
    else:
        found = ndimage.map_coordinates(x, np.moveaxis(at, -1, 0), order=3, mode="nearest")
    return evaluate(found, truth, inside, quick=True)["psnr"]


def main():
    arguments = parser(__doc__, "volumes", "--crop", "--thickness", "--noise", "--seed", seed=1)
    arguments.add_argument("--scenes", nargs="+", default=SCENES, choices=SCENES)
    arguments.add_argument("--methods", nargs="+", default=["tv", "pnp"])
    options = arguments.parse_args()
    table(["volume", "scene", "method", "motion", "PSNR", "gain", "left, mm", "found", "seconds", "iterations"])
    for volume in truths(options.volumes):
        truth, grid = ball(volume, options.crop)
        inside = head_mask(truth)
        for name in options.scenes:
            scans, motions, bad = scene(name, truth, grid, options.thickness, options.noise, options.seed)
            base = None
            runs = [("cubic", "none")]
            for method in options.methods:
                runs += [(method, "none")] * (name not in MOTION) + [(method, MOTION.get(name, "stack"))]
            for method, motion in runs:
                start = time.perf_counter()
                solution = invsr.reconstruct(scans, method=method, motion=motion, reference=grid)
                seconds = time.perf_counter() - start
                away, back, figures = "", None, ""
                if motion != "none":
                    distance, back = left(solution.motion, motions, bad, scans, grid)
                    away = f"{distance:.2f}"
                    if name == "bad":  # how many were found, of how many; and of how many that were left out
                        said = [set(one.rejected) for one in solution.motion.scans]
                        hits = sum(len(a & b) for a, b in zip(said, bad, strict=True))
                        figures = f"{hits}/{sum(map(len, bad))}, {hits}/{sum(map(len, said))}"
                psnr = score(solution, truth, grid, inside, back)
                base = base or psnr
                scores = [f"{psnr:.2f}", f"{psnr - base:+.2f}", away, figures]
                row([volume.name, name, method, motion, *scores, f"{seconds:.0f}", len(solution.history)])


if __name__ == "__main__":
    main()
