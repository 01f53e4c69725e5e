"""Total variation of several contrasts: singular values of each voxel's gradients."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.priors import TV, JointTV


def gradients(contrasts=3, seed=0, scale=1.0):
    """Random, parallel, orthogonal, equal and absent gradients."""
    v = scale * torch.randn(3, 2, contrasts, 6, 5, 4, generator=torch.Generator().manual_seed(seed))
    v[:, :, :, 0] *= 1e-4
    v[:, :, :, 1] = 0
    v[1:, :, :, 2] = 0
    v[:, :, :, 3] = v[:, :, :1, 3]
    v[:, :, :, 4] = scale * torch.eye(3, contrasts).reshape(3, 1, contrasts, 1, 1)
    return v


@pytest.mark.parametrize("contrasts", [1, 2, 3, 5])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0])
def test_the_prox_shortens_singular_values(contrasts, sigma):
    v = gradients(contrasts)
    u, s, w = torch.linalg.svd(v.movedim((0, 2), (-2, -1)).double(), full_matrices=False)
    expected = (u * (s - sigma**2).clamp(min=0)[..., None, :] @ w).movedim((-2, -1), (0, 2))
    torch.testing.assert_close(JointTV().prox(v, sigma).double(), expected, atol=1e-5, rtol=1e-5)
    assert float(JointTV().cost(v)) == pytest.approx(float(s.sum()), rel=1e-3)


def test_one_contrast_is_total_variation():
    v = gradients(1)
    for norm in ("nuclear", "euclidean"):
        for huber in (0.0, 0.5):
            joint, plain = JointTV(huber, norm), TV(huber)
            torch.testing.assert_close(joint.prox(v, 0.7), plain.prox(v, 0.7))
            torch.testing.assert_close(joint.cost(v), plain.cost(v))


def test_the_world_may_turn():
    v, turn = gradients(), torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    turned = torch.einsum("ab,b...->a...", turn, v)
    torch.testing.assert_close(JointTV().prox(turned, 0.8), torch.einsum("ab,b...->a...", turn, JointTV().prox(v, 0.8)))


def test_an_edge_in_one_contrast_makes_room_for_parallel_ones_alone():
    v = torch.zeros(3, 1, 2, 1, 1, 1)
    v[0, 0, 0] = 5.0
    parallel, crossed = v.clone(), v.clone()
    parallel[0, 0, 1] = crossed[1, 0, 1] = 0.9
    prior = JointTV()
    assert float(prior.prox(parallel, 1.0)[0, 0, 1]) > 0.7
    assert float(prior.prox(crossed, 1.0)[1, 0, 1]) == pytest.approx(0, abs=1e-4)
    assert float(JointTV(norm="euclidean").prox(crossed, 1.0)[1, 0, 1]) > 0.7


@pytest.mark.parametrize("norm", ["nuclear", "euclidean"])
def test_gradients_of_the_prox(norm):
    v = torch.randn(3, 1, 2, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda t: JointTV(norm=norm).prox(t, 0.6), v.requires_grad_())
    assert torch.autograd.gradcheck(lambda t: JointTV(norm=norm).cost(t), v)


def test_refuses():
    with pytest.raises(InvsrError, match="unknown norm 'l7'"):
        JointTV(norm="l7")
    with pytest.raises(InvsrError, match="real contrasts"):
        JointTV().prox(torch.zeros(3, 1, 2, 2, 2, 2, dtype=torch.complex64), 1.0)
