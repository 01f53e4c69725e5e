"""A phantom and a scan of it, and smaller ones for networks."""

import pytest

import invsr
from invsr.testing.phantoms import centred_grid, shapes


@pytest.fixture
def unmoved(monkeypatch):
    """No look at whether packages of slices moved: it takes most of the time, and only a note comes of it."""
    monkeypatch.setattr("invsr.pipeline.run.with_packages_noted", lambda scan, grid: scan)


@pytest.fixture(scope="module")
def truth():
    grid = centred_grid((40, 36, 32), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=40.0), grid)


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)


@pytest.fixture(scope="module")
def small_truth():
    """For networks, whose time grows with the number of voxels."""
    grid = centred_grid((28, 24, 24), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=30.0), grid)


@pytest.fixture(scope="module")
def small_scan(small_truth):
    return invsr.simulate(small_truth, slice_thickness=4.0, axis=2, noise=0.01)
