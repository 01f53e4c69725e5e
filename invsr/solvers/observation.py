"""What a trained solver starts from, and smaller observations of the same volume on which it can be tried."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from invsr.noise.likelihoods import Gaussian, Likelihood, Masked
from invsr.operators.base import Data, LinearOperator
from invsr.operators.parts import part_of
from invsr.operators.sampling import Sampling
from invsr.operators.separable import Separable
from invsr.solvers.residuals import chi2

# Voxels of a part along each axis; how many times as large a volume is whose parts are worth while.
SIDE, LEAST_PARTS = 64, 4
# Fewest voxels along each axis of a volume that is put on a coarser grid.
LEAST_SIDE = 16


@dataclass(frozen=True)
class Observation:
    """What a trained solver starts from.

    Attributes
    ----------
    operator : LinearOperator
    y : Tensor, shape (batch, channel, *operator.range.shape) (or tuple of them for a stack)
    likelihoods : tuple of Likelihood
        One for each scan, with the noise that there is.
    guess : Tensor, shape (batch, channel, *operator.domain.shape)
        First guess of the volume.
    """

    operator: LinearOperator
    y: Data
    likelihoods: tuple[Likelihood, ...]
    guess: Tensor

    def chi2(self, prediction: Data) -> float:
        """chi2 of a volume, from ``A x``."""
        return chi2(self.operator, self.likelihoods, self.y, prediction)

    def part(self) -> Observation | None:
        """A part of `SIDE` voxels along each axis, with the same share of signal as the whole.

        chi2 is lower in anatomy than in air: the part's mean square of the guess is the nearest to the whole's. What
        its samples see beyond it is taken from the guess.

        Returns
        -------
        Observation or None
            None where the operator is not separable, noise not Gaussian, or the whole not `LEAST_PARTS` times as large.
        """
        operator, y, likelihood = self.operator, self.y, self.likelihoods[0]
        bare = likelihood.likelihood if isinstance(likelihood, Masked) else likelihood
        if not (isinstance(operator, Separable) and isinstance(bare, Gaussian) and isinstance(y, Tensor)):
            return None
        side = [min(SIDE, n) for n in operator.domain.shape]
        if math.prod(side) * LEAST_PARTS > operator.domain.size:
            return None
        square = self.guess.abs().square().mean((0, 1))[None]
        means = avg_pool3d(square, side, SIDE // 4)[0]
        nearest = np.unravel_index(int((means - square.mean()).abs().argmin()), means.shape)
        low = [SIDE // 4 * int(n) for n in nearest]
        part = part_of(operator, low, [a + n for a, n in zip(low, side, strict=True)])
        if part is None:
            return None
        voxels, samples = (..., *part.voxels), (..., *part.samples)
        beyond = self.guess.clone()
        beyond[voxels] = 0
        if isinstance(likelihood, Masked):
            likelihood = replace(likelihood, mask=likelihood.mask.expand(y.shape)[samples])
        seen = (y - operator(beyond))[samples]
        return Observation(part.operator, seen, (likelihood,), self.guess[voxels].contiguous())

    def coarser(self) -> tuple[Observation, Separable] | None:
        """The same data of a volume on a grid of twice the spacing, and its interpolation to this one's.

        Returns
        -------
        (Observation, Separable) or None
            None where the operator is not separable or the volume small.
        """
        domain = self.operator.domain
        if not isinstance(self.operator, Separable) or min(domain.shape) < LEAST_SIDE:
            return None
        finer = Sampling(domain.refine((2 * domain.spacing).tolist()), domain, ("none",) * 3)
        guess = finer.adjoint(self.guess) / finer.adjoint(torch.ones_like(self.guess))
        return replace(self, operator=self.operator @ finer, guess=guess), finer
