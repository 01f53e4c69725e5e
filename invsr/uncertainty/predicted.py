"""The standard deviation of each voxel's error, predicted by a network that has seen where a trained solver errs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from invsr.errors import InvsrError
from invsr.io.files import sha256
from invsr.models.deviation import DeviationNetwork
from invsr.models.registry import DEVIATION, ENDING, models, weights_of
from invsr.models.weights import read_weights, require_kind
from invsr.numerics.linear import white_noise
from invsr.operators.base import Data, LinearOperator
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple, back_project, like_data

# Factor by which detail that the data do not show is enlarged for the network: it is small beside the volume.
ENLARGED = 5.0
WEIGHTS = ".safetensors"
# Shares of the errors that are to lie within so many deviations.
INTERVALS = {0.6827: 1.0, 0.95: 1.96}
# Orders of the axes that bring each of two axes in the place of the third.
TURNS = ((2, 0, 1), (1, 2, 0))
# Brighter than this share of the peak is tissue, where errors count.
TISSUE = 0.1


def told(operator: LinearOperator, x: Tensor) -> Tensor:
    """What the network is told of a reconstruction besides its noise.

    The volume; what of it is not in the smoothest volume that explains the same data, which is what the solver made up,
    `ENLARGED`; how much of each voxel the data see, relative to the mean, less 1; the logarithm of the number of
    unknowns per measured value.

    Parameters
    ----------
    operator : LinearOperator
    x : Tensor, shape (batch, 1, *operator.domain.shape)
        The reconstruction, bright tissue near 1.

    Returns
    -------
    Tensor, shape (batch, 4, *operator.domain.shape)
    """
    prediction = operator(x)
    detail = x - smooth_guess(operator, prediction)
    # Of one volume: the operator sees all of a batch alike.
    ones: Data = like_data(tuple(torch.ones_like(part[:1]) for part in as_tuple(prediction)), prediction)
    seen = back_project(operator, ones)
    seen = seen / seen.mean().clamp(min=1e-12) - 1
    missing = torch.full_like(seen, math.log(unknowns_per_value(operator)))
    return torch.cat([x, ENLARGED * detail, seen.expand_as(x), missing.expand_as(x)], 1)


@dataclass(frozen=True, eq=False)
class PredictedDeviation:
    """A network that knows where a trained solver errs.

    Attributes
    ----------
    network : DeviationNetwork
    about : dict
        The description in its weights file.
    """

    network: DeviationNetwork
    about: dict[str, Any]

    def __call__(self, operator: LinearOperator, x: Tensor, sigma: float) -> Tensor:
        """The standard deviation of each voxel's error, shape of x, but for a factor of its own for each scan.

        Parameters
        ----------
        operator : LinearOperator
        x : Tensor, shape (1, 1, *operator.domain.shape)
            The solver's reconstruction, bright tissue near 1.
        sigma : float
            Noise of the data.
        """
        network = self.network.to(x.device)
        with torch.no_grad():
            known = told(operator, x)
            missing = [-side % network.multiple for side in x.shape[2:]]
            padded = F.pad(known, [n for side in reversed(missing) for n in (0, side)], mode="replicate")
            i, j, k = (slice(0, side) for side in x.shape[2:])
            found: Tensor = network(padded, sigma)[..., i, j, k]
        return found

    def factor(
        self, run: Callable[[Data], Tensor], operator: LinearOperator, x: Tensor, sigma: float, seed: int = 0
    ) -> float:
        """By how much the network's deviations are to be widened, as a scan's own in-plane detail shows.

        The network learned from simulated anatomy; how rough a head is, and how noisy its image was made, it cannot
        know. A cube of the result is turned so that in-plane detail lies across the slices, measured and reconstructed
        again (as in `equivariant_bootstrap`): there the error is known, and so is the factor with which the intervals
        hold. Detail that the solver smoothed away is missing from the result: on heads whose truth is known, a common
        factor on top was measured for a table of acquisitions ("calibration" in the description: "unknowns" per
        measured value, "noise" and "factors"; split conformal prediction, Angelopoulos & Bates 2023, Found. Trends
        Mach. Learn. 16, 494-591). Between them it is interpolated in logarithms, beyond them the nearest is taken;
        without a table it is 1.

        Parameters
        ----------
        run : callable
            ``run(y)``: the solver's volume for data of `operator`.
        operator : LinearOperator
            On a cube.
        x : Tensor, shape (1, 1, n, n, n)
            The reconstruction there.
        sigma : float
        seed : int
            For the noise.
        """
        generator = torch.Generator().manual_seed(seed)
        logs = []
        with torch.no_grad():
            for order in TURNS:
                truth = x.permute(0, 1, *(2 + axis for axis in order)).contiguous()
                clean = operator(truth)
                noisy = tuple(one + sigma * white_noise(one, generator) for one in as_tuple(clean))
                again = run(like_data(noisy, clean))
                bright = truth > TISSUE * truth.max()
                logs.append(interval_factor((again - truth).abs()[bright], self(operator, again, sigma)[bright]))
        return float(np.exp(np.mean(np.log(logs)))) * self.common_factor(unknowns_per_value(operator), sigma)

    def common_factor(self, unknowns: float, sigma: float) -> float:
        """That of the table, for an acquisition."""
        found = self.about.get("calibration")
        if not found:
            return 1.0
        rows = [np.interp(math.log(sigma), np.log(found["noise"]), np.log(row)) for row in found["factors"]]
        return float(np.exp(np.interp(math.log(unknowns), np.log(found["unknowns"]), rows)))


def interval_factor(error: Tensor, deviation: Tensor) -> float:
    """The factor of the deviations with which `INTERVALS` hold: the geometric mean of those of each."""
    ratio = (error / deviation.clamp(min=1e-12)).double().cpu().numpy()
    return float(np.exp(np.mean([math.log(np.quantile(ratio, share) / width) for share, width in INTERVALS.items()])))


def unknowns_per_value(operator: LinearOperator) -> float:
    """The number of unknowns per measured value."""
    grids = operator.range if isinstance(operator.range, tuple) else (operator.range,)
    return float(operator.domain.size / sum(grid.size for grid in grids))


def knows_deviation(solver: str | Path) -> bool:
    """Whether there is a network that knows the errors of a trained solver (`load_deviation`)."""
    if str(solver).endswith(WEIGHTS):
        return os.path.isfile(_beside(solver))
    return f"{solver}{ENDING}" in models(DEVIATION)


def load_deviation(solver: str | Path = "mri-unrolled") -> PredictedDeviation:
    """The network that knows the errors of a trained solver.

    Parameters
    ----------
    solver : str or path
        A model of the package, or a weights file W.safetensors, beside which W-deviation.safetensors lies
        (`invsr train deviation`).

    Raises
    ------
    InvsrError
        When there is none, it is damaged, or it was trained with other weights of the solver.

    Examples
    --------
    >>> load_deviation("mri-unrolled").about["solver"]
    'mri-unrolled'
    """

    path, sha256 = _beside(solver), None
    if not str(solver).endswith(WEIGHTS):
        path, sha256 = weights_of(f"{solver}{ENDING}", DEVIATION)
    found = read_deviation(path, sha256)
    if found.about.get("solver_sha256") != fingerprint(solver):
        raise InvsrError(f"{path}: was trained on the errors of other weights than {solver}: train it again")
    return found


def read_deviation(path: str | Path, sha256: str | None = None) -> PredictedDeviation:
    """The network in a weights file, which `invsr train deviation` wrote.

    Raises
    ------
    InvsrError
        As `invsr.models.weights.read_weights`.
    """

    def make(about: dict[str, Any]) -> DeviationNetwork:
        require_kind(about, DEVIATION)
        return DeviationNetwork(**about["config"])

    network, about = read_weights(path, make, sha256)
    return PredictedDeviation(network, about)


def fingerprint(solver: str | Path) -> str:
    """SHA-256 of a trained solver's weights file."""
    if str(solver).endswith(WEIGHTS):
        return sha256(solver)
    return weights_of(str(solver))[1]


def _beside(solver: str | Path) -> Path:
    return Path(solver).with_name(f"{Path(solver).stem}{ENDING}{WEIGHTS}")
