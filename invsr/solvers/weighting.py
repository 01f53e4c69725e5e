"""How the weight of the prior and the penalty go from iteration to iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from invsr.errors import InvsrError
from invsr.priors.base import GRADIENT, Prior
from invsr.solvers.solution import CHI2_EXPECTED

# Automatic weight: the residual chi2 it aims at. The true volume has 1, but it has not been fitted to the
# noise; a fit takes some of it up. `benchmarks/tuning/tv_weight.py` shows the score against this number.
CHI2_TARGET = 0.85
CHI2_TOLERANCE = 0.02
# With denoisers, whose weight is in proportion to the noise: the least chi2 that is accepted. Below it the weight grows
# over the last iterations of the schedule, as many as these, and after it.
CHI2_LEAST = 0.75
ENDING = 3
# The automatic weight is never less than this share of the noise (times a voxel for a prior on slopes per mm): where
# the model is wrong (motion that is left, anatomy that ends at the field of view) chi2 does not come down to its aim,
# and the weight would vanish. Scans whose model holds end at 0.1 to 0.2.
LEAST_WEIGHT = 0.05
# Nor is it lowered where chi2 is above the expected band and follows it by less than this power: 0.5 (several stacks)
# to 1.7 where the model holds, falling to 0 where it is wrong; volumes of moved, corrupted or shaded slices are best at
# 0.1 to 0.3. It is told from weights that differ by more than a factor, where chi2 falls or grows from one iteration to
# the next by less than these shares: elsewhere it still follows the weights before.
LEAST_POWER, CLEAR_CHANGE, STEADY = 0.3, 1.2, (0.02, 0.002)
# Noise below this share of the peak is taken for this: without noise, a denoiser's levels and weight would vanish.
LEAST_NOISE = 1e-4
# Ratio of lam to rho for a prior on differences: the size of its step, as a share of the peak per voxel (of a quadratic
# prior, which shrinks slopes in proportion, as a share of them). Decides the speed of convergence, not ADMM's limit. A
# prior on the volume itself gets rho = 1, about the norm of A* A.
GRADIENT_STEP = 0.04
# First automatic weight, as a share of the noise.
FIRST_WEIGHT = 0.2


class Weights(Protocol):
    """The numbers that a step gets: asked for before each iteration, told its outcome after it.

    Attributes
    ----------
    lam : float
    n_steps : int
        Fewest iterations until they are `settled`.
    settled : bool
        Whether they stay as they are from here on.
    """

    @property
    def lam(self) -> float: ...

    @property
    def n_steps(self) -> int: ...

    def rho(self) -> float: ...

    def learn(self, n: int, chi2: float) -> None: ...

    @property
    def settled(self) -> bool: ...


@dataclass
class Constant:
    """A given weight, or one that follows the discrepancy principle: chi2 is to be about 1.

    Where the model is wrong chi2 does not come down to it: the weight stays where chi2 hardly follows (`LEAST_POWER`).

    References
    ----------
    Morozov (1966), Soviet Math. Dokl. 7, 414-417.
    """

    lam: float
    unit: float | None
    automatic: bool
    settled: bool
    least: float = 0.0
    penalty: float = 1.0
    n_steps: int = 1
    reference: tuple[float, float] = (0.0, 0.0)
    last: float = math.inf

    @classmethod
    def of(
        cls,
        prior: Prior,
        lam: float | None,
        sigma: float | None,
        spacing: float,
        *,
        scale: float = 1.0,
        penalty: float = 1.0,
    ) -> Constant:
        """The weight of a prior with a cost, on volumes whose voxels are `spacing` mm wide.

        Parameters
        ----------
        prior : Prior
        lam, sigma : float, optional
            Weight and noise; the weight is automatic where it is not given.
        spacing : float, mm
        scale : float
            Level of bright tissue. Weights of quadratic priors have no unit; others are taken to be in intensities.
        penalty : float
            rho of a prior on the volume itself.
        """
        unit = 1.0 if prior.quadratic else scale
        noise = (sigma if sigma is not None else 1.0) * unit / scale
        step = None
        if prior.analysis == GRADIENT:  # slopes are per mm, and squares of slopes per mm^2
            step = GRADIENT_STEP if prior.quadratic else GRADIENT_STEP * unit / spacing
            noise *= spacing**2 if prior.quadratic else spacing
        first = FIRST_WEIGHT * noise if lam is None else lam
        return cls(first, step, lam is None, lam is not None, LEAST_WEIGHT * noise, penalty)

    def rho(self) -> float:
        return self.penalty if self.unit is None else self.lam / self.unit

    def learn(self, n: int, chi2: float) -> None:
        drift, self.last = chi2 / max(self.last, 1e-12) - 1, chi2
        if not self.automatic or n < 2 or n % 2:
            return
        # chi2 grows about in proportion to lam.
        mismatch = chi2 / CHI2_TARGET
        self.settled = abs(mismatch - 1) < CHI2_TOLERANCE
        if self.settled:
            return
        now, (heavier, before) = self.lam, self.reference
        if n == 2 and abs(drift) < STEADY[0]:
            self.reference = now, chi2
        elif heavier > CLEAR_CHANGE * now and chi2 > CHI2_EXPECTED[1] and -STEADY[0] < drift < STEADY[1]:
            if math.log(before / chi2) < LEAST_POWER * math.log(heavier / now):
                self.lam, self.settled, self.automatic = heavier, True, False
                return
            self.reference = now, chi2
        self.lam = max(now / min(max(mismatch, 0.25), 4.0), self.least)
        self.settled = self.lam == now


@dataclass
class Schedule:
    """The denoiser's noise level, falling from `start` to `end`, then kept; rho follows as ``lam / sigma^2``.

    Parameters
    ----------
    start, end : float
        Noise levels in the units of the data.
    n_steps : int
        Iterations from one to the other, evenly spaced in the logarithm; 1 for a constant level `end`.
    weight : float
        lam, of all iterations.
    penalty : float, optional
        For steps whose rho follows from the operator (`PGD`): lam then is ``rho sigma^2``.
    automatic : bool
        Raise lam towards the end where the residual chi2 says that the data are fitted more closely than their
        noise allows (`CHI2_LEAST`).
    n : int
        Iterations so far.
    fits_noise : bool
        Whether the last iteration's chi2 was too low.

    References
    ----------
    Zhang et al. (2022), IEEE Trans. Pattern Anal. Mach. Intell. 44, 6360-6376, section 4.2.
    """

    start: float
    end: float
    n_steps: int
    weight: float
    penalty: float | None = None
    automatic: bool = False
    n: int = 0
    fits_noise: bool = False

    @property
    def sigma(self) -> float:
        """The level of the coming iteration."""
        return math.exp(log_level(self.start, self.end, self.n, self.n_steps))

    @property
    def lam(self) -> float:
        return self.weight if self.penalty is None else self.penalty * self.sigma**2

    def rho(self) -> float:
        return self.weight / self.sigma**2 if self.penalty is None else self.penalty

    def learn(self, n: int, chi2: float) -> None:
        self.n = n + 1
        if not self.automatic or self.n <= self.n_steps - ENDING:
            return
        self.fits_noise = chi2 < CHI2_LEAST * (1 - 2 * CHI2_TOLERANCE)
        if self.fits_noise:
            # Twice as fast as in proportion: the volume follows the weight with a delay.
            heavier = min((CHI2_LEAST / max(chi2, 1e-6)) ** 2, 4.0)
            self.weight *= heavier
            if self.penalty is not None:
                self.penalty *= heavier

    @property
    def settled(self) -> bool:
        return self.n >= self.n_steps and not self.fits_noise


def log_level(first: float, last: float, n: int, n_levels: int) -> float:
    """Logarithm of the n-th of `n_levels` noise levels from `first` to `last`, evenly spaced in it; then of `last`."""
    share = log_share(n, n_levels)
    return (1 - share) * math.log(first) + share * math.log(last)


def log_share(n: int, n_levels: int) -> float:
    """How far the n-th of `n_levels` levels lies from the first to the last, from 0 to 1; beyond it 1."""
    return min(1.0, n / (n_levels - 1)) if n_levels > 1 else 1.0


def require_weight(lam: float | None, sigma: float | None) -> None:
    """Raise unless `lam` is given and above zero, or `sigma` is, from which it can be chosen.

    Raises
    ------
    InvsrError
        Naming the number that is missing or out of range.
    """
    if lam is None and not (sigma is not None and sigma > 0):
        raise InvsrError(f"choosing lam automatically needs a noise level above zero, not {sigma}: give lam or sigma")
    if lam is not None and not lam > 0:
        raise InvsrError(f"lam is {lam}: the weight of the prior must be above zero")
