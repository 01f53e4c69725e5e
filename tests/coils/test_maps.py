"""Coil maps against those that k-space was simulated with, and against sigpy's ESPIRiT."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from invsr.coils import coil_maps, maps
from invsr.coils.centre import centre_box
from invsr.errors import InvsrError
from invsr.numerics.fourier import fourier, inverse_fourier
from invsr.testing.kspace import simulate_kspace
from invsr.testing.metrics import peak
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume

SHAPE = (40, 36, 30)
NOISE = 0.01


@cache
def head(shape=SHAPE):
    grid = centred_grid(shape, [76 / n for n in shape])
    return Volume(shapes(grid, n_samples=64), grid)


@cache
def inside(shape=SHAPE):
    return head(shape).data[0, 0] > 0.05 * peak(head(shape).data[0, 0])


@cache
def scan():
    """k-space of six coils, their maps, and those that are found."""
    raw, true, _ = simulate_kspace(head(), n_coils=6, noise=NOISE)
    return raw, true, coil_maps(raw)


def unlikeness(found, true, where):
    """Root mean square of the part of the unit vectors found that is not along the true ones."""
    along = (found.conj() * true).sum(0).abs()[where]
    return float((1 - along**2).clamp(min=0).mean().sqrt())


def unexplained(raw, found, sigma, where):
    """Chi-square per degree of freedom of fully sampled images."""
    y = inverse_fourier(raw.samples[0], raw.axes)
    rest = y - found * (found.conj() * y).sum(0)
    return float(rest.abs().square().sum(0)[where].mean()) / (2 * sigma**2 * (raw.n_coils - 1))


@pytest.mark.parametrize(
    ("axes", "shape", "error"),
    [((0, 1, 2), SHAPE, 0.012), ((0, 1), (48, 44, 5), 0.04), ((0, 1, 2), (48, 44, 8), 0.03)],
    ids=["volume", "slices", "thin slab"],
)
def test_maps_explain_the_data_to_the_noise(axes, shape, error):
    raw, true, _ = simulate_kspace(head(shape), n_coils=6, noise=NOISE, axes=axes)
    found = coil_maps(raw)
    assert found.dtype == torch.complex64
    torch.testing.assert_close(found.abs().square().sum(0), torch.ones(shape))
    assert unlikeness(found, true, inside(shape)) < error
    sigma = NOISE * peak(head(shape).data[0, 0])
    # A slice has few samples: the maps take up some of their noise.
    assert unexplained(raw, found, sigma, inside(shape)) == pytest.approx(1, abs=0.05 if len(axes) == 3 else 0.1)
    # A map that is wrong would be noticed.
    assert unexplained(raw, found.roll(3, 1), sigma, inside(shape)) > 2


@pytest.mark.parametrize(("axes", "shape"), [((0, 1, 2), SHAPE), ((0, 1), (48, 44, 5))], ids=["volume", "slices"])
def test_phase_is_smooth(axes, shape):
    """Relative to the true maps, also between slices."""
    raw, true, _ = simulate_kspace(head(shape), n_coils=6, noise=NOISE, axes=axes, seed=1)
    turn = (coil_maps(raw).conj() * true).sum(0)
    for n, size in enumerate(shape):
        a, b = turn.narrow(n, 1, size - 1), turn.narrow(n, 0, size - 1)
        both = inside(shape).narrow(n, 1, size - 1) & inside(shape).narrow(n, 0, size - 1)
        jumps = torch.angle(a * b.conj()).abs()[both]
        assert float(jumps.max()) < 0.5


def beyond(voxels):
    """Where the head is not, up to so many voxels from it."""
    near = torch.nn.functional.max_pool3d(inside()[None].float(), 2 * voxels + 1, 1, voxels)[0].bool()
    return near & ~inside()


def test_maps_continue_beyond_the_head():
    _, true, found = scan()
    assert unlikeness(found, true, beyond(2)) < 0.25
    # Next to the head they are those of this place, not of one two voxels away.
    off = [(1 - (found.roll(r, 1).conj() * true).sum(0).abs()[beyond(1)] ** 2).sqrt().median() for r in (0, 2)]
    assert off[0] < 0.06 and off[1] > 0.1


def test_undersampled_and_calibration_lines():
    raw, true, _ = scan()
    counts = torch.zeros(SHAPE)
    counts[:, ::2] = 1
    every_second = raw.with_samples(raw.samples, counts=counts)
    with pytest.raises(InvsrError, match="24x1x24"):
        coil_maps(every_second)
    box = centre_box(raw.counts, raw.axes, (20, 20, 20))
    lines = raw.samples[0][(slice(None), *box)]
    beside = dataclasses.replace(every_second, calibration=lines)
    counts = counts.clone()
    counts[box] = 1
    within = raw.with_samples(raw.samples, counts=counts)
    for one in (beside, within):
        assert unlikeness(coil_maps(one), true, inside()) < 0.015
    alone = torch.zeros(SHAPE)
    alone[box] = 1
    torch.testing.assert_close(coil_maps(beside), coil_maps(raw.with_samples(raw.samples, counts=alone)))
    with pytest.raises(InvsrError, match=r"calibration lines of shape \(6, 8, 8, 8\)|8x8x8 lines"):
        coil_maps(dataclasses.replace(raw, calibration=lines[:, :8, :8, :8]))


@pytest.mark.parametrize("axes", [(1, 2), (1,)])
def test_readout_that_was_transformed_already(axes):
    raw, _, _ = simulate_kspace(head(), n_coils=4, noise=NOISE)
    across = 2 if axes == (1,) else None
    everything = (0, 1) if across else (0, 1, 2)
    samples = inverse_fourier(raw.samples, [2]) if across else raw.samples
    plain = dataclasses.replace(raw, samples=samples, axes=everything, slice_axis=across)
    ready = dataclasses.replace(plain, samples=inverse_fourier(samples, [0]), axes=axes)
    torch.testing.assert_close(coil_maps(ready), coil_maps(plain), atol=1e-3, rtol=0)


def test_slices_that_are_missing_get_maps_of_their_neighbours():
    shape = (48, 44, 5)
    counts = torch.ones(shape)
    counts[..., 3] = 0
    raw, _, _ = simulate_kspace(head(shape), n_coils=6, noise=NOISE, axes=(0, 1), mask=counts)
    found = coil_maps(raw)
    assert bool(found.isfinite().all())
    assert unlikeness(found[..., 3], found[..., 2], inside(shape)[..., 2]) < 0.3


def test_one_coil():
    raw, _, _ = simulate_kspace(head(), n_coils=1)
    assert torch.equal(coil_maps(raw), torch.ones(1, *SHAPE, dtype=torch.complex64))


def test_eigenvectors_are_those_of_sigpy(monkeypatch):
    from sigpy.mri.app import EspiritCalib

    volume = head((24, 24, 24))
    raw, _, _ = simulate_kspace(volume, n_coils=4, noise=0.001)
    lines = raw.samples[0, :, 4:20, 4:20, 4:20]
    monkeypatch.setattr(maps, "_noise_power", lambda powers, n: 0.01**2 * float(powers[-1]))
    ours = maps._espirit(lines, (24, 24, 24), 4 * 4**3)
    app = EspiritCalib(
        raw.samples[0].numpy(), calib_width=16, kernel_width=4, thresh=0.01, crop=0, max_iter=300, show_pbar=False
    )
    theirs = torch.from_numpy(np.ascontiguousarray(app.run()))
    assert unlikeness(ours, theirs, inside((24, 24, 24))) < 2e-3


def test_interpolation_keeps_the_middle_and_smooth_curves():
    for coarse, fine in ((10, 24), (9, 24), (10, 25), (7, 21)):
        matrix = maps._interpolation(coarse, fine)
        torch.testing.assert_close(matrix.sum(1), torch.ones(fine).double())
        curves = [torch.cos(3 * (torch.arange(n).double() - n // 2) / n + 0.4) for n in (coarse, fine)]
        within = slice(2 * fine // coarse, -3 * fine // coarse)  # ends are continued
        assert float((matrix @ curves[0] - curves[1])[within].abs().max()) < 0.003
        assert float(matrix[fine // 2, coarse // 2]) == 1


def test_centre_box():
    counts = torch.zeros(20, 21, 4)
    counts[4:16, 3:19, 1:] = 1  # frequency zero at 10, 10, 2
    assert centre_box(counts, (0, 1), (24, 24, 24)) == (slice(4, 16), slice(3, 18), slice(0, 4))
    assert centre_box(counts, (0, 1, 2), (8, 8, 8)) == (slice(6, 14), slice(6, 14), slice(1, 4))
    counts[10, 10, 2] = 0
    assert centre_box(counts, (0, 1, 2), (8, 8, 8)) == (slice(10, 10), slice(10, 10), slice(2, 2))


def test_transform_of_the_simulated_image_is_the_sum_over_coils():
    raw, true, image = simulate_kspace(head(), n_coils=4, noise=0)
    combined = (true.conj() * inverse_fourier(raw.samples[0], raw.axes)).sum(0)
    torch.testing.assert_close(combined, image[0, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(fourier(true * image[0], raw.axes)[None], raw.samples, atol=1e-4, rtol=0)
