"""Scans that are unusual but usable give a usable volume; the others a clear error. Every method, every solver."""

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import UNet
from invsr.noise.estimation import estimate_sigma
from invsr.priors import Denoiser
from invsr.testing.phantoms import centred_grid, shapes

SOLVERS = ("hqs", "admm", "pgd", "red")
ROUTES = ("cubic", "tikhonov", "tv", *SOLVERS)
GRID = centred_grid((16, 14, 12), 1.0)


def box(x, sigma):
    """A mean over neighbours, the more of it the noisier the image."""
    share = sigma / (sigma + 0.05)
    return x + share * (torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False) - x)


def untrained():
    torch.manual_seed(0)
    return GradientStep(UNet(dim=3, channels=(4, 8), activation="elu"))


def reconstruct(scan, route, network=box, **options):
    if route not in SOLVERS:
        return invsr.reconstruct(scan, method=route, **options)
    denoiser = Denoiser(network, dim=3, bfloat16=False)  # symmetries and cropping as they come
    return invsr.reconstruct(scan, method="pnp", solver=route, denoiser=denoiser, **options)


def require_sensible(solution, scan):
    low, high = float(scan.data.min()), float(scan.data.max())
    x = solution.x
    assert bool(x.isfinite().all()) and np.isfinite([solution.chi2, solution.gain, solution.sigma]).all()
    assert low - (high - low) < float(x.min()) and float(x.max()) < high + (high - low)


def first_slices(scan, n):
    return invsr.Volume(scan.data[..., :n], Grid((*scan.grid.shape[:2], n), scan.grid.affine))


@pytest.fixture(scope="module")
def truth():
    return invsr.Volume(shapes(GRID, n_samples=8, size=16.0), GRID)


@pytest.fixture(scope="module")
def scan(truth):
    return invsr.simulate(truth, slice_thickness=3.0, axis=2, noise=0.02)


def with_zeroed(scan, slices):
    data = scan.data.clone()
    data[..., slices] = 0
    return scan.with_data(data)


def one_voxel(scan):
    data = torch.zeros_like(scan.data)
    data[0, 0, 8, 7, 2] = 1.0
    return scan.with_data(data)


def nearly_constant(scan):
    data = torch.ones_like(scan.data)
    data[0, 0, 8, 7, 2] = 1.5
    return scan.with_data(data)


UNUSUAL = {
    "zeroed slices": lambda scan: with_zeroed(scan, slice(0, 2)),
    "all slices but one zeroed": lambda scan: with_zeroed(scan, slice(1, None)),
    "negative values": lambda scan: scan.with_data(scan.data - 0.5),
    "all values negative": lambda scan: scan.with_data(-scan.data.abs() - 0.1),
    "one bright voxel": one_voxel,
    "constant but for one voxel": nearly_constant,
    "two slices": lambda scan: first_slices(scan, 2),
    "three slices": lambda scan: first_slices(scan, 3),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_scans(scan, name, route):
    found = UNUSUAL[name](scan)
    solution = reconstruct(found, route)
    require_sensible(solution, found)
    assert solution.grid.shape == (16, 14, 3 * found.grid.shape[2])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["zeroed slices", "negative values", "two slices"])
def test_unusual_scans_with_a_network(scan, name, solver):
    found = UNUSUAL[name](scan)
    require_sensible(reconstruct(found, solver, untrained(), max_iter=4), found)


@pytest.mark.parametrize("route", ROUTES)
def test_data_without_noise(truth, route):
    # A drawing of flat pieces: the estimate is zero, and a zero must not be divided by.
    x, y, z = np.meshgrid(*[np.arange(n) for n in (32, 30, 6)], indexing="ij")
    drawing = 1.0 * ((x > 8) & (x < 20) & (y > 6)) + 0.5 * ((y > 15) & (z > 2))
    clean = invsr.Volume(torch.from_numpy(drawing)[None, None], Grid((32, 30, 6), np.diag([1.0, 1.0, 3.0, 1.0])))
    assert estimate_sigma(clean.data, axes=(0, 1)) == 0.0
    solution = reconstruct(clean, route, **({} if route == "cubic" else {"max_iter": 30}))
    require_sensible(solution, clean)
    assert abs(solution.gain - 1) < 0.05
    smooth = invsr.simulate(truth, slice_thickness=3.0, axis=2)
    require_sensible(reconstruct(smooth, route), smooth)


@pytest.mark.parametrize("factor", [1e6, 1e-6, 1e-30])
@pytest.mark.parametrize("route", ROUTES)
def test_intensity_units_do_not_matter(scan, route, factor):
    plain = reconstruct(scan, route)
    scaled = reconstruct(scan.with_data(scan.data * factor), route)
    torch.testing.assert_close(scaled.x / factor, plain.x, rtol=0, atol=1e-3)
    assert scaled.sigma / factor == pytest.approx(plain.sigma, rel=1e-3)
    assert scaled.gain == pytest.approx(plain.gain, abs=1e-3)


@pytest.mark.parametrize("route", ROUTES)
def test_unusable_scans(scan, route):
    def refuses(found, message):
        with pytest.raises(InvsrError, match=message):
            reconstruct(found, route)

    refuses(first_slices(scan, 1), "volume: has a single slice: at least two")
    for value in (0.0, 3.0):
        refuses(scan.with_data(torch.full_like(scan.data, value)), f"volume: every voxel is {value:g}")
    for value in (np.nan, np.inf, -np.inf):
        data = scan.data.clone()
        data[0, 0, 3, 4, :2] = value
        refuses(scan.with_data(data), "volume: 2 of its voxels are NaN or infinite")
