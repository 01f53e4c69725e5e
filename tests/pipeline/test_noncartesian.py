"""From radial and spiral k-space to a volume: positions, noise, coils, weights, thick slices."""

from __future__ import annotations

import math
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from raw_files import blob, centre_of

from invsr.coils import noise_covariance, readout_noise
from invsr.errors import InvsrError, InvsrWarning
from invsr.examples import example
from invsr.grid import Grid
from invsr.noncartesian import NonCartesianData
from invsr.operators import NonUniformKSpace, density_weights, kooshball, radial, spiral
from invsr.pipeline.choice import choose_method
from invsr.pipeline.methods import TV
from invsr.pipeline.raw_centre import central_lines
from invsr.pipeline.raw_matrix import unstacked
from invsr.pipeline.raw_problem import build_raw_problem
from invsr.pipeline.raw_run import reconstruct_raw
from invsr.pipeline.raw_weight import cross_validated
from invsr.pipeline.run import solve_problem
from invsr.priors import tv
from invsr.solvers import ADMM, iterate
from invsr.solvers.residuals import chi2
from invsr.testing.kspace import simulate_kspace, simulate_noncartesian
from invsr.testing.metrics import peak
from invsr.testing.phantoms import centred_grid, shapes, shepp_logan
from invsr.testing.simulation import simulate
from invsr.volume import Volume

SIDE = 64


