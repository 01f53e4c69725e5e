"""A trained solver on several contrasts: each is judged, and held to its noise, by itself."""

import pytest
import torch
from torch import nn

from invsr.grid import Grid
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.levels import peak
from invsr.operators import acquisition
from invsr.priors import Prior
from invsr.solvers import HQS, Status, Unrolled
from invsr.solvers.contrasts import Contrast, joint_start, solve_contrasts
from invsr.testing.phantoms import centred_grid, shapes

F64 = torch.float64


class Shrink(Prior):
    """A denoiser that treats each contrast by itself, smaller where the noise is larger."""

    def __init__(self, strength=0.3):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength, dtype=F64))

    def prox(self, v, sigma):
        return v * (1 + 0.1 * torch.tanh(v)) / (1 + self.strength * sigma)


def contrast(step, sigma, told, seed):
    """A contrast of which noise of `sigma` is measured and `told` is said."""
    grid = centred_grid((12, 12, 12), 1.0)
    operator = acquisition(Grid(grid.shape, grid.affine).coarsen(step), reference=grid)
    truth = shapes(grid, n_samples=4, size=12.0).double()
    generator = torch.Generator().manual_seed(seed)
    y = operator(truth)
    y = y / peak(y) + sigma * torch.randn(y.shape, dtype=F64, generator=generator)
    y = y / peak(y)
    return Contrast(operator, y, told, (Gaussian(told),))


@pytest.mark.parametrize("told", [0.05, 0.12, 0.02])
def test_a_prior_for_each_gives_what_each_has_alone(told):
    """Whether the noise is as said, less (a higher level is tried) or more (the penalty is found anew)."""
    solver = Unrolled(HQS(), Shrink(), 3).double()
    both = [contrast((1, 1, 3), 0.05, told, 0), contrast((3, 1, 1), 0.05, 0.05, 1)]
    starts = torch.split(joint_start(both), 1, 1)
    for found, one, start in zip(solve_contrasts(solver, both), both, starts, strict=True):
        alone = solver.solve(one.operator, one.y, one.sigma, start)
        torch.testing.assert_close(found.x, alone.x, rtol=1e-5, atol=1e-6)
        assert found.chi2 == pytest.approx(alone.chi2, rel=1e-4) and found.gain == pytest.approx(alone.gain)
        assert found.lam == pytest.approx(alone.lam, rel=1e-4) and len(found.history) == 3
        assert found.status is Status.CONVERGED


def test_the_start_does_not_depend_on_which_contrast_is_first():
    """But for its weight, which one contrast's figures set where noise differs."""
    both = [contrast((1, 1, 3), 0.05, 0.05, 0), contrast((3, 1, 1), 0.05, 0.05, 1)]
    torch.testing.assert_close(joint_start(both), joint_start(both[::-1])[:, [1, 0]], rtol=1e-6, atol=1e-6)


def test_a_resolved_contrast_keeps_what_the_others_begin_with():
    solver = Unrolled(HQS(), Shrink(), 3).double()
    both = [contrast((1, 1, 1), 0.05, 0.05, 0), contrast((3, 1, 1), 0.05, 0.05, 1)]
    found, plain = solve_contrasts(solver, both, resolved=[0]), solve_contrasts(solver, both)
    torch.testing.assert_close(found[0].x, joint_start(both)[:, :1])
    torch.testing.assert_close(found[1].x, plain[1].x)
    assert found[0].chi2 == pytest.approx(both[0].chi2(both[0].operator(found[0].x)))
    assert not torch.equal(found[0].x, plain[0].x) and found[0].status is Status.CONVERGED


def test_progress_is_told():
    told = []
    solver = Unrolled(HQS(), Shrink(), 3).double()
    solve_contrasts(solver, [contrast((1, 1, 3), 0.05, 0.05, 0)], lambda done, figures: told.append(done))
    assert told == sorted(told) and told[-1] == 1
