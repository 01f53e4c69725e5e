"""Volumes: data that fit their grid, and what stays when they are replaced."""

import numpy as np
import torch
from volume_files import SHAPE, refuses, volume_of

from invsr.grid import Grid
from invsr.volume import Volume, require_signal


def test_data_are_kept_as_float32_and_replaced():
    grid = Grid(SHAPE, np.eye(4))
    volume = Volume(torch.ones(1, 1, *SHAPE, dtype=torch.int16), grid, "scan.nii", 5.0, 6.0, 4)
    assert volume.data.dtype == torch.float32
    other = volume.with_data(torch.zeros(1, 1, *SHAPE, dtype=torch.float64))
    assert other.data.dtype == torch.float32 and other.data.sum() == 0 and volume.data.sum() > 0
    assert (other.name, other.slice_thickness, other.slice_spacing, other.form_code) == ("scan.nii", 5.0, 6.0, 4)
    assert volume.to("meta").data.device.type == "meta" and volume.to("cpu").grid is grid


def test_another_grid_forgets_the_slices():
    fine = Grid((2, 2, 2), np.eye(4))
    moved = volume_of(slice_thickness=5.0, slice_spacing=6.0).with_data(torch.zeros(1, 1, 2, 2, 2), fine)
    assert moved.grid is fine and moved.slice_thickness is None and moved.slice_spacing is None


def test_numpy_gives_three_axes_even_of_a_traced_tensor():
    volume = Volume(torch.rand(1, 1, *SHAPE, requires_grad=True), Grid(SHAPE, np.eye(4)))
    assert volume.data.requires_grad and volume.numpy().shape == SHAPE


def test_data_must_fit_the_grid_and_be_real():
    grid = Grid(SHAPE, np.eye(4))
    refuses(r"a.nii: data of shape \(5, 6, 4\) do not fit Grid\(5x6x4", Volume, torch.zeros(SHAPE), grid, "a.nii")
    refuses("complex", Volume, torch.zeros(1, 1, *SHAPE, dtype=torch.complex64), grid)
    refuses("do not fit", volume_of().with_data, torch.zeros(1, 1, 2, 2, 2))


def test_signal_is_required_where_it_matters():
    volume = volume_of(name="scan.nii")
    require_signal(volume)
    refuses("scan.nii: every voxel is 3", require_signal, volume.with_data(0 * volume.data + 3))
