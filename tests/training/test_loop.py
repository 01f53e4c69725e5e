"""The training loop's own parts; runs of it are tested with the networks."""

import itertools

import pytest
import torch
from torch import nn

from invsr.training.loop import _rate, _running_mean


def test_running_mean_forgets_the_start():
    layer = nn.Linear(1, 1, bias=False)
    average = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=_running_mean(0.998))
    for step in range(100):
        with torch.no_grad():
            layer.weight.fill_(0.0 if step < 10 else 1.0)
        average.update_parameters(layer)
    # A decay of 0.998 from the first step on would still hold 0.998^90 = 84 % of the start.
    assert float(average.module.weight.detach()) > 0.99


def test_running_mean_keeps_its_decay_in_long_runs():
    mean, weight = torch.ones(3), torch.zeros(3)
    _running_mean(0.9)([mean], [weight], torch.tensor(10_000))
    torch.testing.assert_close(mean, torch.full((3,), 0.9))


def test_rate_rises_and_falls_to_nothing():
    rates = [_rate(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(rates[99], rel=0.03)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[99:])) and rates[-1] == 0
