"""The last steps of an equilibrium: they take off the noise that its fixed point keeps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from invsr.numerics.iteration import ProgressCallback, Steps
from invsr.solvers.plug_and_play import LAST_LEVEL, learnt_weights
from invsr.solvers.state import Problem, Step
from invsr.solvers.weighting import LEAST_NOISE


class Ending(nn.Module):
    """Steps with noise levels and weights of their own, from the volume at the fixed point.

    The k-th of K steps, k from 1, has the level ``exp(level[k]) LAST_LEVEL^(k / K) sigma`` and the weight
    ``exp(weight[k]) PRIOR_WEIGHT sigma^2``: before training, the last one is that of plug-and-play.

    Parameters
    ----------
    n_steps : int
        At least 1.

    Attributes
    ----------
    level, weight : nn.Parameter, shape (n_steps,)
    """

    def __init__(self, n_steps: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(n_steps))
        self.weight = nn.Parameter(torch.zeros(n_steps))

    def forward(
        self,
        step: Step,
        x: Tensor,
        problem: Problem,
        sigma: float | Tensor,
        scale: float = 1.0,
        progress: ProgressCallback | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The volume after the steps, and lam and rho of the last one.

        Parameters
        ----------
        step : Step
        x : Tensor, shape (batch, channel, *problem.operator.domain.shape)
        problem : Problem
        sigma, scale : float
            Noise of the data, and level of bright tissue.
        progress : callable, optional
            Called with the share of the steps that is done, 0 to 1.
        """
        state, n_steps, steps = step.start(problem, x), len(self.level), Steps(progress)
        noise = torch.as_tensor(sigma, dtype=x.real.dtype, device=x.device).clamp(min=LEAST_NOISE * scale)
        for k in range(n_steps):
            variance = (self.level[k].exp() * LAST_LEVEL ** ((k + 1) / n_steps) * noise) ** 2
            lam, rho = learnt_weights(step, problem, variance, self.weight[k], noise)
            with steps.step(n_steps - k):
                state = step(state, problem, lam, rho)
            steps.tell({})
        return state.x, lam, rho
