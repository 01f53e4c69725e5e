"""Losses of networks that reconstruct volumes: their values, their slopes, and sums of them."""

import math

import numpy as np
import pytest
import torch
from loss_volumes import GRID, approx, volume
from torch import nn

from invsr.errors import InvsrError
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import DnCNN, UNet
from invsr.numerics.differences import NEUMANN, gradient
from invsr.operators.base import Diagonal
from invsr.operators.separable import Identity
from invsr.priors.tv import TV
from invsr.training.losses import (
    EPSILON,
    FEATURE_SIGMA,
    LOSSES,
    charbonnier,
    combined,
    edge,
    frequency,
    l1,
    l2,
    perceptual,
    physics,
    ssim,
    tv,
)

# A penalty of the estimate has its minimum where the estimate is flat, not at the truth.
TO_TRUTH = [name for name in LOSSES if name != "tv"]


def step(size=4):
    """0 in the first half along i, 1 in the second."""
    x = torch.zeros(1, 1, size, size, size)
    x[:, :, size // 2 :] = 1
    return x


# Every loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TO_TRUTH)
def test_zero_at_the_truth_and_only_there(name):
    truth = volume()
    assert float(LOSSES[name](truth.clone(), truth)) == pytest.approx(0, abs=1e-14)
    near, far = (float(LOSSES[name](truth + c * volume(1), truth)) for c in (0.01, 0.1))
    assert 0 < near < far


@pytest.mark.parametrize("name", LOSSES)
def test_slopes(name):
    assert LOSSES[name](volume(), volume(1)).shape == ()
    estimate, truth = (volume(seed, (1, 1, 11, 12, 11) if name == "ssim" else (2, 1, 3, 4, 3)) for seed in (0, 1))
    estimate.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, truth), estimate, fast_mode=True)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_finite_at_the_truth(name):
    """Where square roots, norms and moduli have a corner, and in a flat volume of zeros."""
    for truth in (volume(dtype=torch.float32), torch.zeros(1, 1, 12, 12, 12)):
        estimate = truth.clone().requires_grad_()
        LOSSES[name](estimate, truth).backward()
        assert bool(estimate.grad.isfinite().all())


@pytest.mark.parametrize("name", LOSSES)
def test_bad_shapes(name):
    """Broadcasting would hide them."""
    for estimate, truth in ((volume(), volume()[:1]), (volume()[0], volume()[0])):
        with pytest.raises(InvsrError, match=r"must be \(batch, 1, i, j, k\)"):
            LOSSES[name](estimate, truth)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_summed_in_single(name):
    estimate, truth = (volume(seed, dtype=torch.bfloat16) for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](estimate, truth)
    assert found.dtype == torch.float32
    assert float(found) == approx(float(LOSSES[name](estimate.double(), truth.double())), rel=1e-5)


# Values -------------------------------------------------------------------------------------------------------------


def test_constant_offset():
    x = volume()
    assert float(l1(x - 0.25, x)) == approx(0.25)
    assert float(l2(x - 0.25, x)) == approx(0.0625)
    assert float(edge(x - 0.25, x)) == pytest.approx(0, abs=1e-12)
    # All of it is in one coefficient of 12 * 13 * 11, which is sqrt(12 * 13 * 11) * 0.25.
    assert float(frequency(x - 0.25, x)) == approx(0.25 / math.sqrt(12 * 13 * 11))


def test_charbonnier_between_its_limits():
    x = volume()
    assert float(charbonnier(x + 1e-5, x)) == approx(1e-10 / (2 * EPSILON), rel=1e-4)
    assert float(charbonnier(x + 10, x)) == approx(10 - EPSILON, rel=1e-7)
    assert float(charbonnier(x + EPSILON, x)) == approx((math.sqrt(2) - 1) * EPSILON, rel=1e-9)


def test_edges():
    """One face of 4 x 4 differences of 1, of 3 x 64: moved, it counts twice; reversed, twice; missing, once."""
    x = step()
    face = 16 / (3 * 64)
    assert float(edge(torch.zeros_like(x), x)) == approx(face)
    assert float(edge(x.roll(1, 2), x)) == approx(2 * face + face)  # and what rolled round makes an edge of its own
    assert float(edge(-x, x)) == approx(2 * face)


