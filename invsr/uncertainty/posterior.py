"""Posterior sampling: several volumes that explain the data and look like anatomy, for a mean and its spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Gaussian, Likelihood
from invsr.numerics.iteration import ProgressCallback
from invsr.operators.base import LinearOperator
from invsr.priors.base import Prior
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple, chi2, peak, target
from invsr.uncertainty.deviation import interval_deviation

# Noise levels of the walk, the first as a share of the peak and the last of the data's noise; the number of steps
# from one to the other; the weight of the prior over sigma^2, with which samples have a chi2 of about 1; the share of
# the noise that is drawn anew in each step.
START, END, STEPS = 0.3, 0.5, 15
WEIGHT = 1.6
FRESH = 0.5
# Set on stroke_* (benchmarks/calibration.py), so that 68 % of the voxels lie within one deviation.
WIDENING = 1.4
# Noise of the data below this share of the peak is taken for this.
LEAST_NOISE = 1e-4


@dataclass(frozen=True)
class Samples:
    """Draws from the posterior.

    Attributes
    ----------
    samples : Tensor, shape (n_samples, 1, i, j, k)
    history : list of dict
        Per sample: "chi2" of it.
    """

    samples: Tensor
    history: list[dict[str, float]]

    @property
    def mean(self) -> Tensor:
        """Shape (1, 1, i, j, k)."""
        return self.samples.mean(0, keepdim=True)

    @property
    def std(self) -> Tensor:
        """How far the truth may be from the mean, as a standard deviation, shape (1, 1, i, j, k).

        Of the samples, times `WIDENING`: they are too much alike.
        """
        errors = self.samples - self.mean
        seen = torch.ones_like(errors[:1]) * len(errors)
        return WIDENING * interval_deviation(errors.square().sum(0, keepdim=True), seen, len(errors) - 1)


def sample_posterior(
    operator: LinearOperator,
    y: Any,
    prior: Prior,
    sigma: float,
    *,
    n_samples: int = 8,
    seed: int = 0,
    likelihood: tuple[Likelihood, ...] | None = None,
    progress: ProgressCallback | None = None,
) -> Samples:
    """Volumes drawn from the posterior by denoising diffusion with the exact data step.

    From much noise to little, with sigma_k falling evenly in the logarithm,

    .. code-block:: text

        z <- D(x, sigma_k)
        m <- (A*A + rho_k)^-1 (A*y + rho_k z)                     rho_k = WEIGHT sigma^2 / sigma_k^2
        e <- (x - m) / sigma_k
        x <- m + sigma_{k+1} (sqrt(1 - FRESH) e + sqrt(FRESH) new noise)

    Parameters
    ----------
    operator : LinearOperator
    y : Tensor (or tuple of them for a stack)
        Data, scaled so that bright tissue is near 1.
    prior : Prior
        A denoiser D that takes a noise level.
    sigma : float
        Noise of the data.
    n_samples : int
        At least 2.
    seed : int
        Of the noise that is drawn.
    likelihood : tuple of Likelihood, optional
        One per scan, Gaussian by default; others re-target the data before every step.
    progress : callable, optional
        Called with (steps done, steps in all, figures).

    Raises
    ------
    InvsrError
        When there are fewer than two samples, the prior is no denoiser, or sigma is not positive.

    References
    ----------
    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool (2023), Denoising diffusion models for plug-and-play image
    restoration, CVPR Workshops (DiffPIR); here with noise that is added, not blended in.
    """
    if n_samples < 2:
        raise InvsrError(f"n_samples is {n_samples}: a spread takes at least 2")
    if not prior.takes_noise_level:
        raise InvsrError(f"{type(prior).__name__} is no denoiser: posterior sampling needs one")
    if not sigma > 0:
        raise InvsrError(f"sigma is {sigma}: give the standard deviation of the noise, above zero")
    likelihoods = likelihood or tuple(Gaussian(sigma) for _ in as_tuple(y))
    fixed = all(isinstance(one, Gaussian) for one in likelihoods)
    back, guess = operator.adjoint(y), smooth_guess(operator, y)
    scale = peak(guess) if bool(guess.any()) else 1.0
    noise = max(sigma, LEAST_NOISE * scale)
    first, last = max(START * scale, END * noise), END * noise
    levels = [math.exp(math.log(first) + n / (STEPS - 1) * math.log(last / first)) for n in range(STEPS)] + [0.0]
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(guess.shape, generator=generator).to(guess)

    found, history = [], []
    for n in range(n_samples):
        m = guess
        x = guess + levels[0] * draw()
        for k in range(STEPS):
            if not fixed:
                back = operator.adjoint(target(likelihoods, y, operator(m)))
            z = prior.prox(x, levels[k])
            rho = WEIGHT * noise**2 / levels[k] ** 2
            m = operator.solve(back + rho * z, rho, x0=m, rtol=1e-5, max_iter=50).x
            if levels[k + 1] > 0:
                estimate = (x - m) / levels[k]
                x = m + levels[k + 1] * (math.sqrt(1 - FRESH) * estimate + math.sqrt(FRESH) * draw())
            if progress is not None:
                entry = {"chi2": chi2(operator, likelihoods, y, operator(m))}
                progress(n * STEPS + k + 1, n_samples * STEPS, entry)
        found.append(m)
        history.append({"chi2": chi2(operator, likelihoods, y, operator(m))})
    return Samples(torch.cat(found), history)
