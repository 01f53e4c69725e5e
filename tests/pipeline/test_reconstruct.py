"""The whole job in Python: geometry, likelihoods, weights, several scans, and what a Solution says of itself."""

import math

import numpy as np
import pytest
import torch
from comparisons import error, reordered

import invsr
from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.pipeline import memory
from invsr.solvers import Status
from invsr.testing.phantoms import centred_grid


@pytest.mark.parametrize("gap, axis", [(0.0, 2), (0.7, 1), (2.0, 0)])
def test_simulation_is_a_gaussian_mean_of_slices_from_the_first_face(truth, gap, axis):
    # Written again from the definition: centres every step from the outer face, weights summing to 1 inside.
    step, thickness = 3.3 + gap, 3.3
    low = invsr.simulate(truth, slice_thickness=thickness, gap=gap, axis=axis)
    size = truth.grid.shape[axis]
    centres = (np.arange(int(size / step)) + 0.5) * step - 0.5
    weights = np.exp(-0.5 * ((np.arange(size) - centres[:, None]) / (thickness / 2.3548200450309493)) ** 2)
    weights /= weights.sum(1, keepdims=True)
    expected = np.moveaxis(np.tensordot(weights, truth.numpy(), (1, axis)), 0, axis)
    assert low.grid.shape == expected.shape
    index = [0.0, 0.0, 0.0]
    index[axis] = centres[0]
    np.testing.assert_allclose(low.grid.origin, truth.grid.to_world(index), atol=1e-9)
    # Up to the outer faces the sum over voxels and the integral over the profile differ: 0.5 % of the range.
    np.testing.assert_allclose(low.numpy(), expected, atol=5e-3)
    inner = [slice(None)] * 3
    inner[axis] = slice(2, -2)
    np.testing.assert_allclose(low.numpy()[tuple(inner)], expected[tuple(inner)], atol=2e-3)


@pytest.mark.parametrize("method", ["cubic", "tikhonov", "tv"])
def test_better_or_equal_to_cubic_and_faithful(truth, scan, method):
    solution = invsr.reconstruct(scan, method=method, reference=truth.grid)
    cubic = invsr.reconstruct(scan, method="cubic", reference=truth.grid)
    assert solution.status is Status.CONVERGED
    assert solution.grid == truth.grid and solution.volume.grid == truth.grid
    assert error(solution, truth) <= error(cubic, truth) + 1e-7
    if method != "cubic":
        assert 0.7 < solution.chi2 < 1.3
        assert abs(solution.gain - 1) < 0.01
        assert solution.remarks() == []
        assert 0.85 * 0.011 < solution.sigma < 1.15 * 0.011  # 1 % of the phantom's 1.1


@pytest.mark.parametrize("axes, flips", [((1, 2, 0), (0,)), ((2, 0, 1), (1, 2)), ((0, 1, 2), (0, 1, 2))])
@pytest.mark.parametrize("method", ["cubic", "tv"])
def test_axis_order_and_direction_do_not_matter(truth, scan, axes, flips, method):
    plain = invsr.reconstruct(scan, method=method, reference=truth.grid, noise=0.011)
    other = invsr.reconstruct(reordered(scan, axes, flips), method=method, reference=truth.grid, noise=0.011)
    # Forward differences are not symmetric under reversal: TV moves by less than its own error. Cubic does not.
    assert float((plain.x - other.x).abs().mean()) < (2e-3 if method == "tv" else 1e-6)
    same = invsr.reconstruct(reordered(scan, axes, ()), method=method, reference=truth.grid, noise=0.011)
    assert float((plain.x - same.x).abs().max()) < 1e-3


def test_ramp_stays_in_place_on_an_oblique_reference(scan):
    angle = math.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    small = centred_grid((26, 24, 22), 1.0)
    target = Grid(small.shape, turn @ small.affine)
    direction = torch.tensor([0.4, -0.3, 0.5], dtype=torch.float64)

    def ramp(grid):
        return torch.from_numpy(grid.points()).matmul(direction)[None, None].float()

    sloped = invsr.Volume(ramp(scan.grid) + 40, scan.grid)
    # The reference covers part of the scan only: slices and pixels outside it do not count.
    for method, tolerance in (("cubic", 2e-2), ("tikhonov", 0.25), ("tv", 0.25)):
        weight = {} if method == "cubic" else {"lam": 1e-4}
        found = invsr.reconstruct(sloped, method=method, reference=target, noise=0.05, **weight)
        inner = (slice(None), slice(None), *(slice(7, -7),) * 3)
        assert float((found.x - ramp(target) - 40)[inner].abs().max()) < tolerance


@pytest.mark.usefixtures("unmoved")
def test_pixels_larger_than_the_target(truth):
    low = invsr.simulate(truth, slice_thickness=3.0, axis=2, in_plane_factor=2.0, noise=0.01)
    assert low.grid.shape == (20, 18, 10)
    cubic = error(invsr.reconstruct(low, method="cubic", reference=truth.grid), truth)
    for in_plane in ("kspace", "gaussian"):
        solution = invsr.reconstruct(low, reference=truth.grid, in_plane=in_plane)
        assert solution.status is Status.CONVERGED and 0.7 < solution.chi2 < 1.3
        if in_plane == "kspace":  # the model the data came from
            assert error(solution, truth) < 0.97 * cubic


def test_several_scans_of_unequal_noise(truth):
    scans = [
        invsr.simulate(truth, slice_thickness=4.0, axis=axis, noise=noise, seed=axis)
        for axis, noise in ((0, 0.01), (1, 0.05), (2, 0.02))
    ]
    one = invsr.reconstruct(scans[:1], method="tv", reference=truth.grid)
    three = invsr.reconstruct(scans, method="tv", reference=truth.grid)
    assert 0.7 < three.chi2 < 1.3
    assert error(three, truth) < 0.75 * error(one, truth)


