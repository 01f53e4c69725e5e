"""The loss by the scan's own samples: 1 for noise alone, of slices, k-space and several scans."""

import math

import pytest
import torch
from loss_volumes import GRID, approx, volume

from invsr.errors import InvsrError
from invsr.operators.kspace import KSpaceMask
from invsr.operators.scan_model import acquisition
from invsr.operators.separable import Identity
from invsr.operators.stack import Stack
from invsr.training.losses import physics


def test_physics_is_1_for_noise_alone():
    truth = volume(shape=(8, 1, 12, 12, 12))
    A = acquisition(GRID.coarsen((1, 1, 4)), reference=GRID)
    noise = torch.randn(A(truth).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = A(truth) + 0.02 * noise
    assert float(physics(truth, A, A(truth), 0.02)) == 0
    assert float(physics(truth, A, y, 0.02)) == approx(float(noise.square().mean()), rel=1e-9)
    assert float(physics(truth, A, y, 0.02)) == pytest.approx(1, rel=0.1)
    assert float(physics(truth, A, y, 0.01)) == approx(4 * float(physics(truth, A, y, 0.02)))
    estimate = volume(2, (8, 1, 12, 12, 12)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: physics(x, A, y, 0.02), estimate, fast_mode=True)


def test_physics_with_a_level_for_each_volume():
    x, A = torch.zeros(2, 1, 12, 12, 12), 2.0 * Identity(GRID)
    y = torch.ones_like(x)
    assert float(physics(x, A, y, torch.tensor([1.0, 0.5]))) == approx((1 + 4) / 2)


def test_physics_of_k_space():
    x = volume(shape=(1, 1, 12, 12, 12))
    A = KSpaceMask(GRID, torch.ones(12, 12, 12))
    y = A(x) + (0.3 + 0.4j)
    assert float(physics(x, A, y, 0.1)) == approx(25)


def test_physics_of_several_scans():
    x = volume(shape=(1, 1, 12, 12, 12))
    A = Stack([acquisition(GRID.coarsen(factors), reference=GRID) for factors in ((1, 1, 4), (2, 1, 1))], [1.0, 4.0])
    one, two = (member(x) for member in A.members)
    # 432 samples that are 1 off, and 864 that are 2 off with the weight 4.
    assert float(physics(x, A, A.weigh((one + 1, two + 2)), 1.0)) == approx((432 * 1 + 864 * 16) / (432 + 864))


def test_physics_refuses():
    x, A = torch.zeros(2, 1, 12, 12, 12), Identity(GRID)
    with pytest.raises(InvsrError, match=r"produces data of shape \[\(2, 1, 12"):
        physics(x, A, torch.zeros(1, 1, 12, 12, 12), 1.0)
    for sigma in (0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0])):
        with pytest.raises(InvsrError, match="sigma is"):
            physics(x, A, x, sigma)
