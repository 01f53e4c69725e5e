"""When a run has diverged: misfit or volume beyond any bound that a reconstruction could reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from invsr.noise.likelihoods import Likelihood
from invsr.operators.base import Data, LinearOperator
from invsr.solvers.residuals import as_tuple, chi2, like_data

# Growth of the misfit, and of the volume, over the first iteration's (or the zero volume's) that no sound run shows.
MOST_CHI2_GROWTH = 1e4
MOST_NORM_GROWTH = 1e3


@dataclass
class Bounds:
    """What chi2 and ``||x||`` may reach; the first iteration raises them to what it starts from."""

    chi2: float
    norm: float | None = None

    @classmethod
    def of(cls, operator: LinearOperator, likelihoods: tuple[Likelihood, ...], y: Data) -> Bounds:
        """The misfit of a volume of zeros is that of a reconstruction that explains nothing."""
        zeros = like_data(tuple(torch.zeros_like(one) for one in as_tuple(y)), y)
        return cls(MOST_CHI2_GROWTH * max(chi2(operator, likelihoods, y, zeros), 1.0))

    def exceeded(self, chi2: float, norm: float) -> bool:
        """Whether a volume of this chi2 and norm is out of bounds, or not a number."""
        if not (math.isfinite(chi2) and math.isfinite(norm)):
            return True
        if self.norm is None:
            self.chi2 = max(self.chi2, MOST_CHI2_GROWTH * chi2)
            self.norm = MOST_NORM_GROWTH * norm if norm > 0 else math.inf
        return chi2 > self.chi2 or norm > self.norm
