"""Complex volumes: the smooth phase is taken off before a network sees them."""

import itertools

import numpy as np
import pytest
import torch

from invsr.models.gradient_step import GradientStep
from invsr.models.networks import UNet
from invsr.noise.sampling import add_noise
from invsr.numerics.linear import white_noise
from invsr.operators import KSpaceMask
from invsr.priors import Denoiser, pretrained
from invsr.priors.phase import smooth_phase, wiener_gain
from invsr.solvers import ADMM, HQS, Schedule, Status, iterate
from invsr.testing.phantoms import centred_grid, shapes
from invsr.uncertainty import sample_posterior

GRID = centred_grid((24, 24, 16), 1.0)
SIGMA = 0.01


def phases():
    i, _, k = (torch.linspace(-1, 1, n) for n in GRID.shape)
    flat = torch.zeros(GRID.shape)
    return {"zero": flat, "ramp": flat + i[:, None, None], "bowl": 1.2 * i[:, None, None] ** 2 + flat + 0.8 * k}


def truth():
    return shapes(GRID, n_samples=8, size=24.0)


def mask():
    """About 2.5-fold: dense at the centre, at random beyond, alike along the readout."""
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID.shape[:2]), indexing="ij")
    away = np.hypot(i, j)
    chance = np.clip(1.3 - away, 0.15, 1.0) ** 2
    drawn = np.random.default_rng(0).random(away.shape) < 0.36 * chance / chance.mean()
    return torch.from_numpy((drawn | (away < 0.2))[:, :, None] * np.ones(GRID.shape)).float()


def coils():
    points = torch.from_numpy(GRID.points()).float()
    made = [
        torch.exp(-(points - 20 * torch.tensor([np.cos(a), np.sin(a), 0])).square().sum(-1) / 900) * np.exp(0.7j * a)
        for a in (0.0, 1.6, 3.1, 4.7)
    ]
    made = torch.stack(made).to(torch.complex64)
    return made / made.abs().square().sum(0, keepdim=True).sqrt()


def error(x, true):
    return float((x - true).abs().square().mean().sqrt())


@pytest.mark.parametrize("name", ["zero", "ramp", "bowl"])
def test_smooth_phase_is_found_where_there_is_signal(name):
    image, phase = truth(), phases()[name]
    noisy = add_noise(image * torch.exp(1j * phase), 0.05, "complex", torch.Generator().manual_seed(0))
    found = smooth_phase(noisy)
    torch.testing.assert_close(found.abs(), torch.ones_like(image))
    off = (found * torch.exp(-1j * phase)).angle()[image > 0.3]
    assert float(off.square().mean().sqrt()) < 0.12


def test_smooth_phase_of_nothing_and_of_positive_images():
    assert torch.equal(smooth_phase(torch.zeros(1, 1, 5, 6, 7) + 0j), torch.ones(1, 1, 5, 6, 7) + 0j)
    torch.testing.assert_close(smooth_phase(truth() + 0j), torch.ones_like(truth()) + 0j)


def test_wiener_gain_keeps_signal_and_shrinks_noise():
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn((1, 1, 20, 20, 20), generator=generator)
    assert float((noise * wiener_gain(noise, 0.1)).square().mean()) < 0.1 * 0.1**2
    assert float(wiener_gain(noise + 2.0, 0.1).min()) > 0.99


def test_the_denoiser_turns_with_the_phase_and_is_the_real_one_without():
    prior, image = pretrained("mri-denoiser-fast", symmetries=False, bfloat16=False), truth()
    noisy = image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    real = prior.prox(noisy, 0.1)
    assert error(prior.prox(noisy + 0j, 0.1), real) < 1e-3
    turn = torch.exp(torch.tensor(2.1j))
    torch.testing.assert_close(prior.prox(noisy * turn, 0.1), real * turn, rtol=0, atol=2e-3)
    again = [pretrained("mri-denoiser-fast", bfloat16=False, seed=4) for _ in range(2)]
    assert torch.equal(*(one.prox(noisy * turn, 0.1) for one in again))


@pytest.mark.parametrize("name", ["ramp", "bowl"])
def test_noise_comes_off_complex_images(name):
    true = truth() * torch.exp(1j * phases()[name])
    noisy = add_noise(true, 0.1, "complex", torch.Generator().manual_seed(0))
    prior = pretrained("mri-denoiser-fast", bfloat16=False)
    assert error(prior.prox(noisy, 0.1), true) < 0.45 * error(noisy, true)


@pytest.mark.parametrize("name", ["zero", "ramp", "bowl"])
@pytest.mark.parametrize("made", [None, coils], ids=["one coil", "four coils"])
def test_plug_and_play_gains_with_phase_what_it_gains_without(name, made):
    operator = KSpaceMask(GRID, mask(), made and made())
    true = truth() * torch.exp(1j * phases()[name])
    sampled = operator.weights != 0
    y = add_noise(operator(true), SIGMA, "complex", torch.Generator().manual_seed(0)) * sampled
    found = iterate(ADMM(), operator, y, pretrained("mri-denoiser-fast", bfloat16=False), sigma=SIGMA)
    assert found.status is Status.CONVERGED and 0.7 <= found.chi2 <= 1.3 and found.remarks() == []
    gain = 20 * np.log10(error(operator.adjoint(y), true) / error(found.x, true))
    assert gain > 4


def test_samples_with_phase_are_as_good_as_without():
    operator, errors, stated = KSpaceMask(GRID, mask()), [], []
    for name in ("zero", "ramp"):
        true = truth() * torch.exp(1j * phases()[name])
        y = add_noise(operator(true), SIGMA, "complex", torch.Generator().manual_seed(0)) * (operator.weights != 0)
        prior = pretrained("mri-denoiser-fast", bfloat16=False)
        drawn = sample_posterior(operator, y, prior, SIGMA, n_samples=2)
        errors.append(error(drawn.mean, true))
        stated.append(float(drawn.std.square().mean().sqrt()))
        assert all(0.7 < entry["chi2"] < 1.3 for entry in drawn.history)
    assert errors[1] < 1.2 * errors[0] and stated[1] == pytest.approx(stated[0], rel=0.2)


def test_descent_on_a_complex_volume():
    torch.manual_seed(0)
    network = GradientStep(UNet(dim=3, channels=(4, 8), activation="elu")).requires_grad_(False)
    prior, level = Denoiser(network, dim=3), 0.05
    operator = KSpaceMask(GRID, mask())
    clean = operator(truth() * torch.exp(1j * phases()["ramp"]))
    y = add_noise(clean, SIGMA, "complex", torch.Generator().manual_seed(0)) * (operator.weights != 0)
    fixed = Schedule(level, level, 1, 2 * SIGMA**2)
    found = iterate(HQS(descend=True), operator, y, prior, sigma=SIGMA, schedule=fixed, max_iter=10, rtol=0.0)
    values = [entry["objective"] for entry in found.history]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(values)) and values[-1] < values[0]
    noise = white_noise(found.x, torch.Generator().manual_seed(0))
    assert float(prior.cost(found.x + 0.1 * noise, level)) > float(prior.cost(found.x, level)) > 0
