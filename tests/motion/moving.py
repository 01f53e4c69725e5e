"""Stacks of a phantom, moving, and what registration is told of them."""

import torch

import invsr
from invsr.motion.align import RegisteredScan
from invsr.operators import Slices
from invsr.operators.scan_model import slice_profile_of

SIDE = 40


def scan_of(truth, axis=2, motion=None, gain=1.0, noise=0.005, thickness=4.0, seed=0):
    """A stack of slices of the phantom, each where its motion puts it."""
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = thickness
    grid = truth.grid.coarsen(spacing)
    n = grid.shape[axis]
    motion = torch.zeros(n, 6, dtype=torch.float64) if motion is None else motion
    A = Slices(truth.grid, grid, slice_profile_of("gaussian", thickness), motion, centre=truth.grid.centre)
    data = A(truth.data)
    data = gain * data + noise * torch.randn(data.shape, generator=torch.Generator().manual_seed(seed))
    return invsr.Volume(data, grid, f"stack {axis}", thickness)


def known(volume, truth):
    n = volume.grid.shape[volume.grid.through_plane]
    return RegisteredScan(
        data=volume.data,
        grid=volume.grid,
        profile=slice_profile_of("gaussian", 4.0),
        axis=volume.grid.through_plane,
        mask=None,
        motion=torch.zeros(n, 6, dtype=torch.float64),
        centre=torch.from_numpy(truth.grid.centre),
        weights=torch.ones(n, dtype=torch.float64),
        order=torch.arange(n),
        bias=torch.zeros(9, dtype=torch.float64),
    )
