"""Several contrasts of one head: joint total variation, and a trained unrolled solver that begins with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invsr.noise.likelihoods import Likelihood, Masked
from invsr.numerics.iteration import ProgressCallback, Status, Steps, split
from invsr.operators.base import Data, LinearOperator
from invsr.operators.contrasts import Contrasts
from invsr.priors.joint_tv import JointTV
from invsr.solvers.discrepancy import RUNS, fits, match_discrepancy, next_level
from invsr.solvers.plug_and_play import iterate, smooth_guess
from invsr.solvers.residuals import as_tuple, back_project, chi2, gain, target
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM
from invsr.solvers.unrolled import Unrolled

# Iterations of joint total variation before the trained solver's steps: on heads it stands still after 20, and 15 of
# them serve as well.
STARTING = 15
# Share of the time that they take.
STARTING_SHARE = 0.15


@dataclass(frozen=True)
class Contrast:
    """What was measured of one contrast.

    Attributes
    ----------
    operator : LinearOperator
    y : Tensor (or tuple of them for a stack)
        Data, scaled so that bright tissue is near 1.
    sigma : float
        Standard deviation of their noise.
    likelihoods : tuple of Likelihood
        One for each scan.
    """

    operator: LinearOperator
    y: Data
    sigma: float
    likelihoods: tuple[Likelihood, ...]

    def chi2(self, prediction: Data) -> float:
        """chi2 of a volume, from ``A x``."""
        return chi2(self.operator, self.likelihoods, self.y, prediction)


def joint_tv(
    contrasts: Sequence[Contrast],
    prior: JointTV,
    *,
    lam: float | None = None,
    max_iter: int,
    guess: Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Solution, Tensor]:
    """Total variation of all contrasts together, by ADMM: the run, and the volumes, shape (batch, contrast, i, j, k).

    All contrasts are brought to the first one's noise level, in which the run's numbers are: the best weight of total
    variation grows with noise, and one weight then suits all.

    Parameters
    ----------
    contrasts : sequence of Contrast
        On one grid.
    prior : JointTV
    lam : float, optional
        Weight for the noise level of the first contrast; by default such that chi2 is about 1.
    max_iter : int
    guess : Tensor, shape (batch, contrast, i, j, k), optional
        By default the smoothest volumes that explain the data.
    progress : callable, optional
    """
    sigma = contrasts[0].sigma
    like = as_tuple(contrasts[0].y)[0]
    levels = torch.tensor([one.sigma / sigma for one in contrasts], dtype=like.dtype, device=like.device)
    levels = levels.view(-1, 1, 1, 1)
    guess = torch.cat([smooth_guess(one.operator, one.y) for one in contrasts], 1) if guess is None else guess
    found = iterate(
        ADMM(),
        Contrasts([one.operator for one in contrasts]),
        tuple(sigma / one.sigma * part for one in contrasts for part in as_tuple(one.y)),
        prior,
        lam=lam,
        sigma=sigma,
        likelihood=tuple(_of_noise(kind, sigma) for one in contrasts for kind in one.likelihoods),
        x0=guess / levels,
        max_iter=max_iter,
        progress=progress,
    )
    return found, found.x * levels


def of_contrast(run: Solution, contrast: Contrast, x: Tensor) -> Solution:
    """One contrast's volume of a run that solved all of them, with its own chi2 and gain."""
    prediction = contrast.operator(x)
    kept = gain(contrast.likelihoods, contrast.y, prediction)
    return replace(run, x=x, sigma=contrast.sigma, chi2=contrast.chi2(prediction), gain=kept)


def joint_start(contrasts: Sequence[Contrast], guess: Tensor | None = None) -> Tensor:
    """What the trained solver begins with: `joint_tv` with the nuclear norm, after few iterations."""
    with torch.no_grad():
        return joint_tv(contrasts, JointTV(), max_iter=STARTING, guess=guess)[1]


def _of_noise(kind: Likelihood, sigma: float) -> Likelihood:
    """The likelihood at another noise level."""
    if isinstance(kind, Masked):
        return replace(kind, likelihood=_of_noise(kind.likelihood, sigma))
    scaled: Likelihood = replace(kind, sigma=sigma)  # type: ignore[type-var]  # all of them are dataclasses
    return scaled


