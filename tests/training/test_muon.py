"""Steps along the nearest orthogonal matrix."""

import pytest
import torch

from invsr.training.muon import STEP_SIZE, Muon, orthogonal


def test_singular_values_become_about_one():
    torch.manual_seed(0)
    for shape in ((6, 40), (40, 6), (16, 16), (1, 30)):
        matrix = torch.randn(shape)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        found = orthogonal(matrix)
        assert found.shape == shape
        # Small singular values, as of the square matrix, take more rounds.
        values = (u.T @ found @ v.T).diagonal()[s > 0.1 * s.max()]
        assert values.min() > 0.6 and values.max() < 1.3
        assert torch.equal(orthogonal(torch.zeros(shape)), torch.zeros(shape))


def test_size_and_direction_of_a_step():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3, 3).contiguous(memory_format=torch.channels_last_3d))
    before, gradient = weight.detach().clone(), torch.randn_like(weight)
    weight.grad = gradient.clone()
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    step = (weight.detach() - before).reshape(8, -1)
    # Eight orthonormal rows of 108: their entries' root mean square is 1 / sqrt(108).
    assert abs(float(step.square().mean().sqrt()) / (0.01 * STEP_SIZE) - 1) < 0.2
    torch.testing.assert_close(
        step, -0.01 * STEP_SIZE * 108**0.5 * orthogonal(gradient.reshape(8, -1)), rtol=1e-3, atol=1e-6
    )


def test_brings_a_least_squares_problem_down():
    torch.manual_seed(0)
    inputs, truth = torch.randn(64, 10), torch.randn(10, 5)
    weight = torch.nn.Parameter(torch.zeros(10, 5))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, 200)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = (inputs @ (weight - truth)).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
        schedule.step()
    assert losses[-1] < 0.03 * losses[0]


def test_vectors_and_numbers_step_along_their_momentum():
    vector, number = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((3,), ()))
    (3 * vector[0] - 4 * vector[2] - 2 * number).backward()
    Muon([vector, number], lr=0.1, weight_decay=0.0).step()
    first, middle, last = vector.tolist()
    assert middle == 0 and first / last == pytest.approx(-0.75) and first < 0
    assert 0.01 < number.item() < 0.03


def test_weights_without_a_gradient_stay_and_the_state_is_kept():
    weights = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    optimiser = Muon(weights)
    weights[0].grad = torch.eye(3)
    optimiser.step()
    assert torch.equal(weights[1], torch.ones(3, 3)) and not torch.equal(weights[0], torch.ones(3, 3))
    again = Muon(weights)
    again.load_state_dict(optimiser.state_dict())
    assert torch.equal(again.state[weights[0]]["momentum"], optimiser.state[weights[0]]["momentum"])


def test_momentum_never_decays_into_denormals():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimiser = Muon([weight])
    weight.grad = torch.full((4, 4), 1e-20)
    for _ in range(1200):
        optimiser.step()
        weight.grad.zero_()
    assert not optimiser.state[weight]["momentum"].any()
