"""The resolution that was measured: scanners fill k-space with zeros, and write more pixels than they measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.errors import InvsrError

# Voxels of a window, the longest first: as few windows as `FEWEST` are not enough, more than `MOST` say no more.
WINDOWS = (128, 96, 64, 48, 32)
FEWEST, MOST = 200, 20_000
# The middle half of a window is brighter than this share of the 99th percentile: tissue, because the magnitude of
# noise around zero has a wider spectrum than the noise itself.
BRIGHT = 0.15
# What is empty: power that rises by less than the first factor over 3 % of the band, from the Nyquist frequency down.
# Its edge: where the power exceeds it by the second factor; it exceeds it by the third no farther than 10 % below the
# edge (real scans with filters 4 to 9 %, without zero-filling 12 % and more).
FLAT, EDGE, STEEP, SHARP = 1.6, 4.0, 30.0, 0.9
STEP = 0.03
# Least share of the band that is to be empty.
LEAST_EMPTY = 0.03
# Less than this share of the largest power counts as this much: it leaks in from elsewhere.
LEAST_POWER = 1e-7
# A window blurs a sharp edge outwards, by so many frequencies of its transform; a filter's edge less.
BLUR = 1.5
# Smaller shares than this are no zero-filling.
LEAST_SHARE = 0.3
# Partial Fourier: power falls by these decibels from two frequencies before to two after the edge of what was measured
# on both sides, beyond what it does around: to a quarter in anatomy, half in noise. Shares of k-space that are in use.
LEAST_STEP, SHARES, AROUND = 3.5, (0.58, 0.9), 12
# Filled in twice: once by the scanner, once by the workstation.
MOST_ROUNDS = 3


@dataclass(frozen=True)
class PowerSpectrum:
    """Power along one axis, as a median over windows in tissue.

    Attributes
    ----------
    power : Tensor, shape (n,)
        At frequencies from 0 to Nyquist, evenly spaced.
    n_windows : int
    """

    power: Tensor
    n_windows: int


def power_spectrum(data: Tensor, axis: int) -> PowerSpectrum | None:
    """Power spectrum along an axis of an image: Hann windows, median over those that lie in tissue.

    Parameters
    ----------
    data : Tensor, shape (..., i, j, k), real
    axis : {0, 1, 2}

    Returns
    -------
    PowerSpectrum or None
        None where too little tissue is wide enough.
    """
    rows = data.reshape(-1, *data.shape[-3:]).movedim(1 + axis, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    rows = rows if rows.dtype == torch.float64 else rows.float()
    there = rows[rows != 0].abs()
    if not there.numel():
        return None
    there = there[:: max(1, there.numel() // 1_000_000)]
    bright = BRIGHT * float(there.kthvalue(max(1, round(0.99 * there.numel()))).values)
    for length in WINDOWS:
        if length > rows.shape[1]:
            continue
        windows = rows.unfold(1, length, max(1, length // 4)).reshape(-1, length)
        windows = windows[:: max(1, len(windows) // (4 * MOST))]
        inside = (windows[:, length // 4 : 3 * length // 4] > bright).all(1) & (windows != 0).all(1)
        windows = windows[inside]
        if len(windows) >= FEWEST:
            windows = windows[:: max(1, len(windows) // MOST)]
            hann = torch.hann_window(length + 2, periodic=False, dtype=rows.dtype, device=rows.device)[1:-1]
            windows = windows - (windows @ hann / hann.sum())[:, None]
            power = torch.fft.rfft(windows * hann).abs().square().median(0).values
            return PowerSpectrum(power, len(windows))
    return None


def measured_share(data: Tensor, axis: int) -> float:
    """Share of an axis' frequencies that were measured; 1 where there is no sign of zero-filling.

    Filled-in frequencies hold nothing but what rounding and taking the magnitude have put there: the power is flat up
    to the Nyquist frequency, and has a sharp edge. Noise has no edge, and anatomy none that is so sharp.

    Parameters
    ----------
    data : Tensor, shape (..., i, j, k), real
    axis : {0, 1, 2}
    """
    found = power_spectrum(data, axis)
    if found is None:
        return 1.0
    power = found.power.clamp(min=LEAST_POWER * float(found.power.max())).tolist()
    nyquist = len(power) - 1
    # The Nyquist frequency itself has other statistics; frequency zero was subtracted.
    start = nyquist - 1
    step = max(1, round(STEP * nyquist))
    while start > step and power[start - step] < FLAT * power[start]:
        start -= 1
    empty = power[start]
    if not empty > 0:
        return 1.0
    edge, steep = (_falls_below(power, factor * empty, start) for factor in (EDGE, STEEP))
    share = (edge - max(0.0, BLUR - (edge - steep) / 2)) / nyquist
    is_empty = 1 - start / nyquist >= LEAST_EMPTY
    return min(1.0, share) if is_empty and steep >= SHARP * edge and share > LEAST_SHARE else 1.0


def partial_fourier_share(data: Tensor, axis: int) -> float:
    """Share of k-space that was measured along an axis of a magnitude image; 1 where there is no sign of less.

    Frequencies of which only one side was measured have half of their amplitude, where the other side was left zero:
    a step in the power spectrum. Where it was completed from the phase (homodyne, POCS) there is none.

    Parameters
    ----------
    data : Tensor, shape (..., i, j, k), real
    axis : {0, 1, 2}

    References
    ----------
    McGibney et al. (1993), Magn. Reson. Med. 30, 51-59.
    """
    found = power_spectrum(data, axis)
    if found is None:
        return 1.0
    decibels = 10 * found.power.clamp(min=LEAST_POWER * float(found.power.max())).log10().cpu().double()
    nyquist = len(decibels) - 1
    low, high = (round((2 * share - 1) * nyquist) for share in SHARES)
    falls = decibels[:-4] - decibels[4:]  # of the frequency two later
    best, at = 0.0, 0
    for n in range(max(low, 6), min(high, nyquist - 4) + 1):
        here = n - 2
        around = torch.cat([falls[max(2, here - AROUND) : here - 3], falls[here + 4 : here + AROUND + 1]])
        step = float(falls[here] - around.median()) if len(around) else 0.0
        best, at = max((best, at), (step, n))
    return (1 + (at - 0.5) / nyquist) / 2 if best >= LEAST_STEP else 1.0


def measured_matrix(data: Tensor, axes: Sequence[int]) -> tuple[int, int, int]:
    """The k-space matrix that was measured, in voxels per axis; `axes` are looked at, the others taken as they are.

    Parameters
    ----------
    data : Tensor, shape (..., i, j, k), real
    axes : sequence of {0, 1, 2}

    Raises
    ------
    InvsrError
        When the data are complex: their k-space is at hand.
    """
    if data.is_complex():
        raise InvsrError("complex data: look at its k-space instead")
    matrix = list(data.shape[-3:])
    for axis in axes:
        share = measured_share(data, axis)
        if share < 1:
            # An even number, and one pair more: a real image holds one half of its Nyquist frequency.
            matrix[axis] = min(matrix[axis], 2 * math.floor(share * matrix[axis] / 2) + 2)
    return matrix[0], matrix[1], matrix[2]


def _falls_below(power: Sequence[float], level: float, start: int) -> float:
    """Frequency, going down from `start`, at which the power exceeds a level, between the ones that are known."""
    at = start
    while at > 1 and power[at] < level:
        at -= 1
    above, below = power[at], power[min(at + 1, len(power) - 1)]
    if not above > level > below > 0:
        return float(at)
    return at + math.log(above / level) / math.log(above / below)