def test_total_variation():
    assert float(tv(step())) == approx(16 / 64)
    assert float(tv(torch.full((1, 1, 4, 4, 4), 0.7))) == 0
    # A slope of (0.3, 0.4, 0) is 0.5 long, but in the last planes, where one or both differences are missing.
    i, j, _ = torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij")
    ramp = (0.3 * i + 0.4 * j)[None, None]
    assert float(tv(ramp)) == approx((16 * 0.5 + 4 * 0.3 + 4 * 0.4) / 25)
    x = volume()
    cost = TV().cost(gradient(x, [1.0] * 3, [NEUMANN] * 3))
    assert float(tv(x, volume(1))) == approx(float(cost) / x.numel())


def test_frequency_is_the_mean_modulus_of_the_spectrum():
    estimate, truth = volume(), volume(1)
    spectrum = np.fft.fftn((estimate - truth).numpy(), axes=(2, 3, 4), norm="ortho")
    assert float(frequency(estimate, truth)) == approx(np.abs(spectrum).mean())
    assert np.square(np.abs(spectrum)).mean() == approx(float(l2(estimate, truth)))
    # Shifted, every modulus stays; only phases tell.
    assert float(frequency(truth.roll(3, 2), truth)) > 0.1


def test_ssim_is_scikit_images():
    from skimage.metrics import structural_similarity

    truth = volume(shape=(2, 1, 16, 14, 15))
    for estimate in (truth + 0.2 * volume(1, truth.shape), 0.5 * truth, 1 - truth, torch.zeros_like(truth)):
        similarities = [
            structural_similarity(x[0].numpy(), y[0].numpy(), data_range=1.0, gaussian_weights=True)
            for x, y in zip(estimate, truth, strict=True)
        ]
        wanted = np.mean(similarities)
        assert 1 - float(ssim(estimate, truth)) == approx(wanted)
        assert 1 - float(ssim(estimate.float(), truth.float())) == approx(wanted, rel=1e-4)


def test_ssim_of_bright_flat_volumes_survives_rounding():
    """In single precision the variance of such values comes out negative as often as not."""
    truth = torch.full((1, 1, 14, 14, 14), 300.1)
    assert float(ssim(truth, truth)) == 0
    assert 0 < float(ssim(truth + 0.01 * volume(shape=truth.shape, dtype=truth.dtype), truth)) < 0.1


def test_ssim_needs_its_window():
    with pytest.raises(InvsrError, match="10x12x12 voxels: its window needs 11"):
        ssim(volume(shape=(1, 1, 10, 12, 12)), volume(1, (1, 1, 10, 12, 12)))
    assert float(ssim(volume(shape=(1, 1, 11, 11, 11)), volume(1, (1, 1, 11, 11, 11)))) > 0.1


# Features -----------------------------------------------------------------------------------------------------------


class Pyramid(nn.Module):
    def forward(self, x):
        return x, 3 * nn.functional.avg_pool3d(x, 2)


def test_perceptual_averages_maps():
    x = volume(shape=(1, 1, 8, 8, 8))
    assert float(perceptual(Pyramid())(x + 0.1, x)) == approx((0.1 + 0.3) / 2)


def test_perceptual_trains_the_estimate_alone():
    features = nn.Sequential(nn.Conv3d(1, 3, 3), nn.Dropout(0.5), nn.Tanh()).double()
    estimate, truth = (volume(seed, (1, 1, 5, 5, 5)).requires_grad_() for seed in (0, 1))
    loss = perceptual(features)
    assert loss(truth, truth).item() == 0  # two random dropouts would differ
    assert torch.autograd.gradcheck(lambda x: loss(x, truth.detach()), estimate, fast_mode=True)
    loss(estimate, truth).backward()
    assert bool((estimate.grad != 0).any()) and truth.grad is None
    assert features.training and all(p.grad is None and p.requires_grad for p in features.parameters())
    assert not loss(estimate.detach(), truth).requires_grad
    before = loss(estimate, truth).item()
    with torch.no_grad():
        features[0].weight.zero_()
    assert loss(estimate, truth).item() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: UNet(channels=(4, 6)),
        lambda: DnCNN(channels=4, depth=3),
        lambda: GradientStep(UNet(channels=(4, 6), activation="elu")),
    ],
)
def test_perceptual_takes_denoisers_for_the_noise_they_find(make):
    torch.manual_seed(0)
    network = make().double()
    estimate, truth = (volume(seed, (1, 1, 6, 6, 6)) for seed in (0, 1))
    with torch.no_grad():
        noise, wanted = (x - network(x, FEATURE_SIGMA) for x in (estimate, truth))
    loss = perceptual(network)
    assert float(loss(estimate, truth)) == approx(float((noise - wanted).abs().mean()))
    assert float(loss(truth, truth)) == 0
    if not isinstance(network, GradientStep):  # whose slopes take seconds to get ready, and are tested with it
        assert torch.autograd.gradcheck(lambda x: loss(x, truth), estimate.requires_grad_(), fast_mode=True)