@cache
def slice_of_phantom(side=SIDE):
    whole = Volume(*shepp_logan((side, side, side), 256 / side))
    return Volume(whole.data[..., side // 2 - 1 : side // 2], Grid((side, side, 1), whole.grid.affine))


def nrmse(found, truth):
    """After the best scaling."""
    found, truth = found.abs(), truth.abs()
    scale = (found * truth).sum() / found.square().sum()
    return float((scale * found - truth).norm() / truth.norm())


def oblique(shape, spacing=1.3):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    return Grid.from_spacing(shape, spacing, centre=(5, -8, 3), directions=turn)


@pytest.fixture(scope="module")
def ball():
    """A head, and undersampled spokes in all directions, which lie many times as dense in the middle."""
    truth = example(32)
    return truth, *simulate_noncartesian(truth, kooshball(300, 32, 32), n_coils=4, axes=(0, 1, 2))[:2]


@pytest.mark.parametrize(("method", "most"), [("tikhonov", 0.043), ("tv", 0.043), ("pnp", 0.036), ("unrolled", 0.036)])
def test_dense_middles_hide_no_errors(method, most, ball):
    truth, raw, maps = ball
    found = reconstruct_raw(raw, method=method, maps=maps, noise=0.01 * peak(truth.numpy()))
    assert float((found.x.abs() - truth.data).norm() / truth.data.norm()) < most


def test_iterations_begin_near_the_volume(ball):
    truth, raw, maps = ball
    problem = build_raw_problem(raw, maps=maps, noise=0.01 * peak(truth.numpy()))
    found = iterate(ADMM(), problem.operator, problem.y, tv.TV(), lam=1e-3, sigma=problem.sigma)
    assert found.status.value == "converged" and found.chi2 < 1
    assert float((problem.scale * found.x.abs() - truth.data).norm() / truth.data.norm()) < 0.043


@pytest.mark.parametrize("matrix", [(17, 15, 22), (13, 20, 22)])
@pytest.mark.parametrize("spacing", [None, 1.0, (1.5, 1.4, 1.3)])
def test_world_positions_hold(matrix, spacing):
    grid = oblique((26, 28, 22))
    at = grid.centre + (1.4, -2.2, 1.1)
    head = blob(grid, at, 3.2)
    raw, maps, _ = simulate_noncartesian(head, radial(30, 36, matrix[:2]), n_coils=2, noise=0.0, matrix=matrix)
    found = reconstruct_raw(raw, method="tikhonov", lam=1e-4, spacing=spacing, maps=maps, noise=1e-3)
    assert np.abs(centre_of(found.volume) - at).max() < 0.05 * found.grid.spacing.min()
    # Intensities stay on every matrix: the integral does.
    whole, part = (one.data.sum() * one.grid.spacing.prod() for one in (head, found.volume))
    assert float(part) == pytest.approx(float(whole), rel=0.02)


@pytest.mark.parametrize("shape", [(8, 7, 2), (5, 6, 1)])
def test_an_impulse_comes_back_to_its_voxel(shape):
    grid = Grid.from_spacing(shape, 2.0)
    values = torch.zeros(1, 1, *shape)
    values[0, 0, 3, 5, -1] = 1
    raw, _, _ = simulate_noncartesian(Volume(values, grid), spiral(8, 60, shape[:2]), n_coils=1, noise=0.0, phase=False)
    found = reconstruct_raw(raw, method="tikhonov", lam=1e-6, noise=1e-3).x.abs()
    assert np.unravel_index(int(found.argmax()), found.shape) == (0, 0, 3, 5, shape[2] - 1)


def test_samples_are_those_of_the_dense_matrix():
    volume = Volume.from_array(torch.rand(6, 5, 2, generator=torch.Generator().manual_seed(0)), 1.0)
    k = radial(4, 7, (6, 5))
    raw, maps, image = simulate_noncartesian(volume, k, n_coils=3, noise=0.0)
    i, j = (torch.arange(n).double() - n // 2 for n in (6, 5))
    waves = torch.exp(-2j * math.pi * (k[..., 0, None, None] * i[:, None] / 6 + k[..., 1, None, None] * j / 5))
    expected = torch.einsum("rsij,cijk->crsk", waves, (maps * image[0, 0]).to(waves.dtype)) / math.sqrt(30)
    torch.testing.assert_close(raw.samples[0].to(waves.dtype), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_coils", [1, 4])
def test_chi2_of_noise_alone_is_one(n_coils):
    volume, k = slice_of_phantom(), radial(40, 2 * SIDE, SIDE)
    raw, maps, _ = simulate_noncartesian(volume, k, n_coils=n_coils, noise=0.02)
    clean, _, _ = simulate_noncartesian(volume, k, n_coils=n_coils, noise=0.0)
    sigma = 0.02 * peak(volume.data[0, 0])
    problem, truth = (build_raw_problem(one, noise=sigma, maps=maps) for one in (raw, clean))
    there = truth.y * (truth.scale / problem.scale)
    assert chi2(problem.operator, problem.likelihoods, problem.y, there) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("trajectory", [radial(30, 2 * SIDE, SIDE), spiral(6, 2000, SIDE)], ids=["radial", "spiral"])
def test_total_variation_beats_gridding(trajectory):
    raw, maps, image = simulate_noncartesian(slice_of_phantom(), trajectory, n_coils=8, noise=0.02)
    weights = density_weights(trajectory, (SIDE, SIDE)).sqrt()
    gridding = NonUniformKSpace(raw.grid, trajectory, maps, weights, (0, 1))
    gridded = gridding.adjoint(raw.samples * weights[..., None])
    found = reconstruct_raw(raw, method="tv")
    assert nrmse(found.x, image) < 0.4 * nrmse(gridded, image)
    assert 0.85 < found.chi2 < 1.1


@pytest.mark.parametrize("method", ["tikhonov", "pnp", "posterior"])
def test_every_method_runs(method):
    raw, maps, image = simulate_noncartesian(slice_of_phantom(32), radial(20, 64, 32), n_coils=4, noise=0.02)
    options = {"n_samples": 2} if method == "posterior" else {}
    found = reconstruct_raw(raw, method=method, maps=maps, **options)
    assert found.x.shape == (1, 1, 32, 32, 1) and nrmse(found.x, image) < 0.5
    assert (found.std is not None) == (method == "posterior")


def test_three_dimensional_spokes():
    grid = oblique((24, 21, 20), 2.0)
    at = grid.centre + (2.1, -3.3, 1.7)
    volume, k = blob(grid, at, 6.0), kooshball(700, 48, (24, 21, 20))
    raw, maps, _ = simulate_noncartesian(volume, k, n_coils=3, noise=0.0, axes=(0, 1, 2))
    found = reconstruct_raw(raw, method="tikhonov", lam=1e-4, maps=maps, noise=1e-3)
    assert found.grid == grid and np.abs(centre_of(found.volume) - at).max() < 0.05
    noisy, _, _ = simulate_noncartesian(volume, k, n_coils=3, axes=(0, 1, 2))
    assert 0.9 < reconstruct_raw(noisy, method="tikhonov").chi2 < 1.1


def test_slices_become_a_volume_in_place():
    fine = Grid.from_spacing((24, 25, 30), 1.2, centre=(5, -8, 3))
    at = fine.centre + (1.4, -2.2, 1.1)
    scan = simulate(blob(fine, at, 3.0), slice_thickness=4.0, axis=2)
    raw, maps, _ = simulate_noncartesian(scan, radial(36, 50, (24, 25)), n_coils=3, noise=1e-4)
    found = reconstruct_raw(raw, method="tv", slice_thickness=4.0, maps=maps, noise=1e-4)
    assert found.grid.spacing.max() < 1.3
    assert np.abs(centre_of(found.volume) - at).max() < 0.1
    assert found.problem.slices.thickness == pytest.approx(4.0 / found.grid.spacing[2])


@pytest.mark.parametrize("n_spokes", [20, 50])
def test_estimated_coils_and_noise_are_those_of_the_simulation(n_spokes):
    raw, maps, image = simulate_noncartesian(
        slice_of_phantom(), radial(n_spokes, 2 * SIDE, SIDE), n_coils=4, noise=0.01
    )
    problem = build_raw_problem(raw)
    sigma = 0.01 * peak(slice_of_phantom().data[0, 0])
    assert problem.sigma * problem.scale == pytest.approx(sigma, rel=0.03)
    known, estimated = (reconstruct_raw(raw, method="tv", maps=one) for one in (maps, None))
    assert nrmse(estimated.x, image) < nrmse(known.x, image) + 0.02
    assert estimated.chi2 == pytest.approx(known.chi2, abs=0.1)


@pytest.mark.parametrize("trajectory", [radial(40, 2 * SIDE, SIDE), spiral(6, 2000, SIDE)], ids=["radial", "spiral"])
def test_noise_between_coils_is_found_along_the_readouts(trajectory):
    generator = torch.Generator().manual_seed(1)
    raw, _, _ = simulate_noncartesian(slice_of_phantom(), trajectory, n_coils=4, noise=0.0)
    mix = torch.randn(4, 4, dtype=torch.complex64, generator=generator)
    noise = mix @ torch.randn(4, raw.samples[0, 0].numel(), dtype=torch.complex64, generator=generator)
    noisy = raw.with_samples(raw.samples + noise.reshape(raw.samples.shape))
    found = readout_noise(noisy)
    assert found.trusted
    expected = noise_covariance(noise)
    assert float((found.covariance - expected).norm() / expected.norm()) < 0.1
    assert float((noise_covariance(noise[:, :5000]) - expected).norm() / expected.norm()) < 0.1


def test_readouts_without_oversampling_raise_doubt():
    raw, _, _ = simulate_noncartesian(slice_of_phantom(), radial(40, SIDE, SIDE), noise=0.02)
    assert "hardly oversampled" in readout_noise(raw).doubt
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InvsrWarning)
        build_raw_problem(raw)
    assert "give --noise" in str(caught[0].message)


def test_the_weight_that_is_chosen_is_near_the_best_of_a_sweep():
    raw, maps, image = simulate_noncartesian(slice_of_phantom(), radial(25, 2 * SIDE, SIDE), n_coils=4, noise=0.03)
    problem = build_raw_problem(raw, maps=maps)
    chosen = cross_validated(problem.slab, tv.TV(), problem.scale)

    def score(lam):
        return nrmse(solve_problem(problem, TV(lam=lam)).solution.x, image)

    assert score(chosen) < 1.15 * min(score(chosen * factor) for factor in (0.25, 0.5, 2.0, 4.0))


def test_central_lines_are_those_of_the_cartesian_grid():
    grid = centred_grid((32, 32, 3), 1.5)
    volume = Volume(shapes(grid, n_samples=8, size=32), grid)
    raw, _, _ = simulate_noncartesian(volume, radial(60, 64, 32), n_coils=2, noise=0.0)
    cartesian, _, _ = simulate_kspace(volume, n_coils=2, noise=0.0, axes=(0, 1))
    lines = central_lines(raw)
    a, b = lines.shape[1:3]
    assert min(a, b) >= 12 and lines.shape[3] == 3
    middle = cartesian.samples[0, :, 16 - a // 2 : 16 - a // 2 + a, 16 - b // 2 : 16 - b // 2 + b]
    assert float((lines - middle).norm() / middle.norm()) < 0.02


def test_two_partitions_have_central_lines():
    spokes = radial(40, 32, 16)
    stack = torch.cat([torch.cat([spokes, torch.full((32, 40, 1), k)], -1) for k in (-1.0, 0.0)], 1)
    assert central_lines(NonCartesianData.from_array(torch.ones(2, 32, 80) + 0j, stack, 1.0)).shape[-1] == 2


def test_denoisers_are_for_what_was_skipped():
    volume = slice_of_phantom()
    few, maps, _ = simulate_noncartesian(volume, radial(20, 2 * SIDE, SIDE), n_coils=2)
    short, _, _ = simulate_noncartesian(volume, radial(80, SIDE, SIDE // 2), n_coils=2)
    assert build_raw_problem(few, maps=maps).has_holes and not build_raw_problem(short, maps=maps).has_holes
    assert choose_method(build_raw_problem(few, maps=maps)).name == "unrolled"
    assert choose_method(build_raw_problem(few, maps=maps, noise=0.1)).name == "pnp"
    assert choose_method(build_raw_problem(short, maps=maps, noise=0.1)).name == "tv"


K = radial(4, 8, 6)
SAMPLES = torch.ones(1, 2, 8, 4, 3) + 0j
GRID = Grid.from_spacing((6, 6, 3), 1.0)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"samples": SAMPLES[0]}, "use .1, coils, 8, 4, 3."),
        ({"samples": SAMPLES[:, :, :, :3]}, "use .1, coils, 8, 4, 3."),
        ({"samples": SAMPLES.real}, "complex"),
        ({"samples": SAMPLES * float("nan")}, "192 of its samples are NaN"),
        ({"samples": 0 * SAMPLES}, "every sample is 0"),
        ({"trajectory": 3 * K}, "from -9 to .* beyond the 3 of 6 voxels"),
        ({"trajectory": K / 0}, "NaN"),
        ({"trajectory": K[..., :1]}, "give real numbers"),
        ({"axes": (0, 0)}, "axes"),
        ({"axes": (0, 1, 2)}, "readout, shots, 3"),
        ({"slice_axis": 1}, "slice axis"),
        ({"noise": torch.ones(3, 9) + 0j}, "noise of 3 coils"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, words):
    given = {"samples": SAMPLES, "trajectory": K, "grid": GRID, "axes": (0, 1), "name": "scan"} | change
    with pytest.raises(InvsrError, match=words) as caught:
        NonCartesianData(**given)
    assert str(caught.value).startswith("scan: ") and "\n" not in str(caught.value)


def test_axes_out_of_order_are_sorted():
    raw = NonCartesianData(SAMPLES, K, GRID, axes=(1, 0), slice_axis=2)
    assert raw.axes == (0, 1) and torch.equal(raw.trajectory, K.flip(-1))


def test_data_of_arrays():
    raw = NonCartesianData.from_array(SAMPLES[0].numpy(), K.numpy(), (1, 1, 5))
    assert raw.grid.shape == (6, 6, 3) and raw.slice_axis == 2 and raw.grid.spacing.tolist() == [1, 1, 5]
    ball = NonCartesianData.from_array(torch.ones(2, 8, 9) + 0j, kooshball(9, 8, 5), 1.0, matrix=(5, 6, 7))
    assert ball.grid.shape == (5, 6, 7) and ball.axes == (0, 1, 2)
    assert float(ball.binned(ball.counts).sum()) == 72
    for words, arguments in {
        "complex": (SAMPLES[0].real, K, 1.0),
        "either": (SAMPLES[0], K),
        "as many sizes": (SAMPLES[0], K, 1.0, (6, 6, 3)),
        "axes": (SAMPLES[0], K[0], 1.0),
    }.items():
        with pytest.raises(InvsrError, match=words):
            matrix = arguments[3] if len(arguments) > 3 else None
            NonCartesianData.from_array(*arguments[:3], matrix=matrix)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"spacing": 16.0}, "finer spacing"),
        ({"maps": torch.ones(3, 4, 4, 4) + 0j}, "one map for each coil"),
        ({"noise": -1.0}, "above zero"),
        ({"slice_thickness": 3.0}, "one slice"),
        ({"method": "cubic"}, "interpolates images"),
    ],
)
def test_refuses(options, words):
    raw, _, _ = simulate_noncartesian(slice_of_phantom(32), radial(30, 64, 32), n_coils=3)
    with pytest.raises(InvsrError, match=words):
        reconstruct_raw(raw, **options)


