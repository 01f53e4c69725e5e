"""Pictures: sides, sizes and slices where they belong."""

import numpy as np
import pytest
import torch

import invsr
from invsr.grid import Grid
from invsr.plot import bright_centre, compare


def images(figure):
    """The drawn arrays, row by row."""
    panels = [axes for axes in figure.axes if axes.images]
    return [np.asarray(axes.images[0].get_array()) for axes in panels], panels


@pytest.mark.parametrize("flip", [1, -1])
def test_sides_are_the_patients_not_the_arrays(flip):
    # Bright at the right, front and top of the patient, whichever way the array runs.
    affine = np.diag([flip * 1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 0 if flip > 0 else 19
    grid = Grid((20, 16, 8), affine)
    data = torch.from_numpy((grid.points() / np.array([19, 15, 14])).astype(np.float32))
    for axis, (sagittal, coronal, axial) in enumerate(
        [(None, "left", "left"), ("right", None, "top"), ("top", "top", None)]
    ):
        volume = invsr.Volume(data[..., axis].contiguous()[None, None], grid)
        found, panels = images(compare({"one": volume}))
        for image, side in zip(found, (sagittal, coronal, axial), strict=True):
            brightest = {
                None: None,
                "left": image[:, 0].mean() > image[:, -1].mean() + 0.5,
                "right": image[:, -1].mean() > image[:, 0].mean() + 0.5,
                "top": image[0].mean() > image[-1].mean() + 0.5,
            }[side]
            assert brightest is not False
        labels = [{text.get_text(): text.get_position()[0] for text in panel.texts} for panel in panels]
        assert labels[0]["P"] < labels[0]["A"] and labels[1]["R"] < labels[1]["L"] and labels[2]["R"] < labels[2]["L"]


def test_aspect_is_that_of_the_body_and_thick_slices_look_thick():
    grid = Grid((30, 20, 4), np.diag([1.0, 1.0, 5.0, 1.0]))
    volume = invsr.Volume(torch.rand(1, 1, 30, 20, 4), grid)
    (sagittal, coronal, axial), _ = images(compare({"one": volume}))
    assert sagittal.shape == (40, 40) and coronal.shape == (40, 60) and axial.shape == (40, 60)
    assert all((block == block[0]).all() for block in np.split(coronal, 4))  # 5 mm slices, 0.5 mm picture


def test_cuts_go_through_the_bright_part():
    data = torch.zeros(1, 1, 10, 10, 10)
    data[..., 6:9, 1:3, 4] = 1.0
    grid = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(bright_centre(invsr.Volume(data, grid)), [14, 3, 8])