def test_perceptual_refuses():
    with pytest.raises(InvsrError, match="of slices"):
        perceptual(DnCNN(dim=2, channels=4, depth=3))
    with pytest.raises(InvsrError, match="5x6x6 voxels: the network needs multiples of 2"):
        perceptual(UNet(channels=(4, 6)))(*[torch.zeros(1, 1, 5, 6, 6)] * 2)


# Sums ---------------------------------------------------------------------------------------------------------------


def test_a_sum_is_the_sum_of_its_terms():
    estimate, truth = volume(), volume(1)
    mix = combined("charbonnier + 0.1 edge + 0.05 ssim")
    terms = mix.terms(estimate, truth)
    assert list(terms) == ["charbonnier", "edge", "ssim"]
    for name, weight in zip(terms, (1, 0.1, 0.05), strict=True):
        assert float(terms[name]) == approx(weight * float(LOSSES[name](estimate, truth)))
    assert float(mix(estimate, truth)) == approx(sum(map(float, terms.values())))
    estimate.requires_grad_()
    (slope,) = torch.autograd.grad(mix(estimate, truth), estimate)
    (again,) = torch.autograd.grad(charbonnier(estimate, truth) + 0.1 * edge(estimate, truth), estimate)
    (rest,) = torch.autograd.grad(0.05 * ssim(estimate, truth), estimate)
    torch.testing.assert_close(slope, again + rest)


@pytest.mark.parametrize(
    "text, weights",
    [
        ("l1", {"l1": 1}),
        ("  l2  ", {"l2": 1}),
        ("edge+2 l1+l2", {"edge": 1, "l1": 2, "l2": 1}),
        ("1e-3 tv + 1e+2 l1+5.E+1 l2", {"tv": 1e-3, "l1": 100, "l2": 50}),
        (".5 physics + frequency", {"physics": 0.5, "frequency": 1}),
    ],
)
def test_weights_are_read(text, weights):
    assert combined(text).weights == weights


def test_every_name_can_be_a_term():
    estimate, truth = (volume(seed, (1, 1, 12, 12, 12)) for seed in (0, 1))
    mask = torch.zeros(12, 12, 12)
    mask[:6] = 1
    A, y = Diagonal(GRID, mask), mask * truth
    names = [*LOSSES, "perceptual", "physics"]
    mix = combined(" + ".join(f"2 {name}" for name in names), features=Pyramid())
    terms = mix.terms(estimate, truth, A, y, 0.1)
    assert list(terms) == names
    assert float(terms["physics"]) == approx(2 * float(physics(estimate, A, y, 0.1)))
    assert float(terms["perceptual"]) == approx(2 * float(perceptual(Pyramid())(estimate, truth)))
    assert float(mix(estimate, truth, operator=A, y=y, sigma=0.1)) == approx(sum(map(float, terms.values())))


@pytest.mark.parametrize(
    "text, words",
    [
        ("l3", "no loss 'l3' in 'l3': there are l1, l2"),
        ("", "no loss ''"),
        ("l1 + ", "no loss ''"),
        ("0.1", "no loss '0.1'"),
        ("0.1edge", "no loss '0.1edge'"),
        ("l1 - edge", "weight of edge .* 'l1 -'"),
        ("x l1", "weight of l1 in 'x l1' is 'x'"),
        ("-1 l1", "is '-1'"),
        ("0 l1", "above zero"),
        ("nan l1", "above zero"),
        ("inf l1", "above zero"),
        ("1 2 l1", "is '1 2'"),
        ("l1 + 2 l1", "l1 comes twice"),
        ("l1 + perceptual", "give the network"),
    ],
)
def test_what_cannot_be_read(text, words):
    with pytest.raises(InvsrError, match=words):
        combined(text)


@pytest.mark.parametrize("missing", ["operator", "y", "sigma"])
def test_physics_needs_the_scan(missing):
    x = torch.zeros(1, 1, 12, 12, 12)
    given = {"operator": Identity(GRID), "y": x, "sigma": 1.0, missing: None}
    with pytest.raises(InvsrError, match="operator, y and sigma"):
        combined("l1 + physics")(x, x, **given)
