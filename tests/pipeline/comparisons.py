"""How far results lie from the truth, and the same scan stored otherwise."""

import invsr
from invsr.grid import Grid


def error(solution, truth):
    return float((solution.x - truth.data).square().mean().sqrt())


def reordered(volume, axes, flips):
    """The same volume in world space, its array axes permuted and reversed."""
    data = volume.data[0, 0].permute(*axes)
    affine = volume.grid.affine.copy()
    affine[:3, :3] = affine[:3, list(axes)]
    for n in flips:
        data = data.flip(n)
        affine[:3, 3] += affine[:3, n] * (data.shape[n] - 1)
        affine[:3, n] *= -1
    return invsr.Volume(data[None, None].contiguous(), Grid(data.shape, affine))
