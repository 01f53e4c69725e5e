"""Noise of MR images: sampling it, estimating it, and the likelihoods of data under it."""

from invsr.noise.estimation import estimate_sigma
from invsr.noise.likelihoods import L1, Gaussian, Huber, Likelihood, Masked, Rician, likelihood
from invsr.noise.sampling import add_noise

__all__ = [
    "L1",
    "Gaussian",
    "Huber",
    "Likelihood",
    "Masked",
    "Rician",
    "add_noise",
    "estimate_sigma",
    "likelihood",
]
