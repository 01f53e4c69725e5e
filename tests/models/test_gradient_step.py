"""The gradient step: the cost that it descends on, and its derivative."""

import pytest
import torch
from denoising_networks import F64, GRADIENT, images, made, noise, sides
from torch import nn

from invsr.models.gradient_step import RANGE


@pytest.mark.parametrize("name", GRADIENT)
def test_gradient_step_descends_on_its_cost(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=2).requires_grad_()
    levels = torch.tensor([0.1, 0.4], dtype=F64)
    cost = network.cost(x, levels)
    assert cost.shape == (2,)
    removed, outside = x - network.network(x, levels), x - x.clamp(*RANGE)
    assert outside.any()
    expected = 0.5 * (removed.square() + outside.square()).flatten(1).sum(1)
    torch.testing.assert_close(cost, expected)
    (slope,) = torch.autograd.grad(cost.sum(), x)
    torch.testing.assert_close(network(x, levels), x - slope, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(network(x, levels), x - slope, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENT)
def test_cost_is_never_negative_and_zero_where_nothing_is_removed(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=4).clamp(*RANGE)
    assert (network.cost(x, 0.1) > 0).all() and (network.cost(x + 2, 0.1) > network.cost(x, 0.1) + 1).all()
    assert not network.cost(0 * x, 0.0).any()
    nn.init.zeros_(list(network.parameters())[-1])  # N(x) = x
    assert not network.cost(x, 0.1).any()
    assert torch.equal(network(x, 0.1), x)


def slopes(network, x, sigma):
    """``x - grad g`` differentiated twice by autograd."""
    x = x if x.requires_grad else x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network.cost(x, sigma).sum(), x, create_graph=True)
    return x - slope


@pytest.mark.parametrize("name", GRADIENT)
def test_derivative_of_the_gradient_step_is_the_second_one_of_its_cost(name):
    network = made(f"gradient step, {name}")
    x = images(network, *sides(network), batch=2).requires_grad_()
    w, levels = noise(*x.shape, seed=1), torch.tensor([0.1, 0.4], dtype=F64, requires_grad=True)
    variables = [x, levels, *network.parameters()]
    found = torch.autograd.grad(network(x, levels), variables, w)
    expected = torch.autograd.grad(slopes(network, x, levels), variables, w)
    assert (found[0] - w).abs().max() > 1e-2
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_derivatives_of_the_gradient_step_that_are_not_asked_for():
    network = made("gradient step, UNet 3-D, elu")
    x = images(network, 4, 4, 6)
    w, last = noise(*x.shape, seed=1), list(network.parameters())[-1]
    expected_x, expected_last = torch.autograd.grad(slopes(network, x.requires_grad_(), 0.2), [x, last], w)
    network.requires_grad_(False)
    (found,) = torch.autograd.grad(network(x, 0.2), x, w)
    torch.testing.assert_close(found, expected_x)
    last.requires_grad_()
    (found,) = torch.autograd.grad(network(x.detach(), 0.2), last, w)
    torch.testing.assert_close(found, expected_last)
    assert not network.requires_grad_(False)(x.detach(), 0.2).requires_grad


def test_gradient_step_passes_gradcheck():
    network = made("gradient step, UNet 2-D, elu")
    x = images(network, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: network(t, 0.2), x)


def test_gradient_step_is_differentiable_twice():
    network = made("gradient step, UNet 2-D, elu")
    x, w = images(network, 4, 4).requires_grad_(), noise(1, 1, 4, 4, seed=1).requires_grad_()
    weight = network.network.tail.weight

    def derivatives(step):
        (once,) = torch.autograd.grad(step(x), x, w, create_graph=True)
        return torch.autograd.grad((once * noise(*x.shape, seed=2)).sum(), [x, w, weight])

    expected = derivatives(lambda t: slopes(network, t, 0.2))
    for found, other in zip(derivatives(lambda t: network(t, 0.2)), expected, strict=True):
        torch.testing.assert_close(found, other)
