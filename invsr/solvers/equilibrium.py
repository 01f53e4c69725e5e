"""Solver steps driven to their fixed point, with exact gradients that need the memory of one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian
from invsr.numerics.fixed_point import METHODS, FixedPoint
from invsr.numerics.iteration import ProgressCallback, Status, split
from invsr.numerics.linear import number
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import Prior
from invsr.solvers.discrepancy import match_discrepancy, run_with_enough_noise
from invsr.solvers.ending import Ending
from invsr.solvers.implicit import ImplicitGradient, adjoint_of, warn_unless_found
from invsr.solvers.observation import Observation
from invsr.solvers.plug_and_play import learnt_weights, smooth_guess
from invsr.solvers.residuals import as_tuple, back_project, gain, intensity_scale
from invsr.solvers.solution import Solution
from invsr.solvers.state import Problem, State, Step, data_step

IMPLICIT, JACOBIAN_FREE = "implicit", "jacobian_free"
# What the denoiser is to take off besides the noise of the data, as a share of the peak, before training.
INITIAL_LEVEL = 0.03
# Share of the search's time that the coarser grid takes, and of the whole that the steps after the search do.
COARSE_SHARE, ENDING_SHARE = 0.2, 0.25


class Equilibrium(nn.Module):
    """The fixed point ``v = T(v)`` of a solver's step T, as a layer: a deep equilibrium model.

    The denoiser's noise level squared is ``(exp(log_level) INITIAL_LEVEL)^2 + sigma^2``, and the prior's weight
    ``exp(log_weight) PRIOR_WEIGHT sigma^2``; both stay fixed while T is iterated. With J the Jacobian of T at the fixed
    point, the gradient with respect to any parameter p is

    .. code-block:: text

        dv/dp = (I - J)^-1 dT/dp          implicit: backward solves w = J^T w + b
        dv/dp ~ dT/dp                     jacobian_free

    T leaves noise in v: without any, v would tell the denoiser nothing of that in the data. `Ending` takes it off.

    Parameters
    ----------
    step : Step
        `HQS()`, `ADMM()`, `PGD()` or `RED()`; momentum has no effect. With PGD the operator's norm takes the place of
        the weight, so that `log_weight` has no effect (its gradient stays None).
    prior : Prior
        Must give the same answer whenever it is asked: a `Denoiser` without random symmetries and random planes.
    method : {"anderson", "broyden", "plain"}
        How both fixed points are searched for, forward and backward.
    backward : {"implicit", "jacobian_free"}
        Whether gradients are exact, or cheap and of about the same direction.
    rtol, backward_rtol : float
        Relative residuals at which the fixed points count as found. Where T contracts by c, errors are up to
        ``1 / (1 - c)`` times as large.
    max_iter, backward_max_iter : int
        Largest numbers of evaluations of T, and of products with J^T.
    n_ending : int
        Steps after the fixed point, not iterated.

    Attributes
    ----------
    log_level, log_weight : nn.Parameter, scalars
    ending : Ending or None
    last, last_backward : FixedPoint or None
        How the last forward and the last backward pass ended.

    Raises
    ------
    InvsrError
        When an option is unknown or out of range, a step carries more than one tensor (HQS with descent), or the
        prior draws random numbers.

    References
    ----------
    Bai, Kolter, Koltun (2019), Deep equilibrium models, NeurIPS.
    Gilton, Ongie, Willett (2021), IEEE Trans. Comput. Imaging 7, 1123-1133.
    Fung, Heaton, Li, McKenzie, Osher, Yin (2022), Jacobian-free backpropagation for implicit networks, AAAI.
    """

    def __init__(
        self,
        step: Step,
        prior: Prior,
        *,
        method: str = "anderson",
        backward: str = IMPLICIT,
        rtol: float = 1e-4,
        max_iter: int = 50,
        backward_rtol: float = 1e-4,
        backward_max_iter: int = 50,
        n_ending: int = 0,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise InvsrError(f"unknown fixed-point method {method!r}: use {', '.join(METHODS)}")
        if backward not in (IMPLICIT, JACOBIAN_FREE):
            raise InvsrError(f"unknown backward {backward!r}: use {IMPLICIT} or {JACOBIAN_FREE}")
        if min(max_iter, backward_max_iter) < 1:
            raise InvsrError(f"max_iter {max_iter}, backward_max_iter {backward_max_iter}: give at least 1")
        if n_ending < 0:
            raise InvsrError(f"n_ending is {n_ending}: give a number of steps, 0 or more")
        if step.descends:
            raise InvsrError(
                f"{type(step).__name__} with descent remembers more than one volume: an equilibrium takes it without"
            )
        if not prior.deterministic:
            raise InvsrError(
                "a denoiser that draws random symmetries or planes has no fixed point: "
                "make it with symmetries=False, and with planes='all' or an axis if its network takes slices"
            )
        self.step, self.prior = step, prior
        self.method, self.backward = METHODS[method], backward
        self.rtol, self.max_iter = rtol, max_iter
        self.backward_rtol, self.backward_max_iter = backward_rtol, backward_max_iter
        self.log_level = nn.Parameter(torch.zeros(()))
        self.log_weight = nn.Parameter(torch.zeros(()))
        self.n_ending = n_ending
        self.ending = Ending(n_ending) if n_ending else None
        self.last: FixedPoint | None = None
        self.last_backward: FixedPoint | None = None

    def forward(self, operator: LinearOperator, y: Data, sigma: float | Tensor, x0: Tensor | None = None) -> Tensor:
        """The volume, differentiable in y and in the parameters of prior, operator and self.

        Parameters
        ----------
        operator : LinearOperator
        y : Tensor, shape (batch, channel, *operator.range.shape) (or tuple of them for a stack)
            Data, scaled so that bright tissue is near 1.
        sigma : float or scalar Tensor
            Standard deviation of the noise in y.
        x0 : Tensor, shape (batch, channel, *operator.domain.shape), optional
            First guess, by default `smooth_guess`. No gradient goes there: the fixed point does not depend on it.

        Returns
        -------
        Tensor, shape (batch, channel, *operator.domain.shape)

        Raises
        ------
        InvsrError
            When sigma is not above zero.

        Warns
        -----
        InvsrWarning
            When a fixed point is not found, here or in the backward pass. What comes nearest is used.
        """
        state, problem = self._find(operator, y, sigma, x0)
        warn_unless_found(self.last, self.step, "forward", self.rtol, "max_iter")
        implicit = torch.is_grad_enabled() and self.backward == IMPLICIT
        v = state.v.detach().requires_grad_(implicit)
        lam, rho = self._weights(sigma, problem)
        # With a graph: gradients go to the data and to the operator.
        problem = replace(problem, back_projection=back_project(operator, y))
        after = self.step(replace(state, v=v), problem, lam, rho)
        if not implicit:
            return self._ended(after.x, problem, sigma)
        x, image = after.x, after.v
        out: Tensor = ImplicitGradient.apply(x, image, lambda grad: self._adjoint(v, x, image, grad))
        return self._ended(out, problem, sigma)

    def last_steps(
        self,
        operator: LinearOperator,
        y: Data,
        sigma: float,
        x0: Tensor | None = None,
        *,
        n_before: int,
        n_last: int = 3,
        search: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """For training: the volume after some iterations and the ending, only the last of which are in the graph.

        With `n_before` drawn anew each time, short runs train T to go far in a step, long ones to stay where it arrived
        (Bansal et al. 2022): the fixed point then is where the iteration passes the truth. Beside it, by how much T
        expands there: ``||T(T(v)) - T(v)|| / ||T(v) - v||`` of the last two steps, above 1 where iterations move away
        from their fixed point. What they leave lies along the directions in which T contracts least; as a penalty it
        takes the place of a bound on the Jacobian's norm, which Pesquet et al. (2021) find by power iteration.

        Parameters
        ----------
        operator, y, sigma, x0
            As of `forward`.
        n_before, n_last : int
            Iterations without and with a graph; of the latter at least 2.
        search : bool
            The first are those of the search for the fixed point, which gets further along the directions in which T
            contracts least than plain ones do.

        Returns
        -------
        (Tensor, scalar Tensor)

        References
        ----------
        Bansal, Schwarzschild, Borgnia, Emam, Huang, Goldblum, Goldstein (2022), End-to-end algorithm synthesis with
        recurrent networks, NeurIPS.
        Pesquet, Repetti, Terris, Wiaux (2021), SIAM J. Imaging Sci. 14, 1206-1237.
        """
        problem, state = self._start(operator, y, sigma, x0)
        lam, rho = self._weights(sigma, problem)
        if search and n_before:
            state = self._find(operator, y, sigma, x0, n_before)[0]
        else:
            with torch.no_grad():
                for _ in range(n_before):
                    state = self.step(state, problem, lam, rho)
        moves = []
        for _ in range(n_last):
            before, state = state, self.step(state, problem, lam, rho)
            moves.append((state.v - before.v).norm())
        least = 1e-6 * float(state.v.detach().norm()) + 1e-30
        return self._ended(state.x, problem, sigma), moves[-1] / moves[-2].clamp(min=least)

    @torch.no_grad()
    def solve(
        self,
        operator: LinearOperator,
        y: Data,
        sigma: float,
        x0: Tensor | None = None,
        progress: ProgressCallback | None = None,
    ) -> Solution:
        """The same without a graph, and how it ended; parameters and errors are those of `forward`.

        `progress` is called with the share that is done, 0 to 1, and the last residual of the fixed point as "change".

        The search starts from the fixed point on a grid half as fine, unless a first guess is given. Where the result
        would fit the noise, a higher noise level is assumed (`invsr.solvers.discrepancy.run_with_enough_noise`); where
        HQS's fixed point leaves a chi2 that noise does not explain, its data step is done again with another penalty
        (`match_discrepancy`, there).

        Returns
        -------
        Solution
            Each history entry has the residual of the fixed point as "change"; the last one "lam" and "chi2", too.
        """
        back = back_project(operator, y)
        likelihoods = tuple(Gaussian(sigma) for _ in as_tuple(y))
        start = smooth_guess(operator, y) if x0 is None else x0
        scale = intensity_scale(y, likelihoods, start)
        whole = Observation(operator, y, likelihoods, start)

        def run(
            seen: Observation, assumed_sigma: float, inner: ProgressCallback | None
        ) -> tuple[tuple[Tensor, float | Tensor, float | Tensor], float]:
            searching, ending = split(inner, 1.0 if self.ending is None else 1 - ENDING_SHARE)
            coarse, fine = split(searching, COARSE_SHARE if x0 is None else 0.0)
            guess = seen.guess if x0 is not None else self._from_coarse(seen, assumed_sigma, scale, coarse)
            state, problem = self._find(seen.operator, seen.y, assumed_sigma, guess, scale=scale, progress=fine)
            lam, rho = self._weights(assumed_sigma, problem, scale)
            if self.last is None or self.last.status is not Status.CONVERGED:  # the best v is not the last one
                state = self.step(state, problem, lam, rho)
            x: Tensor = state.x
            if self.ending is not None:
                x, lam, rho = self.ending(self.step, x, problem, assumed_sigma, scale, ending)
            return (x, lam, rho), seen.chi2(seen.operator(x))

        x, lam, rho = run_with_enough_noise(run, whole, float(sigma), progress)
        assert self.last is not None
        history = [{"change": residual} for residual in self.last.history]
        weight = number(rho)
        if self.step.penalty_method and not self.step.explicit:  # the others' fixed point is the network's
            x, weight = match_discrepancy(operator, back, x, weight, lambda volume: whole.chi2(operator(volume)))
        history[-1] |= {"lam": number(lam) * weight / number(rho), "chi2": whole.chi2(operator(x))}
        return Solution.of_run(x, operator.domain, self.last.status, history, sigma, gain(likelihoods, y, operator(x)))

    @torch.no_grad()
    def _find(
        self,
        operator: LinearOperator,
        y: Data,
        sigma: float | Tensor,
        x0: Tensor | None,
        max_iter: int | None = None,
        scale: float = 1.0,
        progress: ProgressCallback | None = None,
    ) -> tuple[State, Problem]:
        """The state at the fixed point, and its problem; sets `last`."""
        problem, state = self._start(operator, y, sigma, x0, scale)
        lam, rho = self._weights(sigma, problem, scale)
        x = state.x

        def advance(v: Tensor) -> Tensor:
            nonlocal x  # that of the last v; an iterative data step starts from it, too
            after = self.step(replace(state, v=v, x=x), problem, lam, rho)
            x = after.x
            return after.v

        most = max_iter or self.max_iter
        self.last = self.method(advance, state.v, rtol=self.rtol, max_iter=most, progress=progress)
        return replace(state, v=self.last.v, x=x), problem

    @torch.no_grad()
    def _from_coarse(self, seen: Observation, sigma: float, scale: float, progress: ProgressCallback | None) -> Tensor:
        """The fixed point on a grid of twice the spacing, interpolated; the guess where A is not separable.

        An evaluation takes an eighth of the time there, and what slices leave open is coarse.
        """
        coarser = seen.coarser()
        if coarser is None:
            return seen.guess
        coarse, finer = coarser
        state, _ = self._find(coarse.operator, coarse.y, sigma, coarse.guess, scale=scale, progress=progress)
        interpolated: Tensor = finer(state.x)
        problem, _ = self._start(seen.operator, seen.y, sigma, interpolated, scale)
        _, rho = self._weights(sigma, problem, scale)
        return data_step(problem, interpolated, rho, interpolated)

    @torch.no_grad()
    def _start(
        self, operator: LinearOperator, y: Data, sigma: float | Tensor, x0: Tensor | None, scale: float = 1.0
    ) -> tuple[Problem, State]:
        if not number(sigma) > 0:
            raise InvsrError(f"sigma is {number(sigma)}: give the standard deviation of the noise, above zero")
        problem = Problem(operator, self.prior.scaled(scale), back_project(operator, y), y)
        # The variance of the start, None, stays: ADMM's dual is never rescaled.
        return problem, self.step.start(problem, smooth_guess(operator, y) if x0 is None else x0)

    def _ended(self, x: Tensor, problem: Problem, sigma: float | Tensor) -> Tensor:
        """The volume at the end, from that at the fixed point."""
        return x if self.ending is None else self.ending.forward(self.step, x, problem, sigma)[0]

    def _weights(self, sigma: float | Tensor, problem: Problem, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """lam and rho; their ratio is the square of the denoiser's noise level."""
        variance = (self.log_level.exp() * INITIAL_LEVEL * scale) ** 2 + sigma**2
        return learnt_weights(self.step, problem, variance, self.log_weight, sigma)

    def _adjoint(self, v: Tensor, x: Tensor, image: Tensor, grad: Tensor) -> Tensor:
        def solve(advance: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
            self.last_backward = self.method(advance, b, rtol=self.backward_rtol, max_iter=self.backward_max_iter)
            warn_unless_found(self.last_backward, self.step, "backward", self.backward_rtol, "backward_max_iter")
            return self.last_backward.v

        return adjoint_of(v, x, image, grad, solve)
