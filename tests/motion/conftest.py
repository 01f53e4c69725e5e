"""The phantom of all tests of motion."""

import pytest
import torch
from moving import SIDE
from scipy.ndimage import gaussian_filter

import invsr
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture(scope="module")
def truth():
    grid = centred_grid((SIDE,) * 3)
    # Without what three stacks of 4 mm slices cannot show: motion is to be told from its effects alone.
    smooth = gaussian_filter(shapes(grid, size=SIDE - 4.0, n_samples=128)[0, 0].numpy(), 1.5)
    return invsr.Volume(torch.from_numpy(smooth)[None, None], grid, "phantom")