def test_coils_without_a_sampled_middle_need_maps():
    raw, _, _ = simulate_noncartesian(slice_of_phantom(), spiral(4, 2000, SIDE, turns=3), n_coils=3)
    with pytest.raises(InvsrError, match="give maps"):
        reconstruct_raw(raw, method="tv")


def test_weight_of_tikhonov_with_oversampled_readouts():
    """chi2 hardly depends on the weight there: no rule that aims at it finds one."""
    truth = Volume(*shepp_logan((48, 48, 1), 4.0))
    raw, maps, _ = simulate_noncartesian(truth, radial(24, 96, 48), n_coils=6, noise=0.02)

    def error(lam):
        found = reconstruct_raw(raw, method="tikhonov", lam=lam, maps=maps, noise=0.02).volume.data
        return float((found - truth.data).norm() / truth.data.norm())

    best = min(error(0.02 * 3.0**n) for n in range(-4, 4))
    assert error(None) < 1.15 * best


@pytest.mark.parametrize("sizes", [(20, 18, 6), (17, 20, 7)])
@pytest.mark.parametrize("order", ["partitions first", "spokes first"])
def test_a_complete_stack_of_spokes_is_transformed_to_positions(sizes, order):
    spokes = radial(9, 2 * max(sizes[:2]), sizes[:2])
    levels = torch.arange(sizes[2]) - sizes[2] // 2
    planes = spokes[:, :, None].expand(-1, -1, sizes[2], -1)
    stack = torch.cat([planes, levels[:, None].expand(*planes.shape[:3], 1)], -1)
    stack = (stack if order == "partitions first" else stack.movedim(2, 1)).flatten(1, 2)
    truth = Volume(*shepp_logan(sizes, 4.0))
    raw, maps, _ = simulate_noncartesian(truth, stack, n_coils=2, noise=0.0, axes=(0, 1, 2))
    flat = unstacked(raw)
    assert flat.axes == (0, 1) and flat.samples.shape == (1, 2, spokes.shape[0], 9, sizes[2])
    slices = NonUniformKSpace(flat.grid, flat.trajectory, maps, axes=(0, 1))
    whole = NonUniformKSpace(raw.grid, raw.trajectory, maps)
    x = torch.randn(1, 1, *sizes, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(slices.gram(x), whole.gram(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(slices.adjoint(flat.samples), whole.adjoint(raw.samples), rtol=1e-3, atol=1e-4)
    assert build_raw_problem(raw, maps=maps, noise=0.01).data.axes == (0, 1)
    # A shot fewer, or one that turns the other way: three dimensions.
    assert unstacked(raw.with_samples(raw.samples[..., :-1, :], trajectory=stack[:, :-1])).axes == (0, 1, 2)
    turned = stack.clone()
    turned[:, 4, 0] *= -1
    assert unstacked(raw.with_samples(raw.samples, trajectory=turned)).axes == (0, 1, 2)
