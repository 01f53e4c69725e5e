"""The phantom of the command line's tests, and a scan of it."""

import pytest

import invsr
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture(scope="module")
def phantom():
    grid = centred_grid((40, 36, 32), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=40.0), grid, "phantom.nii.gz")


@pytest.fixture
def scan(tmp_path, phantom):
    path = tmp_path / "scan.nii.gz"
    invsr.save(invsr.simulate(phantom, slice_thickness=4.0, axis=2, noise=0.02), path)
    return path
