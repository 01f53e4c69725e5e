"""Unrolling driver: a step repeated a fixed number of times, its numbers and its prior trained end to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Likelihood
from invsr.numerics.iteration import ProgressCallback, Status, Steps
from invsr.numerics.linear import number
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.discrepancy import match_discrepancy, run_with_enough_noise
from invsr.solvers.observation import Observation
from invsr.solvers.plug_and_play import FIRST_LEVEL, LAST_LEVEL, learnt_weights, smooth_guess
from invsr.solvers.residuals import back_project, gain, intensity_scale, likelihoods_of, target
from invsr.solvers.solution import Solution
from invsr.solvers.state import Problem, State, Step
from invsr.solvers.weighting import LEAST_NOISE, log_share


class Unrolled(nn.Module):
    """``x_K`` of K steps: an operator, data and their noise go in, a volume comes out, all of it differentiable.

    The k-th step has the noise level ``s_k exp(a_k)`` and the weight ``PRIOR_WEIGHT sigma^2 exp(b_k)``, with s_k
    falling as in plug-and-play and a_k, b_k trained: they start at 0, where this is plug-and-play, and the numbers
    stay positive. The operator is an argument: one set of weights serves any acquisition.

    Parameters
    ----------
    step : Step
        `HQS()`, `ADMM()`, `PGD()`.
    prior : Prior or sequence of Prior
        One that all steps share, or one for each.
    n_steps : int
    save_memory : bool
        Keep only what lies between the steps for the gradient, and compute the inside of each again when it is needed
        (gradient checkpointing; Griewank & Walther 2000, ACM Trans. Math. Softw. 26, 19-45).

    Attributes
    ----------
    level, weight : nn.Parameter, shape (n_steps,)
        a and b.

    Raises
    ------
    InvsrError
        When the number of steps and of priors do not fit.

    References
    ----------
    Monga, Li, Eldar (2021), IEEE Signal Process. Mag. 38, 18-44.
    Zhang, Van Gool, Timofte (2020), Deep unfolding network for image super-resolution, CVPR.

    Examples
    --------
    >>> import numpy as np, torch
    >>> import invsr
    >>> from invsr.priors import Denoiser
    >>> from invsr.models.networks import UNet
    >>> from invsr.solvers import HQS, Unrolled
    >>> grid = invsr.Grid((12, 12, 12), np.eye(4))
    >>> A = invsr.operators.acquisition(grid.coarsen((1, 1, 3)), reference=grid)
    >>> network = Unrolled(HQS(), Denoiser(UNet(channels=(4, 8)), symmetries=False), n_steps=3)
    >>> network(A, torch.rand(1, 1, 12, 12, 4), 0.01).shape
    torch.Size([1, 1, 12, 12, 12])
    """

    def __init__(
        self, step: Step, prior: Prior | Sequence[Prior], n_steps: int = 5, *, save_memory: bool = False
    ) -> None:
        super().__init__()
        priors = [prior] if isinstance(prior, Prior) else list(prior)
        if n_steps < 1 or len(priors) not in (1, n_steps):
            raise InvsrError(f"{n_steps} steps with {len(priors)} priors: give one prior, or one for each step")
        if any(one.analysis == GRADIENT for one in priors):
            raise InvsrError("an unrolled network needs a prior on the volume, not on its differences")
        self.step = step
        self.priors = nn.ModuleList(priors)
        self.n_steps = n_steps
        self.save_memory = save_memory
        self.level = nn.Parameter(torch.zeros(n_steps))
        self.weight = nn.Parameter(torch.zeros(n_steps))

    def forward(self, operator: LinearOperator, y: Data, sigma: float | Tensor, x0: Tensor | None = None) -> Tensor:
        """The volume.

        Parameters
        ----------
        operator : LinearOperator
        y : Tensor (or tuple of them for a stack)
            Data, scaled so that bright tissue is near 1 (`solve` takes any unit).
        sigma : float or Tensor, shape (contrast, 1, 1, 1)
            Standard deviation of their noise; of `Contrasts` one number for all, or one for each.
        x0 : Tensor, optional
            First guess; by default the smoothest volume that explains the data.
        """
        for state, _, _, _ in self.states(operator, y, sigma, x0):
            last = state
        return last.x

    def solve(
        self,
        operator: LinearOperator,
        y: Data,
        sigma: float,
        x0: Tensor | None = None,
        likelihood: Likelihood | tuple[Likelihood, ...] | None = None,
        progress: ProgressCallback | None = None,
        *,
        matched: bool = True,
    ) -> Solution:
        """The volume without gradients, with the history of the steps.

        As `forward`, and in addition `likelihood` (or one per scan of a stack), Gaussian by default; others re-target
        the data before every step (majorise-minimise). If `matched`, chi2 is brought into the band that is expected of
        slices: where the result would fit the noise, a higher noise level is assumed
        (`invsr.solvers.discrepancy.run_with_enough_noise`); where the last step leaves a chi2 that noise does not
        explain, its penalty is found anew (`match_discrepancy`, there). The history is that of the last run.
        """
        likelihoods = likelihoods_of(y, likelihood, sigma)
        with torch.no_grad():
            start = smooth_guess(operator, y) if x0 is None else x0
            scale = intensity_scale(y, likelihoods, start)
        history: list[dict[str, float]] = []

        def run(
            seen: Observation, assumed_sigma: float, inner: ProgressCallback | None
        ) -> tuple[tuple[Tensor, Tensor, Tensor, Data], float]:
            history.clear()
            steps = Steps(inner)
            states = self.states(seen.operator, seen.y, assumed_sigma, seen.guess, seen.likelihoods, scale)
            for state, before, lam, rho in steps.over(states, self.n_steps):
                prediction = seen.operator(state.x)
                entry = {
                    "lam": number(lam),
                    "sigma": number(lam / rho) ** 0.5,
                    "chi2": seen.chi2(prediction),
                    "change": float((state.x - before.x).norm() / state.x.norm().clamp(min=1e-30)),
                    "split": state.split_residual,
                }
                history.append(entry)
                steps.tell(entry)
            return (state.x, lam, rho, prediction), entry["chi2"]

        with torch.no_grad():
            whole = Observation(operator, y, likelihoods, start)
            if matched:
                x, lam, rho, prediction = run_with_enough_noise(run, whole, float(sigma), progress)
            else:
                (x, lam, rho, prediction), _ = run(whole, float(sigma), progress)
            if matched and not self.step.explicit:  # those that are end with the network
                back = back_project(operator, target(likelihoods, y, prediction))
                x, weight = match_discrepancy(
                    operator, back, x, number(rho), lambda volume: whole.chi2(operator(volume))
                )
                prediction = operator(x)
                history[-1] |= {"lam": number(lam) * weight / number(rho), "chi2": whole.chi2(prediction)}
        # A fixed number of steps is what was asked for: there is nothing left to converge.
        status = Status.CONVERGED if bool(x.isfinite().all()) else Status.DIVERGED
        return Solution.of_run(x, operator.domain, status, history, sigma, gain(likelihoods, y, prediction))

    def states(
        self,
        operator: LinearOperator,
        y: Data,
        sigma: float | Tensor,
        x0: Tensor | None,
        likelihoods: tuple[Likelihood, ...] = (),
        scale: float = 1.0,
    ) -> Iterator[tuple[State, State, Tensor, Tensor]]:
        """After each step: the state, the one before, lam and rho."""
        back = back_project(operator, y)
        noise = torch.as_tensor(sigma, dtype=back.real.dtype, device=back.device)
        if not bool((noise > 0).all()):
            raise InvsrError(f"sigma is {sigma}: an unrolled network needs the noise level of the data, above zero")
        noise = noise.clamp(min=LEAST_NOISE * scale)
        last = LAST_LEVEL * noise
        first = last.clamp(min=FIRST_LEVEL * scale)
        problem = Problem(operator, self._prior(0).scaled(scale), back, y)
        state = self.step.start(problem, smooth_guess(operator, y) if x0 is None else x0)
        for k in range(self.n_steps):
            share = log_share(k, self.n_steps)
            between = (1 - share) * first.log() + share * last.log()
            variance = (2 * (self.level[k] + between)).exp()
            lam, rho = learnt_weights(self.step, problem, variance, self.weight[k], noise)
            problem, before = replace(problem, prior=self._prior(k).scaled(scale)), state
            problem = problem.retargeted(likelihoods, y, state.x)
            if self.save_memory and torch.is_grad_enabled():
                state = checkpoint(self.step, state, problem, lam, rho, use_reentrant=False)
            else:
                state = self.step(state, problem, lam, rho)
            yield state, before, lam, rho

    def _prior(self, k: int) -> Prior:
        prior = self.priors[k if len(self.priors) > 1 else 0]
        assert isinstance(prior, Prior)  # for the type checker: a ModuleList forgets
        return prior
