"""The noise of k-space off the Cartesian grid where there is no noise scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invsr.coils.noise import FEWEST_PER_COIL, SAMPLES, NoiseEstimate
from invsr.noncartesian import NonCartesianData

# Samples along the readout that are transformed together.
BLOCK = 128
# Objects reach into the corners of the field of view by this factor beyond the circle at most.
CORNERS = 1.1
# Samples beyond this share of the largest frequency are outermost.
OUTERMOST = 0.95
# Coefficients of the window, whose leakage is below -92 dB from the fourth frequency on, and what of its frequencies
# are independent.
WINDOW, LOBE, INDEPENDENT = (0.35875, 0.48829, 0.14128, 0.01168), 4, 0.5


def readout_noise(raw: NonCartesianData) -> NoiseEstimate:
    """The noise of samples, from what changes along the readout faster than a signal from the field of view can.

    Between samples that lie a step apart in k-space, the phase of a voxel turns by the step times its distance from the
    middle, so that with oversampled readouts frequencies are left that hold noise alone. Pieces of readouts are
    transformed, with Blackman and Harris' window against leakage. Where readouts are hardly oversampled the outermost
    samples are taken, which hold some signal: this is doubtful, and too much rather than too little.

    Parameters
    ----------
    raw : NonCartesianData

    Returns
    -------
    NoiseEstimate

    References
    ----------
    Harris (1978), Proc. IEEE 66, 51-83 (windows).
    """
    readout = raw.trajectory.shape[0]
    size = min(BLOCK, readout)
    at = torch.arange(size, dtype=torch.float64) * 2 * math.pi / size
    window = sum((-1) ** n * a * torch.cos(n * at) for n, a in enumerate(WINDOW))
    window = (window / window.square().sum().sqrt()).to(raw.samples.device)
    frequencies = torch.fft.fftfreq(size, dtype=torch.float64).abs().to(raw.samples.device)
    # Half of the field of view along the step, of an object that leaves the corners empty.
    reach = CORNERS * raw.trajectory.diff(dim=0).norm(dim=-1).double() / 2
    total = torch.zeros(raw.n_coils, raw.n_coils, dtype=torch.complex128, device=raw.samples.device)
    count = 0
    for first in range(0, readout - size + 1, size):
        most = reach[first : first + size - 1].amax(0) + LOBE / size
        beyond = frequencies[:, None] > most
        piece = raw.samples[0, :, first : first + size].to(torch.complex128)
        values = torch.fft.fft(piece * window[:, None, None], dim=1)[:, beyond].flatten(1)
        total += values @ values.mH
        count += values.shape[1]
    if INDEPENDENT * count * raw.n_coils >= SAMPLES:
        return NoiseEstimate(_covariance(total, count, INDEPENDENT * count))
    radius = raw.trajectory.norm(dim=-1)
    outer = raw.samples[0, :, radius >= OUTERMOST * radius.max()].flatten(1).to(torch.complex128)
    return NoiseEstimate(
        _covariance(outer @ outer.mH, outer.shape[1], outer.shape[1]),
        "its readouts are hardly oversampled, so that the outermost samples were taken for noise",
    )


def _covariance(total: Tensor, count: int, independent: float) -> Tensor:
    """From the sum of products of so many values; only the variances where too few are independent."""
    covariance = total / (2 * count)
    if independent < FEWEST_PER_COIL * len(total):
        return covariance.diagonal().real.diag_embed().to(covariance.dtype)
    return covariance
