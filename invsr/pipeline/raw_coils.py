"""The coils of k-space: white noise, few of them, and maps in the units of the file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from invsr.coils.compression import virtual_coils
from invsr.coils.maps import coil_maps
from invsr.coils.noise import estimate_noise
from invsr.coils.noise_of_readouts import readout_noise
from invsr.coils.whitening import combined, mixed, noise_covariance, whitened, whitening_matrix
from invsr.errors import InvsrError
from invsr.io.warn import warn
from invsr.noncartesian import NonCartesianData
from invsr.pipeline.raw_centre import central_lines
from invsr.raw import Data, KSpaceData, RawData

# Maps are divided by no less than this.
FAINTEST = 1e-6


def received(
    raw: Data, noise: float | None, maps: Tensor | None, n_coils: int | None
) -> tuple[Data, Tensor | None, float]:
    """Data of white noise and few coils, the coils' maps (None for one coil), and the noise of one average.

    With estimated maps the image is the root of the sum of squares of the file's coils, whatever their noise; with
    given ones it has the units that they give it.

    Raises
    ------
    InvsrError
        When noise, maps or the number of coils cannot be used.
    """
    if noise is not None and not (np.isfinite(noise) and noise > 0):
        raise InvsrError(f"{raw.name}: noise {noise}: give the standard deviation of k-space samples, above zero")
    if maps is not None and tuple(maps.shape) != (raw.n_coils, *raw.grid.shape):
        raise InvsrError(
            f"{raw.name}: coil maps of shape {tuple(maps.shape)} beside samples of {(raw.n_coils, *raw.grid.shape)}: "
            "give one map for each coil, on the image's matrix"
        )
    if maps is not None and n_coils is not None:
        raise InvsrError(
            f"{raw.name}: {n_coils} virtual coils beside coil maps, which belong to real ones: leave one out"
        )
    identity = torch.eye(raw.n_coils, dtype=torch.complex128, device=raw.samples.device)
    if isinstance(raw, NonCartesianData) and raw.calibration is None and maps is None and raw.n_coils > 1:
        raw = raw.with_samples(raw.samples, calibration=central_lines(raw))
    covariance = _covariance(raw) if noise is None else noise**2 * identity
    sigma = covariance.diagonal().real.mean().sqrt().item()
    if maps is not None:
        # White noise, and intensities as in the file.
        matrix = sigma * whitening_matrix(covariance)
        if torch.allclose(matrix, identity):
            return raw, maps.to(raw.samples), sigma
        return combined(raw, matrix), mixed(matrix, maps.to(raw.samples)), sigma
    raw = whitened(raw, covariance)
    # How the file's coils follow from virtual ones, whose samples are brought to about the size of the file's.
    back = torch.linalg.cholesky(covariance.to(torch.complex128)) / sigma
    if raw.n_coils > 1 or n_coils is not None:
        rows, note = virtual_coils(raw, n_coils)
        if note:
            raw, back = combined(raw, rows), back @ rows.mH
            raw = raw.with_samples(raw.samples, notes=(*raw.notes, note))
    maps = coil_maps(raw) if raw.n_coils > 1 else None
    if maps is not None:
        maps.div_(_norm(maps, back).clamp(min=FAINTEST))
    return raw.with_samples(raw.samples.mul_(sigma), noise=None, calibration=None), maps, sigma


def _norm(maps: Tensor, back: Tensor) -> Tensor:
    """``|B S|`` in each voxel, of maps S (coils, i, j, k) and a matrix B (more coils, coils)."""
    total = torch.zeros_like(maps[0].real)
    gram = (back.mH @ back).to(maps)
    for one, row in zip(maps, gram, strict=True):  # a volume at a time
        total += (one.conj() * torch.tensordot(row, maps, 1)).real
    return total.clamp(min=0).sqrt()


def _covariance(raw: KSpaceData) -> Tensor:
    """The covariance of the noise of one average between coils: that of the noise scan, else estimated."""
    if raw.noise is not None:
        try:
            return noise_covariance(raw.noise)
        except InvsrError as error:
            raise InvsrError(f"{raw.name}: {error}") from None
    if isinstance(raw, NonCartesianData):
        found = readout_noise(raw)
    else:
        assert isinstance(raw, RawData)
        found = estimate_noise(raw)
    if found.doubt:
        warn(f"{raw.name}: its noise is estimated with doubt, as {found.doubt}: give --noise, or a noise scan")
        # What may be signal does not whiten: it would shade the image.
        return found.sigma**2 * torch.eye(raw.n_coils, dtype=torch.complex128, device=raw.samples.device)
    return found.covariance
