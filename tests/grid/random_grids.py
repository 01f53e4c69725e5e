"""Grids for tests: drawn by a seed, or along the world axes."""

import numpy as np

from invsr.grid import Grid

SEEDS = range(20)


def rotation(rng):
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def random_grid(seed, turn=rotation):
    """Oblique, permuted, flipped, odd and even, sometimes one voxel thin."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    axes = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine[:3, :3] = turn(rng) @ axes * rng.uniform(0.3, 7, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    shape = rng.integers(2, 12, 3)
    if seed % 4 == 0:
        shape[rng.integers(3)] = 1
    return Grid(shape, affine)


def upright(rng):
    return np.eye(3)


def diagonal(*spacing, shape=(4, 5, 6), origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)
