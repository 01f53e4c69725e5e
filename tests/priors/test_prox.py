"""Every proximal step against brute-force minimisation of what it claims to minimise."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from invsr.errors import InvsrError
from invsr.priors import TV, JointTV, Prior, Tikhonov

PRIORS = {
    "tv": TV(),
    "tv huber": TV(huber=0.5),
    "joint tv, nuclear": JointTV(),
    "joint tv, nuclear huber": JointTV(huber=0.5),
    "joint tv, euclidean": JointTV(norm="euclidean"),
    "tikhonov gradient": Tikhonov("gradient"),
    "tikhonov identity": Tikhonov("identity"),
}


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.parametrize("scale", [0.4, 2.0])
def test_prox_minimises(name, sigma, scale):
    prior = PRIORS[name]
    # Two vectors of three: Nelder and Mead's time grows with more than the square of the number of unknowns.
    shape = (3, 1, 1, 2, 1, 1) if prior.analysis == "gradient" else (1, 1, 3, 2, 1)
    shape = (3, 1, 2, 1, 1, 1) if name.startswith("joint") else shape
    v = scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def objective(z):
        z = torch.from_numpy(np.asarray(z)).reshape(shape)
        return float(0.5 * (z - v).square().sum() + sigma**2 * prior.cost(z))

    found = prior.prox(v, sigma)
    # Nelder-Mead knows no derivative, which total variation lacks at zero; restarted, because it stalls. The
    # objective is convex: from beside the prox as from anywhere else, it ends at the minimum.
    best = found.flatten().numpy() + 0.1 * np.random.default_rng(0).standard_normal(v.numel())
    for _ in range(6):
        before = objective(best)
        best = minimize(objective, best, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x
        if before - objective(best) < 1e-12:
            break
    assert objective(found.flatten().numpy()) <= objective(best) + 1e-9
    np.testing.assert_allclose(found.flatten().numpy(), best, atol=5e-3)


@pytest.mark.parametrize("name", PRIORS)
def test_prox_does_not_change_its_argument_and_is_differentiable(name):
    prior = PRIORS[name]
    v = torch.randn(3, 1, 1, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    kept = v.clone()
    prior.prox(v, 0.7)
    assert torch.equal(v, kept)
    assert torch.autograd.gradcheck(lambda t: prior.prox(t, 0.2), v.requires_grad_())


def test_tv_of_zero_is_zero_and_long_vectors_lose_the_threshold():
    assert not TV().prox(torch.zeros(3, 1, 1, 2, 2, 2), 1.0).any()
    out = TV().prox(torch.full((3, 1, 1, 1, 1, 1), 10.0), 2.0)
    assert float(out.square().sum().sqrt()) == pytest.approx(300**0.5 - 4, rel=1e-6)


def test_refuses():
    with pytest.raises(InvsrError, match="huber"):
        TV(-1.0)
    with pytest.raises(InvsrError, match="huber is 1e.300"):
        TV(1e300)
    with pytest.raises(InvsrError, match="analysis"):
        Tikhonov("wavelets")
    with pytest.raises(TypeError, match="does not define prox"):
        Prior().prox(torch.zeros(1), 1.0)
    assert Prior().cost(torch.zeros(1)) is None
