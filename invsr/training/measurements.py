"""Training a solver on thick-slice scans alone, without high-resolution truth, by deepinv's losses."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.nifti import load
from invsr.noise.estimation import estimate_sigma
from invsr.numerics.levels import peak
from invsr.operators.base import LinearOperator
from invsr.operators.scan_model import acquisition
from invsr.solvers.plug_and_play import smooth_guess
from invsr.training.acquisitions import LEAST_SLICES_OF_PATCH
from invsr.training.random_draws import STEPS, integer, seeded
from invsr.training.recipe import SolverRecipe
from invsr.uncertainty.bootstrap import Move
from invsr.volume import require_signal

# Step of the finite difference in SURE's divergence, as a share of the noise.
TAU = 0.1


@dataclass(frozen=True)
class TrainingScan:
    """A scan, its peak scaled to 1, and the operator that measures a patch of it.

    Attributes
    ----------
    data : Tensor, shape (1, 1, i, j, k)
    sigma : float
    operator : LinearOperator
        From a patch's isotropic volume to its slices: the same wherever the patch lies.
    thickness : float
        Slice thickness, isotropic voxels.
    gap : float
        Gap between slices, as a share of the thickness.
    """

    data: Tensor
    sigma: float
    operator: LinearOperator
    thickness: float
    gap: float


class ScanPatches(Dataset[tuple[Tensor, Tensor]]):
    """Patches of measured scans, and the number of the step; all patches of a step are from one scan.

    Parameters
    ----------
    paths : sequence of path
        Thick-slice scans, NIfTI. The slice thickness is that of the sidecar, or else the slice spacing.
    recipe : SolverRecipe
        Its patch is the field of view of a patch of slices, in isotropic voxels.

    Raises
    ------
    InvsrError
        When a scan has too few slices, or its noise cannot be estimated.
    """

    def __init__(self, paths: Sequence[str | Path], recipe: SolverRecipe) -> None:
        self.recipe = recipe
        self.scans = [_scan(path, recipe.patch) for path in paths]

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def scan(self, step: int) -> TrainingScan:
        """The scan of a step."""
        return self.scans[integer(seeded(self.recipe.seed, step, STEPS), len(self.scans))]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        step = index // self.recipe.batch
        scan, generator = self.scan(step), seeded(self.recipe.seed, index)
        y = scan.data[0]
        for axis, side in enumerate(scan.operator.range.shape, start=1):
            first = integer(generator, y.shape[axis] - side + 1)
            y = y.narrow(axis, first, side)
        return y.clone(), torch.tensor(step)

    def ranges(self) -> dict[str, Any]:
        """Ranges of the scans: thickness in isotropic voxels, gap as a share of it, noise as a share of the peak."""
        thickness = [one.thickness for one in self.scans]
        noise = [one.sigma for one in self.scans]
        return {
            "thickness": [min(thickness), max(thickness)],
            "gap": max([0.0, *(one.gap for one in self.scans)]),
            "noise": [min(noise), max(noise)],
        }


def objective_without_truth(scans: ScanPatches) -> Callable[[Any, Sequence[Tensor]], tuple[Tensor, dict[str, float]]]:
    """The training objective: Stein's unbiased risk estimate of the measured part, equivariance for the rest.

    .. code-block:: text

        SURE   ||A x - y||^2 / n - sigma^2 + 2 sigma^2 div(A x) / n         x = model(y)
        EI     ||model(A T x + noise) - T x||^2 / m                         T: rotations, flips, shifts; T x held fixed

    in units of sigma^2. Rotations bring the in-plane detail of the slices into the direction across them.

    Raises
    ------
    InvsrError
        When deepinv, whose losses these are, is not installed.

    References
    ----------
    Chen, Tachella, Davies (2022), Robust equivariant imaging, CVPR.
    Scanvic, Davies, Abry, Tachella (2023), arXiv:2312.11232, for T x held fixed.
    """
    from invsr.interop.deepinv import to_deepinv  # its error says how to install deepinv

    deepinv = importlib.import_module("deepinv")

    def objective(model: Any, batch: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
        y, step = batch
        number = int(step[0])
        scan = scans.scan(number)
        operator = scan.operator.to(y.device)
        physics = to_deepinv(operator)
        physics.noise_model = deepinv.physics.GaussianNoise(scan.sigma)
        shape = operator.domain.shape
        move = Move.draw(torch.Generator().manual_seed(number), shape, turns=True)

        # The losses evaluate one function of the data, so its number of steps is drawn once.
        n_before = random.Random(number).randrange(scans.recipe.n_steps)

        def solve(data: Tensor, _: Any) -> Tensor:
            guess = smooth_guess(operator, data)
            if scans.recipe.kind == "deq":
                estimate, _ = model.last_steps(operator, data, scan.sigma, guess, n_before=n_before)
            else:
                estimate = model(operator, data, scan.sigma, guess)
            solution: Tensor = estimate
            return solution

        # The losses draw from the global generator: seeded here, so that runs repeat and resume bit for bit.
        with torch.random.fork_rng(devices=[y.device] if y.is_cuda else []):
            torch.manual_seed(seeded(scans.recipe.seed, number, STEPS).initial_seed())
            x = solve(y, physics)
            sure = deepinv.loss.SureGaussianLoss(scan.sigma, tau=TAU * scan.sigma)(y, x, physics, solve).mean()
            ei = deepinv.loss.EILoss(lambda v: move(v, shape), no_grad=True)(x, physics, solve)
        units = scan.sigma**2
        return (sure + ei) / units, {"sure": float(sure.detach()) / units, "ei": float(ei.detach()) / units}

    return objective


def _scan(path: str | Path, patch: Sequence[int]) -> TrainingScan:
    volume = load(path)
    require_signal(volume)
    grid, across = volume.grid, volume.grid.through_plane
    finest, between = float(grid.spacing.min()), float(grid.spacing[across])
    sides = sorted(patch)
    long, shape = sides.pop(), [0, 0, 0]
    for axis in range(3):
        wanted = max(LEAST_SLICES_OF_PATCH, round(long * finest / between)) if axis == across else sides.pop()
        shape[axis] = min(wanted, grid.shape[axis])
    if shape[across] < LEAST_SLICES_OF_PATCH:
        raise InvsrError(
            f"{volume.name}: has {shape[across]} slices: at least {LEAST_SLICES_OF_PATCH} are needed to train on"
        )
    scale = peak(volume.data)
    try:
        sigma = estimate_sigma(volume.data, axes=grid.fine_axes) / scale
    except InvsrError as error:
        raise InvsrError(f"{volume.name}: {error}") from None
    thickness = volume.slice_thickness or between
    operator = acquisition(Grid(shape, grid.affine), slice_thickness=thickness)
    return TrainingScan(volume.data / scale, sigma, operator, thickness / finest, (between - thickness) / thickness)