def solve_contrasts(
    solver: Unrolled,
    contrasts: Sequence[Contrast],
    progress: ProgressCallback | None = None,
    resolved: Sequence[int] = (),
) -> list[Solution]:
    """The volumes of all contrasts without gradients, each with its history.

    As `Unrolled.solve`, contrast by contrast: one whose result would fit its noise is given a higher noise level, and
    all are solved again, at most `RUNS` times; one whose last step leaves a chi2 that noise does not explain has its
    penalty found anew.

    Parameters
    ----------
    solver : Unrolled
        Its network takes several contrasts (`JointUNet`).
    contrasts : sequence of Contrast
        On one grid.
    progress : callable, optional
    resolved : sequence of int
        Contrasts that serve the others and stay as joint total variation leaves them: there is nothing to resolve.
    """
    operator = Contrasts([one.operator for one in contrasts])
    y = tuple(part for one in contrasts for part in as_tuple(one.y))
    likelihoods = tuple(kind for one in contrasts for kind in one.likelihoods)
    tries: list[list[tuple[float, float]]] = [[] for _ in contrasts]
    levels, open_still = [one.sigma for one in contrasts], set(range(len(contrasts))) - set(resolved)
    starting, solving = split(progress, STARTING_SHARE)
    steps = Steps(solving)
    with torch.no_grad():
        begun, guess = joint_tv(contrasts, JointTV(), max_iter=STARTING, progress=starting)
        for left in range(RUNS, 0, -1):
            with steps.step(left / 2) as inner:  # one or two will do, as a rule
                x, rho, histories = _run(solver, operator, y, levels, guess, likelihoods, contrasts, inner)
            for n in list(open_still):
                tries[n].append((levels[n], histories[n][-1]["chi2"]))
                if fits(tries[n]):
                    open_still.remove(n)
                elif left > 1:
                    levels[n] = next_level(tries[n])
            if not open_still:
                break
        steps.finish()
        if begun.status is not Status.DIVERGED:  # so many iterations are what was asked for
            begun = replace(begun, status=Status.CONVERGED)
        volumes = zip(contrasts, torch.split(x, 1, 1), rho.flatten().tolist(), histories, strict=True)
        return [
            of_contrast(begun, volume[0], guess[:, n : n + 1]) if n in resolved else _finished(solver, *volume)
            for n, volume in enumerate(volumes)
        ]


def _run(
    solver: Unrolled,
    operator: Contrasts,
    y: tuple[Tensor, ...],
    levels: Sequence[float],
    guess: Tensor,
    likelihoods: tuple[Likelihood, ...],
    contrasts: Sequence[Contrast],
    progress: ProgressCallback | None,
) -> tuple[Tensor, Tensor, list[list[dict[str, float]]]]:
    """The volumes, the penalties of the last step, and the history of each contrast."""
    sigma = torch.tensor(levels, dtype=guess.dtype, device=guess.device).view(-1, 1, 1, 1)
    histories: list[list[dict[str, float]]] = [[] for _ in contrasts]
    steps = Steps(progress)
    states = solver.states(operator, y, sigma, guess, likelihoods)
    for state, before, lam, rho in steps.over(states, solver.n_steps):
        for n, one in enumerate(contrasts):
            x, last = state.x[:, n : n + 1], before.x[:, n : n + 1]
            entry = {
                "lam": float(lam.expand(rho.shape)[n]),
                "sigma": float((lam / rho).expand(rho.shape)[n]) ** 0.5,
                "chi2": one.chi2(one.operator(x)),
                "change": float((x - last).norm() / x.norm().clamp(min=1e-30)),
                "split": state.split_residual,
            }
            histories[n].append(entry)
        steps.tell({"chi2": sum(history[-1]["chi2"] for history in histories) / len(histories)})
    return state.x, rho, histories


def _finished(solver: Unrolled, contrast: Contrast, x: Tensor, rho: float, history: list[dict[str, float]]) -> Solution:
    """One contrast's solution, near enough to its data and no nearer."""
    operator, y, likelihoods = contrast.operator, contrast.y, contrast.likelihoods
    prediction = operator(x)
    if not solver.step.explicit:  # those that are end with the network
        back = back_project(operator, target(likelihoods, y, prediction))
        x, weight = match_discrepancy(operator, back, x, rho, lambda volume: contrast.chi2(operator(volume)))
        prediction = operator(x)
        history[-1] |= {"lam": history[-1]["lam"] * weight / rho, "chi2": contrast.chi2(prediction)}
    status = Status.CONVERGED if bool(x.isfinite().all()) else Status.DIVERGED
    kept = gain(likelihoods, y, prediction)
    return Solution.of_run(x, operator.domain, status, history, contrast.sigma, kept)
