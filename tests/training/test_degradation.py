"""The errors that a prior is trained to remove, and the level it is given."""

import pytest
import torch

from invsr.training.degradation import Degradation

FLAT = torch.full((1, 24, 24, 24), 0.5)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def rms(error):
    return float(error.square().mean().sqrt())


def test_white_noise_has_the_level_it_says():
    levels = []
    for seed in range(30):
        noisy, assumed = Degradation(sigma=(0.01, 0.2), measured=0)(FLAT, seeded(seed))
        assert rms(noisy - FLAT) == pytest.approx(float(assumed), rel=0.03)  # 13824 voxels: 0.6 %
        levels.append(float(assumed))
    assert 0.01 <= min(levels) < 0.02 and 0.1 < max(levels) <= 0.2


def test_same_generator_same_errors():
    for measured in (0.0, 1.0):
        once, again, other = (Degradation(measured=measured)(FLAT, seeded(n)) for n in (4, 4, 5))
        assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])
        assert not torch.equal(once[0], other[0])


def test_a_share_is_measured():
    sharp = torch.rand(FLAT.shape, generator=seeded(0))
    noise = Degradation(sigma=(1e-3, 1e-3), measured=0.5)
    kept = sum(rms(noise(sharp, seeded(n))[0] - sharp) < 2e-3 for n in range(60))
    assert 15 < kept < 45


def test_slices_of_a_constant_are_constant():
    """And what is added to measured patches stays within the range of noise levels, here nearly none."""
    quiet = Degradation(sigma=(1e-6, 1e-6), measured=1, slice_noise=(1e-6, 1e-6), truncated=0)
    for seed in range(20):
        image, _ = quiet(FLAT, seeded(seed))
        # What is beyond the first and last slice is guessed; the inverse pulls gaps towards 0, by less than 1 %.
        assert rms((image - FLAT)[:, 8:-8, 8:-8, 8:-8]) < 5e-3


def test_told_level_is_roughly_right():
    """A quarter of jitter, log-normal: 20 levels within four of its standard deviations, their mean within one."""
    sharp = torch.rand(FLAT.shape, generator=seeded(0))
    ratios = []
    for seed in range(20):
        image, assumed = Degradation(measured=1)(sharp, seeded(seed))
        ratios.append(torch.log(assumed / rms(image - sharp)))
    assert max(map(abs, ratios)) < 1
    assert abs(sum(ratios) / 20) < 0.25 and 0.1 < torch.stack(ratios).std() < 0.4


def test_slices_lie_across_every_axis():
    sharp = torch.rand(FLAT.shape, generator=seeded(0))
    blurred = set()
    for seed in range(15):
        image, _ = Degradation(sigma=(1e-6, 1e-6), measured=1, truncated=0)(sharp, seeded(seed))
        slopes = [rms(image.diff(dim=axis)) for axis in (1, 2, 3)]
        blurred.add(slopes.index(min(slopes)))
    assert blurred == {0, 1, 2}
