"""From k-space to a volume: positions, intensities, noise, weights, thick slices."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from raw_files import blob, centre_of

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import KSpaceMask, partial_fourier, random_mask
from invsr.pipeline.choice import KSPACE_MODEL, choose_method
from invsr.pipeline.methods import TV
from invsr.pipeline.raw_matrix import has_holes, resampled_maps
from invsr.pipeline.raw_problem import build_raw_problem
from invsr.pipeline.raw_run import raw_method_of, reconstruct_raw
from invsr.pipeline.raw_weight import cross_validated
from invsr.pipeline.run import solve_problem
from invsr.priors import tv
from invsr.raw import RawData
from invsr.solvers.residuals import chi2
from invsr.testing.kspace import sensitivities, simulate_kspace
from invsr.testing.phantoms import centred_grid, shapes
from invsr.testing.simulation import simulate
from invsr.volume import Volume

SIDE = 32


@cache
def phantom(depth=SIDE):
    grid = centred_grid((depth, SIDE, SIDE), (1.5 * SIDE / depth, 1.5, 1.5))  # air around it
    return Volume(shapes(grid, n_samples=16, size=SIDE), grid)


@cache
def undersampled(depth=SIDE, noise=0.01):
    mask = random_mask((1, SIDE, SIDE), 3.0, 0.4, torch.Generator().manual_seed(0), axes=(1, 2))
    return simulate_kspace(phantom(depth), n_coils=4, mask=mask, noise=noise)


def psnr(found, truth):
    return float(-10 * torch.log10((found - truth).square().mean() / truth.max() ** 2))


@pytest.mark.parametrize("matrix", [(18, 15, 14), (13, 20, 11)])
@pytest.mark.parametrize("spacing", [None, 1.0, (1.5, 2.0, 2.5)])
def test_world_positions_hold(matrix, spacing):
    grid = Grid.from_spacing((25, 28, 23), 1.3, centre=(5, -8, 3))
    at = grid.centre + (1.4, -2.2, 1.1)
    head = blob(grid, at, 2.8)
    raw, maps, _ = simulate_kspace(head, n_coils=2, noise=0.0, matrix=matrix)
    found = reconstruct_raw(raw, method="tikhonov", lam=1e-4, spacing=spacing, maps=maps, noise=1e-3)
    with pytest.raises(InvsrError, match="told of scans' slices"):
        _ = found.evidence
    assert np.abs(centre_of(found.volume) - at).max() < 0.05 * found.grid.spacing.min()
    # Intensities stay on every matrix: the integral does.
    whole, part = (one.data.sum() * one.grid.spacing.prod() for one in (head, found.volume))
    assert float(part) == pytest.approx(float(whole), rel=0.02)


@pytest.mark.parametrize("spacing", [None, 1.0])
def test_slices_become_a_volume_in_place(spacing):
    fine = Grid.from_spacing((24, 25, 30), 1.2, centre=(5, -8, 3))
    at = fine.centre + (1.4, -2.2, 1.1)
    scan = simulate(blob(fine, at, 3.0), slice_thickness=4.0, axis=2)
    mask = partial_fourier((1, 25, 1), 0.75, 1)
    raw, maps, _ = simulate_kspace(scan, n_coils=3, mask=mask, noise=1e-4, axes=(0, 1))
    found = reconstruct_raw(raw, method="tv", spacing=spacing, slice_thickness=4.0, maps=maps, noise=1e-4)
    assert found.grid.spacing.max() < 1.3
    assert np.abs(centre_of(found.volume) - at).max() < 0.1
    assert found.problem.slices.thickness == pytest.approx(4.0 / found.grid.spacing[2])


@pytest.mark.parametrize("n_coils", [1, 4])
@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 1)])
def test_chi2_of_noise_alone_is_one(n_coils, axes):
    mask = random_mask((1, SIDE, SIDE), 3.0, 0.3, torch.Generator().manual_seed(0), axes=(1, 2))
    counts = mask.float() * (1 + (torch.arange(SIDE) % 3))  # up to three averages
    raw, maps, _ = simulate_kspace(phantom(), n_coils=n_coils, mask=counts, noise=0.02, axes=axes)
    clean, _, _ = simulate_kspace(phantom(), n_coils=n_coils, mask=counts, noise=0.0, axes=axes)
    sigma = 0.02 * float(phantom().data.max())
    problem = build_raw_problem(raw, noise=sigma, maps=maps)
    truth = build_raw_problem(clean, noise=sigma, maps=maps)
    there = truth.y * (truth.scale / problem.scale)
    assert chi2(problem.operator, problem.likelihoods, problem.y, there) == pytest.approx(1.0, abs=0.03)


def test_methods_beat_the_samples_alone():
    raw, maps, image = undersampled(16)
    truth = image.abs()
    problem = build_raw_problem(raw, maps=maps, noise=0.01 * float(phantom(16).data.max()))
    folded = problem.operator.adjoint(problem.y).abs() * problem.scale
    for method in ("tv", "pnp", "unrolled"):
        found = solve_problem(problem, raw_method_of(method, {}))
        assert psnr(found.x.abs(), truth) > psnr(folded, truth) + 6


def test_the_method_that_is_chosen():
    raw, maps, _ = undersampled()
    short, few, _ = simulate_kspace(phantom(), n_coils=2, matrix=(20, 20, 20))
    chosen = choose_method(build_raw_problem(raw, maps=maps, noise=0.01))
    assert chosen.name == "unrolled" and chosen.model == KSPACE_MODEL
    # Beyond the noise of its training, denoisers are for what was skipped.
    assert choose_method(build_raw_problem(raw, maps=maps, noise=0.1)).name == "pnp"
    finer = build_raw_problem(short, maps=few, noise=0.1, spacing=1.5)
    assert choose_method(finer).name == "tv"


def test_estimated_coils_are_as_good_as_true_ones():
    raw, maps, image = undersampled()
    sigma = 0.01 * float(phantom().data.max())
    known = reconstruct_raw(raw, method="tv", maps=maps, noise=sigma)
    estimated = reconstruct_raw(raw, method="tv")
    truth = image.abs()
    assert psnr(estimated.x.abs(), truth) > psnr(known.x.abs(), truth) - 1.5
    assert estimated.chi2 == pytest.approx(known.chi2, abs=0.1)


def test_the_weight_that_is_chosen_is_near_the_best_of_a_sweep():
    raw, maps, image = undersampled(16)
    problem = build_raw_problem(raw, maps=maps, noise=0.01 * float(phantom(16).data.max()))
    truth = image.abs() / problem.scale
    chosen = cross_validated(problem.slab, tv.TV(), problem.scale)

    def score(lam):
        return psnr(solve_problem(problem, TV(lam=lam)).solution.x.abs(), truth)

    best = max(score(chosen * factor) for factor in (0.25, 0.5, 2.0, 4.0))
    assert score(chosen) > best - 0.6


def test_noise_scans_whiten():
    generator = torch.Generator().manual_seed(0)
    raw, maps, image = undersampled(16, noise=0.0)
    mix = torch.randn(4, 4, dtype=torch.complex64, generator=generator) + 2 * torch.eye(4)
    draw = torch.randn(4, raw.samples[0, 0].numel() + 5000, dtype=torch.complex64, generator=generator)
    noise = 0.02 * mix @ draw
    seen = raw.samples + noise[:, 5000:].reshape(raw.samples.shape) * raw.measured
    noisy = raw.with_samples(seen, noise=noise[:, :5000])
    found, known = (reconstruct_raw(noisy, method="tv", maps=one) for one in (None, maps))
    assert 0.75 < found.chi2 < 1.05 and 0.75 < known.chi2 < 1.0
    # With the coils' own maps, intensities are those of the file.
    bright = image.abs() > 0.5 * image.abs().max()
    assert float(known.x.abs()[bright].mean()) == pytest.approx(float(image.abs()[bright].mean()), rel=0.05)


def test_maps_on_another_matrix_keep_their_places_and_their_norm():
    coarse = sensitivities((20, 17, 12), 4)
    for shape in ((40, 34, 12), (31, 40, 12)):
        found = resampled_maps(coarse, shape, (0, 1))
        assert float((found - sensitivities(shape, 4)).abs().max()) < 0.06
        torch.testing.assert_close(found.abs().square().sum(0), torch.ones(shape))


def test_readouts_that_are_complete_are_transformed():
    raw, maps, _ = undersampled()
    problem = build_raw_problem(raw, maps=maps, noise=0.01)
    assert problem.raw.axes == (1, 2)
    whole = KSpaceMask(raw.grid, raw.counts, maps)
    x = torch.randn(problem.first.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(problem.operator.gram(x), whole.gram(x), rtol=1e-4, atol=1e-5)


def test_holes_are_what_was_skipped_not_where_k_space_ends():
    skipped = random_mask((1, SIDE, SIDE), 3.0, 0.4, torch.Generator().manual_seed(0), axes=(1, 2)).expand(SIDE, -1, -1)
    short = torch.zeros(SIDE, SIDE, SIDE)
    short[8:24, 8:24, 8:24] = 1
    partial = partial_fourier((SIDE, SIDE, SIDE), 0.75, 1)
    assert [has_holes(one > 0) for one in (skipped, partial, short, torch.ones(SIDE, SIDE, 1))] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"noise": -1.0}, "above zero"),
        ({"maps": torch.ones(3, 4, 4, 4, dtype=torch.complex64)}, "one map for each coil"),
        ({"spacing": -1.0}, "spacing"),
        ({"slice_thickness": 3.0}, "three-dimensional"),
        ({"slice_profile": "boxcar"}, "slice profile"),
        ({"method": "cubic"}, "interpolates images"),
        ({"n_coils": 9}, "virtual coils"),
        ({"n_coils": 2, "maps": torch.ones(4, SIDE, SIDE, SIDE, dtype=torch.complex64)}, "leave one out"),
        ({"method": "tv", "n_samples": 3}, "does not use"),
    ],
)
def test_refuses(options, words):
    raw, _, _ = undersampled()
    with pytest.raises(InvsrError, match=words):
        reconstruct_raw(raw, **options)


def test_raw_data_refuse_what_does_not_fit():
    samples, counts, grid = torch.ones(1, 2, 4, 4, 4) + 0j, torch.ones(4, 4, 4), Grid.from_spacing((4, 4, 4), 1.0)
    bad = samples.clone()
    bad[0, 0, 0, 0, 0] = float("nan")
    for words, arguments in {
        "does not fit": (samples[0], counts, grid),
        "complex": (samples.real, counts, grid),
        "Fourier axes": (samples, counts, grid, (0, 0)),
        "NaN or infinite": (bad, counts, grid),
        "every sample is 0": (0 * samples, counts, grid),
        "above it somewhere": (samples, 0 * counts, grid),
        "noise of 3 coils": (samples, counts, grid, (0, 1, 2), "raw", None, None, torch.ones(3, 9) + 0j),
    }.items():
        with pytest.raises(InvsrError, match=words):
            RawData(*arguments)
    counts[0, 0, 0] = 0  # what was not measured may be anything
    assert RawData(bad, counts, grid).samples.isfinite().all()
