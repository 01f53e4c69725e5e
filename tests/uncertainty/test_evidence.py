"""What the data say and what the prior adds: parts that add up, and a lesion that no data speak for."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.operators import Identity, Stack, acquisition
from invsr.testing.phantoms import centred_grid, shapes
from invsr.uncertainty.evidence import split_evidence

SIDE = 32
GRID = centred_grid((SIDE,) * 3)
THICK = GRID.coarsen((1, 1, 4))
A = acquisition(THICK, reference=GRID)
SIGMA = 0.01


@pytest.fixture(scope="module")
def phantom():
    return shapes(GRID, size=SIDE - 4.0, n_samples=64)


@pytest.fixture(scope="module")
def lesion():
    """A ball, and what of it the operator cannot see."""
    distance = torch.from_numpy(GRID.points() - GRID.centre - [3.0, -4.0, 1.0]).norm(dim=-1)[None, None]
    ball = torch.sigmoid(4 * (2.0 - distance))
    # Directions with singular values above nothing are taken out by a projection in double precision.
    hidden = ball - A.solve(A.gram(ball), 1e-10).x
    assert float(A(hidden).abs().max()) < 1e-6 and float(hidden.abs().max()) > 0.1
    return ball, hidden


@pytest.mark.parametrize("operator", [A, Stack([A, acquisition(GRID.coarsen((4, 1, 1)), reference=GRID)])])
def test_parts_add_up_to_the_volume(phantom, operator):
    found = split_evidence(operator, phantom, SIGMA, 4.0)
    torch.testing.assert_close(found.data + found.prior, phantom, atol=1e-5, rtol=0)
    assert 0 < found.energy < found.detail < 0.9
    assert float(found.share.min()) >= 0 and float(found.share.max()) <= 1


def test_a_lesion_in_the_null_space_is_the_priors(phantom, lesion):
    phantom = phantom.double()
    _, hidden = lesion
    before, after = (split_evidence(A, x, SIGMA, 4.0) for x in (phantom, phantom + hidden))
    torch.testing.assert_close(after.prior - before.prior, hidden, atol=2e-3, rtol=0)
    assert float((after.data - before.data).abs().max()) < 2e-3
    inside = hidden.abs() > 0.1
    assert float(after.share[inside].mean()) > float(before.share[inside].mean()) + 0.2


def test_a_large_lesion_is_the_datas(phantom):
    phantom = phantom.double()
    distance = torch.from_numpy(GRID.points() - GRID.centre).norm(dim=-1)[None, None]
    blob = 0.3 * torch.exp(-0.5 * (distance / 6) ** 2)
    before, after = (split_evidence(A, x, SIGMA, 4.0) for x in (phantom, phantom + blob))
    assert float((after.data - before.data - blob).norm() / blob.norm()) < 0.03


def test_a_constant_is_the_datas_alone(phantom):
    assert float(split_evidence(A, torch.full_like(phantom, 0.7), SIGMA, 4.0).prior.abs().max()) < 1e-5


def test_what_is_measured_as_it_is_leaves_nothing_to_the_prior(phantom):
    still = acquisition(GRID, reference=GRID, slice_profile="none")
    found = split_evidence(still, phantom, 1e-4, 4.0)
    assert found.energy < 1e-5 and float(found.prior.abs().max()) < 1e-4


def test_two_directions_determine_more_than_one(phantom):
    both = Stack([A, acquisition(GRID.coarsen((4, 1, 1)), reference=GRID)])
    assert split_evidence(both, phantom, SIGMA, 4.0).detail < 0.7 * split_evidence(A, phantom, SIGMA, 4.0).detail


@pytest.mark.parametrize(
    ("x", "words"), [(torch.zeros(1, 1, 4, 4, 4), "0 everywhere"), (1j * torch.ones(1, 1, 4, 4, 4), "complex")]
)
def test_there_is_something_to_split(x, words):
    with pytest.raises(InvsrError, match=f"x is {words}"):
        split_evidence(Identity(centred_grid((4, 4, 4), 1.0)), x, 0.1, 2.0)
