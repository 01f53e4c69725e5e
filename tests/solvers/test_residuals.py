"""chi2 of noise is 1: real or complex data, with and without coils, of one scan or a stack."""

import numpy as np
import pytest
import torch
from registry import CASES

from invsr.grid import Grid
from invsr.noise.likelihoods import Gaussian, Huber, Masked
from invsr.numerics.linear import white_noise
from invsr.operators import Identity, KSpaceMask, Stack, acquisition
from invsr.solvers.residuals import as_tuple, chi2, gain, intensity_scale, like_data, residuals

GRID = Grid((20, 18, 16), np.eye(4))
SIGMA = 0.3


def mask():
    return (torch.rand(GRID.shape, generator=torch.Generator().manual_seed(3)) < 0.4).float()


def coils():
    made = white_noise(torch.zeros((4, *GRID.shape), dtype=torch.complex64), torch.Generator().manual_seed(4))
    return made / made.abs().square().sum(0, keepdim=True).sqrt()


def two_scans():
    return Stack([acquisition(GRID.coarsen(factors), reference=GRID) for factors in ((1, 1, 4), (2, 1, 1))])


OPERATORS = {
    "image": lambda: acquisition(GRID.coarsen((1, 1, 2)), reference=GRID),
    "image of complex volumes": lambda: Identity(GRID),
    "k-space": lambda: KSpaceMask(GRID, mask()),
    "k-space, coils": lambda: KSpaceMask(GRID, mask(), coils()),
    "k-space, real volumes": lambda: KSpaceMask(GRID, mask(), real=True),
    "stack": two_scans,
    "stack of k-space samples": lambda: Stack([KSpaceMask(GRID, mask()), KSpaceMask(GRID, mask().flip(0), coils())]),
    "stack of images and k-space": lambda: Stack([Identity(GRID), KSpaceMask(GRID, mask(), real=True)]),
}


def noise_of(operator, name):
    """Data without signal: noise of SIGMA, in each part of complex samples."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.complex64 if "complex" in name or name.startswith("k-space, c") or name == "k-space" else torch.float32
    if name == "stack of k-space samples":
        kind = torch.complex64
    like = operator(torch.zeros((1, 1, *GRID.shape), dtype=kind))
    return like_data(tuple(SIGMA * white_noise(one, generator) for one in as_tuple(like)), like)


@pytest.mark.parametrize("name", OPERATORS)
def test_chi2_of_noise_is_one(name):
    operator = OPERATORS[name]()
    y = noise_of(operator, name)
    nothing = like_data(tuple(torch.zeros_like(one) for one in as_tuple(y)), y)
    likelihoods = tuple(Gaussian(SIGMA) for _ in as_tuple(y))
    assert chi2(operator, likelihoods, y, nothing) == pytest.approx(1, abs=0.08)
    for scan in residuals(operator, likelihoods, y, nothing, [2] * len(likelihoods)):
        assert float(scan.slice_chi2.nanmean()) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", ["image", "k-space", "k-space, coils"])
def test_half_of_the_data_masked(name):
    operator = OPERATORS[name]()
    y = noise_of(operator, name)
    seen = torch.zeros(y.shape, dtype=torch.bool)
    seen[:, :, ::2] = True
    found = chi2(operator, (Masked(Gaussian(SIGMA), seen),), torch.where(seen, y, 1e3), torch.zeros_like(y))
    assert found == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.solves])
def test_every_operator_counts_the_samples_of_its_data(name):
    # In the coordinates that are counted, white noise has a mean square of 1 per real number.
    operator = CASES[name].build()
    kind = torch.complex128 if CASES[name].complex_domain else torch.float64
    like = operator(torch.zeros((1, CASES[name].channels, *operator.domain.shape), dtype=kind))
    generator, values = torch.Generator().manual_seed(0), []
    for _ in range(60):
        y = like_data(tuple(white_noise(one, generator) for one in as_tuple(like)), like)
        values.append(chi2(operator, tuple(Gaussian(1.0) for _ in as_tuple(y)), y, like))
    if max(values) > 0:  # one operator sees nothing at all
        assert np.mean(values) == pytest.approx(1, abs=0.25)


def test_gain_of_complex_data():
    y = white_noise(torch.zeros(1, 1, 4, 4, 4, dtype=torch.complex64), torch.Generator().manual_seed(0))
    assert gain((Gaussian(1.0),), y, 1.2 * y) == pytest.approx(1.2)


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e-3])
def test_intensity_scale(unit):
    y = torch.rand((1, 1, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    y, inside = y / y.max() * unit, torch.ones(12, 12, 12, dtype=torch.bool)
    inside[6:] = False
    y[:, :, 6:] *= 5  # bright, outside the mask
    plain = (Gaussian(0.1),)
    assert intensity_scale(y, plain, y) == pytest.approx(5 * unit, rel=0.02)
    assert intensity_scale(y, (Masked(Huber(0.1), inside),), y) == pytest.approx(unit, rel=0.02)
    assert intensity_scale((y, 9 * y), plain * 2, y) == intensity_scale(y, plain, y)
    # k-space has a peak of its own: that of the volume counts.
    assert intensity_scale(y + 0j, plain, 3 * y) == pytest.approx(15 * unit, rel=0.02)
    assert intensity_scale(0 * y, plain, 0 * y) == 1.0
