"""Posterior sampling: several volumes that explain the data and look like anatomy, for a mean and its spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noise.likelihoods import Likelihood
from invsr.numerics.iteration import ProgressCallback, Steps
from invsr.numerics.levels import peak
from invsr.numerics.linear import white_noise
from invsr.operators.base import Data, LinearOperator
from invsr.priors.base import Prior
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple, back_project, chi2, intensity_scale, likelihoods_of, n_measured
from invsr.solvers.state import Problem, data_step
from invsr.solvers.weighting import LEAST_NOISE, log_level
from invsr.uncertainty.deviation import along, interval_deviation, require_samples, require_sigma

# Noise levels of the walk, the first as a share of the peak and the last of the data's noise; the number of steps
# from one to the other; the weight of the prior over sigma^2, with which samples have a chi2 of about 1; the share of
# the noise that is drawn anew in each step.
FIRST_SHARE, LAST_SHARE, N_LEVELS = 0.3, 0.5, 15
SAMPLING_WEIGHT = 1.6
FRESH = 0.5
# Times the root of the unknowns per measured value: found on stroke_* and brain_FLAIR_1mm_ms_k with slices of 2, 4 and
# 6 voxels (benchmarks/quality/calibration.py), so that 68 % of the voxels lie within one deviation.
WIDENING = 0.8


@dataclass(frozen=True)
class Samples:
    """Draws from the posterior.

    Attributes
    ----------
    samples : Tensor, shape (n_samples, 1, i, j, k)
    history : list of dict
        Per sample: "chi2" of it.
    ratio : float
        Unknowns per measured value, at least 1.
    """

    samples: Tensor
    history: list[dict[str, float]]
    ratio: float

    @property
    def mean(self) -> Tensor:
        """Shape (1, 1, i, j, k)."""
        return self.samples.mean(0, keepdim=True)

    @property
    def std(self) -> Tensor:
        """How far the truth may be from the mean, as a standard deviation, shape (1, 1, i, j, k).

        The deviation of the samples times ``WIDENING sqrt(ratio)``: the less was measured, the more they are alike,
        and the less like the truth.
        """
        errors = self.samples - self.mean
        seen = torch.ones_like(errors[:1].real) * len(errors)
        deviation = interval_deviation(along(errors, self.mean).square().sum(0, keepdim=True), seen, len(errors) - 1)
        return WIDENING * math.sqrt(self.ratio) * deviation


def sample_posterior(
    operator: LinearOperator,
    y: Data,
    prior: Prior,
    sigma: float,
    *,
    n_samples: int = 8,
    seed: int = 0,
    likelihood: Likelihood | tuple[Likelihood, ...] | None = None,
    progress: ProgressCallback | None = None,
) -> Samples:
    """Volumes drawn from the posterior by denoising diffusion with the exact data step.

    From much noise to little, with sigma_k falling evenly in the logarithm,

    .. code-block:: text

        z <- D(x, sigma_k)
        m <- (A*A + rho_k)^-1 (A*y + rho_k z)                     rho_k = SAMPLING_WEIGHT sigma^2 / sigma_k^2
        e <- (x - m) / sigma_k
        x <- m + sigma_{k+1} (sqrt(1 - FRESH) e + sqrt(FRESH) new noise)

    Parameters
    ----------
    operator : LinearOperator
    y : Tensor, shape (1, channel, *operator.range.shape) (or tuple of them for a stack)
        Data, in any unit.
    prior : Prior
        A denoiser D that takes a noise level.
    sigma : float
        Noise of the data.
    n_samples : int
        At least 2.
    seed : int
        Seed of the noise that is drawn.
    likelihood : Likelihood (or one per scan of a stack), optional
        Gaussian by default; others re-target the data before every step.
    progress : callable, optional
        Called with the share that is done, 0 to 1, and the figures of the last step.

    Raises
    ------
    InvsrError
        When the number of samples is out of range, the prior is no denoiser, sigma is not finite and above zero, or y
        is a batch.

    References
    ----------
    Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool (2023), Denoising diffusion models for plug-and-play image
    restoration, CVPR Workshops (DiffPIR); here with noise that is added, not blended in.
    """
    require_samples(n_samples)
    if not prior.is_denoiser:
        raise InvsrError(f"{type(prior).__name__} is no denoiser: posterior sampling needs one")
    require_sigma(sigma)
    if any(len(one) != 1 for one in as_tuple(y)):
        raise InvsrError(f"data of a batch of {len(as_tuple(y)[0])}: samples are drawn for one volume at a time")
    likelihoods = likelihoods_of(y, likelihood, sigma)
    guess = smooth_guess(operator, y)
    prior = prior.scaled(intensity_scale(y, likelihoods, guess))
    problem = Problem(operator, prior, back_project(operator, y), y)
    scale = peak(guess) if bool(guess.any()) else 1.0
    noise = max(sigma, LEAST_NOISE * scale)
    first, last = max(FIRST_SHARE * scale, LAST_SHARE * noise), LAST_SHARE * noise
    levels = [*(math.exp(log_level(first, last, n, N_LEVELS)) for n in range(N_LEVELS)), 0.0]
    generator = torch.Generator().manual_seed(seed)

    found, history, steps = [], [], Steps(progress)
    for n in range(n_samples):
        m = guess
        x = guess + levels[0] * white_noise(guess, generator)
        for k in range(N_LEVELS):
            rho = SAMPLING_WEIGHT * noise**2 / levels[k] ** 2
            with steps.step(left=(n_samples - n) * N_LEVELS - k):
                z = prior.prox(x, levels[k])
                m = data_step(problem.retargeted(likelihoods, y, m), z, rho, m)
            if levels[k + 1] > 0:
                estimate = (x - m) / levels[k]
                x = m + levels[k + 1] * (
                    math.sqrt(1 - FRESH) * estimate + math.sqrt(FRESH) * white_noise(guess, generator)
                )
            if progress is not None:
                steps.tell({"chi2": chi2(operator, likelihoods, y, operator(m))})
        found.append(m)
        history.append({"chi2": chi2(operator, likelihoods, y, operator(m))})
    measured = n_measured(operator, y)
    return Samples(torch.cat(found), history, max(1.0, operator.domain.size / max(measured, 1)))
