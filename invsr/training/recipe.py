"""Recipes of training runs: plain numbers, so that the command line can show them without importing torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from invsr.errors import InvsrError

# The thinnest of the slices that are made thinner, nearly points, as a share of the thickness that was drawn.
THINNEST = 0.1


@dataclass(frozen=True)
class Recipe:
    """All options of a denoiser's training run except its data.

    Attributes
    ----------
    architecture, config
        As in `invsr.models.architectures.build`.
    steps, batch, patch
        Optimiser steps; patches per step; sides of a patch in voxels (2-D networks do not denoise the first and last
        `neighbours` slices of the first side).
    sigma : (float, float)
        Range of the noise level: see `Degradation`.
    measured : float
        Share of patches with the errors of a random acquisition (`Degradation`); 0 for white noise alone.
    rate : float
        Largest learning rate; it falls to 0 along a half cosine.
    seed : int
    average : float
        Decay of the running mean of the weights; the mean is written to the file.

    Raises
    ------
    InvsrError
        When a number makes no sense.
    """

    architecture: str = "UNet"
    config: dict[str, Any] = field(default_factory=lambda: {"dim": 3, "channels": [32, 64, 128]})
    steps: int = 12_000
    batch: int = 6
    patch: tuple[int, int, int] = (28, 28, 28)
    sigma: tuple[float, float] = (0.002, 0.3)
    measured: float = 0.5
    rate: float = 2e-3
    seed: int = 0
    average: float = 0.998

    def __post_init__(self) -> None:
        low, high = self.sigma
        for fine, complaint in (
            (self.steps >= 1, f"steps is {self.steps}: train for at least one"),
            (self.batch >= 1, f"batch is {self.batch}: use at least one patch per step"),
            (len(self.patch) == 3 and min(self.patch) >= 1, f"patch is {self.patch}: give three sides in voxels"),
            (0 < low <= high < math.inf, f"sigma range is {low:g} to {high:g}: give two levels above zero, low first"),
            (0 <= self.measured <= 1, f"measured is {self.measured:g}: give a share between 0 and 1"),
            (0 < self.rate < math.inf, f"rate is {self.rate:g}: give a learning rate above zero"),
            (0 <= self.average < 1, f"average is {self.average:g}: give a decay from 0 to below 1"),
            (self.seed >= 0, f"seed is {self.seed}: give a whole number from 0"),
        ):
            if not fine:
                raise InvsrError(complaint)


@dataclass(frozen=True)
class SolverRecipe:
    """All options of a solver's training run except its data.

    Attributes
    ----------
    kind : {"unrolled", "deq"}
    step : {"hqs", "admm", "pgd"}
    n_steps : int
        Number of unrolled steps; for an equilibrium, the largest number of iterations before the trained ones and of
        the search for the fixed point.
    shared : bool
        One network for all steps, or one for each step.
    save_memory : bool
        See `Unrolled`.
    architecture, config
        As in `invsr.models.architectures.build`.
    expansion : float
        For an equilibrium, the factor above which steps away from the fixed point are penalised
        (`Equilibrium.last_steps`), at most 1; below 1 the iterations converge to the fixed point.
    supervision : {"truth", "measurements"}
        High-resolution volumes, or thick-slice scans alone (`invsr.training.measurements`).
    loss : str
        Terms with their weights: see `invsr.training.losses`. Supervision "measurements" uses deepinv's losses.
    steps, batch, patch
        Optimiser steps; patches per step; sides of a patch in voxels; the slices lie across the longest.
    thickness, gap, noise, thin, stacks, oblique, kspace
        Ranges of the acquisitions: see `Acquisitions`.
    contrasts : int
        Largest number of contrasts that are reconstructed together, for architecture "JointUNet"; then each has one
        scan, and patches are cubes.
    rate, seed, average
        As in `Recipe`.

    Raises
    ------
    InvsrError
        When a number makes no sense.
    """

    kind: str = "unrolled"
    step: str = "hqs"
    n_steps: int = 5
    shared: bool = True
    save_memory: bool = False
    architecture: str = "UNet"
    config: dict[str, Any] = field(default_factory=lambda: {"dim": 3, "channels": [32, 64, 128]})
    expansion: float = 0.9
    supervision: str = "truth"
    loss: str = "l1"
    steps: int = 6_000
    batch: int = 4
    patch: tuple[int, int, int] = (48, 24, 24)
    thickness: tuple[float, float] = (2.0, 8.0)
    gap: float = 0.3
    noise: tuple[float, float] = (0.002, 0.04)
    thin: float = 0.0
    stacks: float = 0.0
    oblique: float = 0.0
    kspace: float = 0.0
    contrasts: int = 1
    rate: float = 5e-4
    seed: int = 0
    average: float = 0.998

    def __post_init__(self) -> None:
        for fine, complaint in (
            (self.kind in ("unrolled", "deq"), f"kind {self.kind!r}: use unrolled or deq"),
            (
                self.supervision in ("truth", "measurements"),
                f"supervision {self.supervision!r}: use truth or measurements",
            ),
            (self.n_steps >= 1, f"n_steps is {self.n_steps}: unroll at least one step"),
            (0 < self.expansion <= 1, f"expansion is {self.expansion:g}: give a factor above 0 and at most 1"),
            (self.steps >= 1, f"steps is {self.steps}: train for at least one"),
            (self.batch >= 1, f"batch is {self.batch}: use at least one patch per step"),
            (len(self.patch) == 3 and min(self.patch) >= 1, f"patch is {self.patch}: give three sides in voxels"),
            (0 < self.thickness[0] <= self.thickness[1] < math.inf, f"thickness range is {self.thickness}: low first"),
            (0 <= self.gap < math.inf, f"gap is {self.gap:g}: give a share of the thickness, 0 or more"),
            (0 <= self.thin <= 1, f"thin is {self.thin:g}: give a share between 0 and 1"),
            (0 <= self.stacks <= 1, f"stacks is {self.stacks:g}: give a share between 0 and 1"),
            (0 <= self.oblique <= 1, f"oblique is {self.oblique:g}: give a share between 0 and 1"),
            (0 <= self.kspace <= 1, f"kspace is {self.kspace:g}: give a share between 0 and 1"),
            (
                self.kspace == 0
                or (self.kind == "unrolled" and self.supervision == "truth" and "physics" not in self.loss),
                "k-space is trained on with kind unrolled, supervision truth and a loss without physics",
            ),
            (1 <= self.contrasts <= 4, f"contrasts is {self.contrasts}: train on one to four"),
            (
                self.contrasts == 1
                or (self.kind == "unrolled" and self.supervision == "truth" and not self.stacks + self.kspace),
                "several contrasts are trained on with kind unrolled, supervision truth, stacks and kspace 0",
            ),
            (0 < self.noise[0] <= self.noise[1] < math.inf, f"noise range is {self.noise}: above zero, low first"),
            (0 < self.rate < math.inf, f"rate is {self.rate:g}: give a learning rate above zero"),
            (0 <= self.average < 1, f"average is {self.average:g}: give a decay from 0 to below 1"),
            (self.seed >= 0, f"seed is {self.seed}: give a whole number from 0"),
        ):
            if not fine:
                raise InvsrError(complaint)


@dataclass(frozen=True)
class DeviationRecipe:
    """All options of the training run of a network that knows a solver's errors, except its data.

    Attributes
    ----------
    solver : str
        The trained solver whose errors are learned, a model of the package or a weights file; its acquisitions are
        drawn.
    draws : int
        Number of patches that it reconstructs. They are kept on disk, and seen again, flipped at random.
    channels : (int, ...)
        Numbers of channels on each scale of the network, finest first.
    side : int
        Side of a patch, a cube, voxels; a multiple of 8.
    steps, batch, rate, seed, average
        As in `SolverRecipe`.

    Raises
    ------
    InvsrError
        When a number makes no sense.
    """

    solver: str = "mri-unrolled"
    draws: int = 600
    channels: tuple[int, ...] = (32, 64)
    steps: int = 4_000
    batch: int = 2
    side: int = 56
    rate: float = 1e-3
    seed: int = 0
    average: float = 0.998

    def __post_init__(self) -> None:
        for name, value in (("draws", self.draws), ("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise InvsrError(f"{name} is {value}: use at least one")
        if self.side < 16 or self.side % 8:
            raise InvsrError(f"side is {self.side}: use a multiple of 8 from 16")
        if not 0 < self.rate < math.inf or not 0 <= self.average < 1 or self.seed < 0:
            raise InvsrError(
                f"rate {self.rate:g}, average {self.average:g}, seed {self.seed}: a rate above zero, a decay from 0 to "
                "below 1, a whole number from 0"
            )
