"""What every run ends with."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from invsr.grid import Grid
from invsr.numerics.iteration import Status
from invsr.volume import Volume

# Judgement of chi2: outside this band the noise level, the profile or the model is in doubt.
CHI2_EXPECTED = (0.7, 1.3)
# What a run that has not converged ended with, and what to do about it.
ENDINGS = {
    Status.MAX_ITER: "stopped at max_iter = {n} before it converged: raise max_iter",
    Status.STALLED: "stopped where more iterations come no nearer to the solution in single precision: raise the "
    "weight (lam) if the volume looks unstable",
    Status.BREAKDOWN: "broke down after {n} iterations, with numbers that are not finite: check the operator's scale, "
    "and the data and the noise level for values that are not finite",
    Status.DIVERGED: "diverged after {n} iterations, the volume is useless: a step longer than 1 / Problem.norm, an "
    "adjoint that is not the operator's own, or a denoiser that amplifies its input",
}


@dataclass(frozen=True)
class Solution:
    """A reconstruction, how it ended, and how well it explains the data.

    Attributes
    ----------
    x : Tensor, shape (batch, channel, i, j, k)
    grid : Grid
    status : Status
    history : list of dict
        Per iteration; keys as the solver reports them ("chi2", "change", "lam", ...).
    lam : float
        The weight of the prior that was used.
    sigma : float or None
        Noise level that chi2 refers to, in the units of x.
    chi2 : float or None
        Mean squared standardised residual per measured voxel: about 1 when model and noise level are right.
    gain : float
        Gain of the re-simulated data against the data (`invsr.solvers.residuals.gain`): about 1 when intensities
        are kept.
    std : Tensor or None, shape (batch, channel, i, j, k)
        Standard deviation of x's error, where it was asked for.
    samples : Tensor or None, shape (n, 1, i, j, k)
        Draws from the posterior, of which x is the mean.
    """

    x: Tensor
    grid: Grid
    status: Status = Status.CONVERGED
    history: list[dict[str, float]] = field(default_factory=list)
    lam: float = 0.0
    sigma: float | None = None
    chi2: float | None = None
    gain: float = 1.0
    std: Tensor | None = None
    samples: Tensor | None = None

    @classmethod
    def of_run(
        cls,
        x: Tensor,
        grid: Grid,
        status: Status,
        history: list[dict[str, float]],
        sigma: float | None,
        gain: float,
    ) -> Solution:
        """The result of an iteration: weight and chi2 are those of the last history entry."""
        last = history[-1]
        return cls(x, grid, status, history, last["lam"], sigma, None if sigma is None else last["chi2"], gain)

    @property
    def volume(self) -> Volume:
        """The reconstruction with its grid, ready to be saved."""
        return Volume(self.x, self.grid)

    def remarks(self) -> list[str]:
        """One line for each thing about this run that a user should know."""
        lines = []
        if self.status is not Status.CONVERGED:
            lines.append(ENDINGS[self.status].format(n=len(self.history)))
        if self.status is Status.DIVERGED:
            return lines  # figures of what is no reconstruction say nothing
        if self.chi2 is not None and not CHI2_EXPECTED[0] <= self.chi2 <= CHI2_EXPECTED[1]:
            hint = (
                "noise overestimated, or the weight of the prior too small"
                if self.chi2 < 1
                else "noise underestimated, a wrong slice profile or thickness, motion, or too large a weight"
            )
            lines.append(f"residual chi2 is {self.chi2:.2f} per measured voxel, not about 1: {hint}")
        if abs(self.gain - 1) > 0.01:
            lines.append(f"re-simulated data has gain {self.gain:.3f}, not 1: intensities are not kept")
        return lines
