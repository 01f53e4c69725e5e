"""What uneven distances of slices pretend, against covariance matrices of whole scans."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import known, scan_of

from invsr.motion.align import CORRELATED_PIXELS
from invsr.motion.evenness import ACROSS, ALIASES, ANATOMY, WITHIN, evenness, pretended
from invsr.motion.joint import VOLUME_SMOOTHNESS
from invsr.operators.scan_model import slice_profile_of

SPACING, WIDE = 4.0, 2.0


def covariances(moved, within, power, scale=1.0):
    """Of a scan's slices, at one frequency within them, with packages moved by so many mm across them."""
    count = len(moved)
    n = np.arange(ACROSS * count)
    at = n * SPACING + np.asarray(moved)[n % count]
    aliases = np.arange(-ALIASES, ALIASES + 1)
    across = (2 * np.pi / (count * SPACING) * ((np.arange(ACROSS)[:, None] + 0.5) / ACROSS + aliases)).ravel()
    profile = slice_profile_of("gaussian", SPACING)
    offsets, weights = (profile.offsets * profile.width).double().numpy(), profile.weights.double().numpy()
    passed = np.array([np.abs(weights @ np.exp(1j * k * offsets)) ** 2 for k in across])
    density = scale * passed / (within**2 + across**2) ** (power / 2)
    waves = np.exp(1j * np.outer(at, across))
    return (waves * density) @ waves.conj().T / ACROSS


def misfit(told, true):
    """Of a smooth volume that is told displacements, on average over scans with true ones."""
    total = 0.0
    for n in range(WITHIN):
        within = (n + 0.5) / WITHIN * np.pi / WIDE
        prior = 1 / (VOLUME_SMOOTHNESS * WIDE * len(told) * SPACING)
        assumed = covariances(told, within, 2.0, prior) + np.eye(ACROSS * len(told))
        total += within * np.trace(np.linalg.solve(assumed, covariances(true, within, ANATOMY))).real
    return total


def slope(true, little=1e-4):
    """Of the logarithm of the misfit, minus a half, along the displacement of package 1, at the truth."""
    step = little * np.eye(len(true))[1]
    return -(np.log(misfit(true + step, true)) - np.log(misfit(true - step, true))) / (4 * little)


@pytest.mark.parametrize("count", [2, 3])
def test_it_is_the_slope_at_the_truth(count):
    found = evenness(slice_profile_of("gaussian", SPACING), SPACING, count, WIDE, WIDE).numpy()
    true = 0.4 * np.eye(count)[1]
    expected = 0.5 * (slope(true) - slope(-true))
    assert expected < 0  # towards even distances
    np.testing.assert_allclose((found @ true)[1], expected, rtol=1e-4)
    np.testing.assert_allclose(found, found.T, atol=1e-9)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)


def test_closer_slices_pretend_more():
    one, other = (evenness(slice_profile_of("gaussian", mm), mm, 2, WIDE, WIDE)[1, 1] for mm in (3.0, 6.0))
    assert one < 3 * other < 0


def test_it_acts_where_slices_have_left_even_distances(truth):
    scan = known(scan_of(truth), truth)
    package = torch.arange(len(scan.motion)) % 2
    uneven = torch.tensor([[-0.03, 0.03], [0.03, -0.03]], dtype=torch.float64)
    volume = 0.9 * truth.data
    for motion in ([0, 0, 0.0, 0, 0, 0], [0, 0, 0.1, 1, -2, 0]):  # within the planes
        moved = replace(scan, motion=package[:, None] * torch.tensor(motion, dtype=torch.float64))
        assert float(pretended(moved, volume, truth.grid, package, uneven).abs().max()) < 1e-9
    moved = replace(scan, motion=package[:, None] * torch.tensor([0, 0, 0, 0, 0, 0.5], dtype=torch.float64))
    found = pretended(moved, volume, truth.grid, package, uneven)
    rest = scan.data.double() * (scan.data - moved.slices(truth.grid)(volume)).double()
    odd = package == 1
    assert float(found[odd, 5].sum()) == pytest.approx(
        -0.03 * 0.5 * 2 * float(rest[..., odd].sum()) / CORRELATED_PIXELS
    )
    assert float(found[odd, 5].sum()) < 0  # back to even distances
    assert not found[:, :5].any()
