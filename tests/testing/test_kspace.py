"""Simulated k-space is what the operators expect of a scanner."""

import math

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.numerics.fourier import inverse_fourier
from invsr.operators.kspace import KSpaceMask
from invsr.testing.kspace import sensitivities, simulate_kspace
from invsr.testing.metrics import peak
from invsr.testing.phantoms import centred_grid, shapes
from invsr.volume import Volume

GRID = centred_grid((20, 18, 12), (4, 4.5, 6))
VOLUME = Volume(shapes(GRID, n_samples=32), GRID)


def test_operator_predicts_the_samples():
    mask = torch.zeros(GRID.shape)
    mask[:, ::3] = 2
    raw, maps, image = simulate_kspace(VOLUME, n_coils=3, noise=0, mask=mask)
    expected = KSpaceMask(raw.grid, raw.measured.float(), maps)(image)
    torch.testing.assert_close(raw.samples, expected, atol=1e-5, rtol=0)
    assert torch.equal(raw.counts, mask) and raw.n_coils == 3 and raw.axes == (0, 1, 2)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(GRID.shape))
    torch.testing.assert_close(image.abs(), VOLUME.data.abs())


def test_noise_is_a_share_of_the_peak_and_falls_with_averages():
    counts = torch.ones(GRID.shape)
    counts[10:] = 4
    noisy, _, _ = simulate_kspace(VOLUME, noise=0.02, mask=counts)
    clean, _, _ = simulate_kspace(VOLUME, noise=0, mask=counts)
    noise = (noisy.samples - clean.samples) / (0.02 * peak(VOLUME.data[0, 0]))
    for part in (noise.real, noise.imag):
        assert float(part[:, :, :10].std()) == pytest.approx(1, rel=0.03)
        assert float(part[:, :, 10:].std()) == pytest.approx(0.5, rel=0.03)
    assert float((noise.real * noise.imag).mean()) == pytest.approx(0, abs=0.03)


def test_seeds():
    first, again, other = (simulate_kspace(VOLUME, n_coils=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0].samples, again[0].samples) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0].samples, other[0].samples) and not torch.equal(first[2], other[2])


def test_phase():
    with_phase, without = (simulate_kspace(VOLUME, phase=phase)[2][0, 0] for phase in (True, False))
    assert float(without.imag.abs().max()) == 0
    turns = torch.angle(with_phase)[VOLUME.data[0, 0] > 0.1]
    assert 0.3 < float(turns.std()) < 3
    steps = torch.angle(with_phase[1:] * with_phase[:-1].conj())[
        (with_phase[1:].abs() > 0.1) & (with_phase[:-1].abs() > 0.1)
    ]
    assert float(steps.abs().max()) < 0.7


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 1), (1, 2)])
def test_fourier_axes(axes):
    raw, maps, image = simulate_kspace(VOLUME, n_coils=2, noise=0, axes=axes)
    torch.testing.assert_close(inverse_fourier(raw.samples[0], axes), maps * image[0], atol=1e-5, rtol=0)
    assert raw.axes == axes and raw.slice_axis == {(0, 1, 2): None, (0, 1): 2, (1, 2): 0}[axes]


@pytest.mark.parametrize("matrix", [(10, 18, 12), (9, 12, 7)])
def test_smaller_matrix(matrix):
    """Intensities and places stay: a smooth blob is the same on both grids."""
    at = np.linalg.norm((GRID.points() - [3.0, -8.0, 5.0]) / 16, axis=-1)
    blob = Volume(torch.from_numpy(np.exp(-0.5 * at**2))[None, None], GRID)
    raw, maps, _ = simulate_kspace(blob, n_coils=1, noise=0, phase=False, matrix=matrix)
    seen = inverse_fourier(raw.samples[0], raw.axes)[0].real
    at = np.linalg.norm((raw.grid.points() - [3.0, -8.0, 5.0]) / 16, axis=-1)
    torch.testing.assert_close(seen, torch.from_numpy(np.exp(-0.5 * at**2)).float(), atol=0.03, rtol=0)
    assert maps.shape == (1, *matrix) and raw.grid.shape == matrix
    middle = [m // 2 for m in matrix]
    np.testing.assert_allclose(raw.grid.points()[tuple(middle)], GRID.points()[10, 9, 6], atol=1e-9)


def test_coils_see_different_places_smoothly():
    fine, coarse = sensitivities((24, 24, 24), 8), sensitivities((12, 12, 12), 8)
    torch.testing.assert_close(fine[:, ::2, ::2, ::2], coarse, atol=1e-5, rtol=0)
    values = torch.linalg.svdvals(fine.flatten(1))
    assert float(values[-1] / values[0]) > 0.05
    steps = (fine[:, 1:] - fine[:, :-1]).abs().square().sum(0).sqrt()
    assert float(steps[:, 4:-4, 4:-4].max()) < 0.4
    turned = sensitivities((4, 4, 4), 2, torch.tensor([0.0, math.pi / 2]))
    torch.testing.assert_close(turned[1], 1j * sensitivities((4, 4, 4), 2)[1])
    assert torch.equal(sensitivities((3, 3, 3), 1), torch.ones(1, 3, 3, 3, dtype=torch.complex64))


def test_what_does_not_fit():
    for wrong in (
        {"n_coils": 0},
        {"noise": -1.0},
        {"matrix": (21, 18, 12)},
        {"matrix": (10, 18, 6), "axes": (0, 1)},
        {"mask": torch.ones(3, 3, 3)},
    ):
        with pytest.raises(InvsrError):
            simulate_kspace(VOLUME, **wrong)