def test_rician_likelihood_removes_the_floor(truth):
    dim = truth.with_data(0.15 * truth.data)
    scan = invsr.simulate(dim, slice_thickness=4.0, axis=2, noise=0.3, noise_model="rician")
    sigma = 0.3 * float(np.percentile(dim.numpy()[dim.numpy() > 0], 99.9))
    found = {
        model: invsr.reconstruct(scan, reference=truth.grid, noise=sigma, noise_model=model)
        for model in ("gaussian", "rician")
    }
    assert error(found["rician"], dim) < 0.7 * error(found["gaussian"], dim)


@pytest.mark.parametrize("model", ["huber", "l1"])
def test_robust_likelihoods_forgive_outliers(truth, scan, model):
    hit = torch.rand(scan.data.shape, generator=torch.Generator().manual_seed(0)) < 0.01
    spoiled = scan.with_data(torch.where(hit, torch.tensor(1.5), scan.data))
    fixed = {"reference": truth.grid, "noise": 0.011, "lam": 0.002, "max_iter": 80}
    plain = invsr.reconstruct(spoiled, **fixed)
    robust = invsr.reconstruct(spoiled, noise_model=model, **fixed)
    assert error(robust, truth) < 0.8 * error(plain, truth)


@pytest.mark.parametrize("method", ["tikhonov", "tv", "unrolled"])
def test_data_outside_the_mask_do_not_count(small_scan, method):
    mask = small_scan.with_data(torch.ones_like(small_scan.data))
    mask.data[:, :, 18:] = 0
    spoiled = small_scan.with_data(torch.where(mask.data == 0, 1000 * small_scan.data, small_scan.data))
    options = {"method": method, "masks": mask, "spacing": 1.0, "uncertainty": "bootstrap", "n_samples": 2}
    clean, found = (invsr.reconstruct(one, **options) for one in (small_scan, spoiled))
    torch.testing.assert_close(found.x, clean.x)
    torch.testing.assert_close(found.std, clean.std)
    assert found.chi2 == pytest.approx(clean.chi2) and found.chi2 < 2
    outside = found.x == 0
    assert bool(outside[..., 22:, :, :].all()) and bool((found.std[outside] == 0).all())


def test_isotropic_scan_is_denoised(truth):
    noisy = truth.with_data(
        truth.data + 0.03 * torch.randn(truth.data.shape, generator=torch.Generator().manual_seed(0))
    )
    found = invsr.reconstruct(noisy)
    assert found.grid == truth.grid
    assert error(found, truth) < 0.6 * 0.03


def test_remarks_say_what_is_doubtful(truth, scan):
    assert "chi2 is" in " ".join(invsr.reconstruct(scan, reference=truth.grid, lam=0.3).remarks())
    stopped = invsr.reconstruct(scan, method="tv", reference=truth.grid, max_iter=2)
    assert stopped.status is Status.MAX_ITER and "before it converged" in stopped.remarks()[0]


@pytest.mark.parametrize("method, tolerance", [("tv", 1e-4), ("unrolled", 5e-3)])  # a network rounds to bfloat16
def test_constant_extremes(small_truth, small_scan, method, tolerance):
    truth, scan = small_truth, small_scan
    plain = invsr.reconstruct(scan, method=method, reference=truth.grid)
    for factor in (1e-6, 1e6):  # intensity units do not matter
        scaled = invsr.reconstruct(scan.with_data(scan.data * factor), method=method, reference=truth.grid)
        torch.testing.assert_close(scaled.x / factor, plain.x, atol=tolerance, rtol=1e-3)
    negative = invsr.reconstruct(scan.with_data(scan.data - 0.5), method=method, reference=truth.grid)
    assert float(negative.x.min()) < -0.3
    assert bool(negative.x.isfinite().all())


def test_noise_free_data_are_no_special_case(truth):
    found = invsr.reconstruct(invsr.simulate(truth, slice_thickness=4.0, axis=2), reference=truth.grid)
    assert bool(found.x.isfinite().all()) and abs(found.gain - 1) < 0.01


def test_memory_is_checked_before_starting(monkeypatch, scan):
    monkeypatch.setattr("invsr.numerics.memory.free_memory", lambda device: 2**20)
    with pytest.raises(InvsrError, match=r"needs about .* GiB of memory and 0.0 GiB are free: use a spacing of"):
        invsr.reconstruct(scan)


def test_oblique_and_moving_scans_are_known_to_take_more_memory(monkeypatch, truth, scan):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    parallel, oblique = scan.grid, Grid(scan.grid.shape, turn @ scan.grid.affine)
    needed = [
        memory.needed_memory(invsr.methods.TV.volumes_in_memory, truth.grid, [grid], moving)
        for grid, moving in ((parallel, False), (oblique, False), (parallel, True))
    ]
    assert needed[0] < min(needed[1:])
    budget = memory.Budget(needed[0])
    memory.require_memory("tv", needed[0], truth.grid, budget)
    for more in needed[1:]:
        with pytest.raises(InvsrError, match="tv on .* GiB of memory"):
            memory.require_memory("tv", more, truth.grid, budget)


def test_one_value_per_scan(scan):
    with pytest.raises(InvsrError, match="3 values of noise for 2 scans"):
        invsr.reconstruct([scan, scan], noise=[1.0, 1.0, 1.0])
    with pytest.raises(InvsrError, match="1 masks for 2 scans"):
        invsr.reconstruct([scan, scan], masks=[scan])
    with pytest.raises(InvsrError, match="no scan"):
        invsr.reconstruct([])
