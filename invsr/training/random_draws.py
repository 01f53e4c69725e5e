"""Random numbers for training: seeded generators and the distributions of patches and acquisitions."""

from __future__ import annotations

import math

import torch

# Streams of one seed, which do not overlap: samples (the default) and optimiser steps.
SAMPLES, STEPS = 0, 500_009


def seeded(seed: int, index: int, stream: int = SAMPLES) -> torch.Generator:
    """The generator of one sample or step: the same whichever process draws it, and whenever."""
    return torch.Generator().manual_seed(seed * 1_000_003 + stream + index)


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number drawn uniformly from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number whose logarithm is drawn uniformly."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def mixed_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """A number drawn log-uniformly one time in two, else uniformly: high noise levels take the most learning."""
    draw = log_uniform if uniform(generator) < 0.5 else uniform
    return draw(generator, low, high)


def zero_or_uniform(generator: torch.Generator, high: float) -> float:
    """Zero one time in two, else a number drawn uniformly from [0, high)."""
    return max(0.0, uniform(generator, -1.0, 1.0)) * high


def integer(generator: torch.Generator, end: int) -> int:
    """A whole number from 0 to end - 1."""
    return int(torch.randint(end, (), generator=generator))
