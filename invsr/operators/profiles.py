"""Slice profiles and in-plane point spreads in millimetres, as axis matrices.

A profile is a density of sensitivity over the offset from the slice centre. The unknown volume between
its voxel centres is Keys' cubic convolution, which reproduces constants, ramps and parabolas and therefore
adds no blur of its own (its second moment is zero): the matrix entry is the profile's mean of the
interpolation kernel.
"""

from __future__ import annotations

import functools
import io
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.io.bounds import read_text
from invsr.numerics.axes import GAUSSIAN_FWHM, without_negligible
from invsr.numerics.interpolation import keys_kernel

Array = npt.NDArray[np.float64]
PROFILES = ("gaussian", "boxcar", "sinc", "slr")
# Time-bandwidth product of the simulated selective pulses: of the order used for 2-D imaging.
TIME_BANDWIDTH = 4.0


class AxisProfile(NamedTuple):
    """The weighting of a sample along one axis: `offsets` in units of `width` (mm), `weights` of sum 1."""

    offsets: Tensor
    weights: Tensor
    width: float

    @property
    def reach(self) -> float:
        """From the first offset at which the weight is half its maximum to the last, mm."""
        wide = self.offsets[self.weights >= self.weights.max() / 2] * self.width
        return float(wide.max() - wide.min())


@functools.lru_cache(maxsize=32)
def profile_samples(kind: str) -> tuple[Tensor, Tensor]:
    """Offsets (in units of the profile's full width at half maximum) and weights (sum 1), float64.

    "gaussian", truncated at four standard deviations; "boxcar"; "sinc", the small-tip-angle profile of a
    Hamming-windowed sinc pulse, which is that pulse's Fourier transform (Pauly et al. 1989); "slr", the
    excitation profile of a Shinnar-Le Roux pulse by Bloch simulation (Pauly et al. 1991; sigpy.mri.rf).

    Raises
    ------
    InvsrError
        When the kind is unknown.

    References
    ----------
    Pauly, Nishimura, Macovski (1989), J. Magn. Reson. 81, 43-56.
    Pauly, Le Roux, Nishimura, Macovski (1991), IEEE Trans. Med. Imaging 10, 53-65.
    """
    if kind == "boxcar":
        # Midpoints: as many as make the error of the rule negligible against a voxel's kernel.
        middles = (torch.arange(128, dtype=torch.float64) + 0.5) / 128 - 0.5
        return middles, torch.full_like(middles, 1 / 128)
    if kind == "gaussian":
        standard = torch.linspace(-4, 4, 161, dtype=torch.float64)
        weights = torch.exp(-0.5 * standard**2)
        return standard / GAUSSIAN_FWHM, weights / weights.sum()
    if kind == "sinc":
        offsets, amplitude = _hamming_sinc()
    elif kind == "slr":
        offsets, amplitude = _shinnar_le_roux()
    else:
        raise InvsrError(f"unknown slice profile {kind!r}: use one of {', '.join(PROFILES)} or a file of samples")
    amplitude = 0.5 * (amplitude + amplitude[::-1])  # the pulses are symmetric; rounding is not
    return torch.from_numpy(offsets / _full_width(offsets, amplitude)), torch.from_numpy(amplitude / amplitude.sum())


def read_profile(path: str | Path) -> tuple[Tensor, Tensor]:
    """Offsets (mm) and weights (sum 1) of a sampled profile: a text file with two columns, mm and amplitude.

    Raises
    ------
    InvsrError
        When the file is missing, is not two columns of numbers, or has no positive area.
    """
    path = Path(path)
    if not os.path.isfile(path):  # `Path.is_file` raises where a name is too long
        raise InvsrError(f"slice profile {str(path)!r} is neither one of {', '.join(PROFILES)} nor a file")
    try:
        text = read_text(path)
        table = np.loadtxt(io.StringIO(text), delimiter="," if "," in text else None, ndmin=2)
    except OSError as error:
        raise InvsrError(f"{path}: cannot be opened ({error.strerror}): check the permissions") from error
    except ValueError as error:
        raise InvsrError(f"{path}: not two columns of numbers (offset in mm, amplitude): {error}") from error
    if table.ndim != 2 or table.shape[1] != 2 or len(table) < 2 or not np.isfinite(table).all():
        raise InvsrError(f"{path}: a slice profile needs two columns (offset in mm, amplitude), got {table.shape}")
    table = table[np.argsort(table[:, 0])]
    table[:, 1] /= np.abs(table[:, 1]).max() or 1.0  # sums of the largest numbers are infinite
    area = _trapezoid(table[:, 1], table[:, 0])
    if area <= 0:
        raise InvsrError(f"{path}: the slice profile's area is {area:.3g}: it must be above zero")
    fine = np.linspace(table[0, 0], table[-1, 0], 257)
    amplitude = np.interp(fine, table[:, 0], table[:, 1])
    return torch.from_numpy(fine), torch.from_numpy(amplitude / amplitude.sum())


def spline_matrix(size: int, positions: Tensor) -> Tensor:
    """Matrix (len(positions), size) that interpolates a line of voxels by a spline of degree 5.

    Unlike Keys' kernel it keeps detail up to close to the Nyquist frequency. The spline's third and fourth derivatives
    vanish at the outermost voxels; beyond them the line through the outermost two goes on. A ramp stays a ramp.

    Parameters
    ----------
    size : int
        Voxels of the line.
    positions : Tensor, shape (m,)
        Where to interpolate, voxels from the centre of voxel 0.

    References
    ----------
    Unser (1999), IEEE Signal Process. Mag. 16 (6), 22-38.
    """
    from scipy.interpolate import make_interp_spline

    if size == 1:
        return torch.ones(len(positions), 1, dtype=torch.float64)
    at = positions.numpy()
    inside = at.clip(0, size - 1)
    ends = [(3, np.zeros(size)), (4, np.zeros(size))]
    degree, conditions = (5, (ends, ends)) if size > 2 else (1, None)
    spline = make_interp_spline(np.arange(size), np.eye(size), k=degree, bc_type=conditions)
    matrix = without_negligible(torch.from_numpy(spline(inside)))
    slope = np.where(at < 0, 1, size - 1)
    rows, beyond = torch.arange(len(at)), torch.from_numpy(at - inside)
    matrix[rows, torch.from_numpy(slope)] += beyond
    matrix[rows, torch.from_numpy(slope - 1)] -= beyond
    return matrix


def sampled_matrix(
    size: int, spacing: float, positions: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Matrix (len(positions), size) of weighted means around `positions` of a line of voxels.

    Entry (m, n) is ``sum_q weights[q] phi((positions[m] + offsets[q]) / spacing - n)`` with Keys' kernel phi.
    Offsets that fall outside the field of view are left out and the rest is normalised, so that a constant
    stays constant; inside, where all fall in, a ramp stays a ramp. Rows with less than half their weight
    inside are zero: those samples do not see the volume.

    Parameters
    ----------
    size, spacing : int, float
        Voxels along the axis, mm between them.
    positions : Tensor, shape (m,)
        Positions of the samples, mm from the centre of voxel 0.
    offsets, weights : Tensor, shape (q,), optional
        The profile, mm; without it the line is interpolated at the positions.

    References
    ----------
    Keys (1981), IEEE Trans. Acoust. Speech Signal Process. 29, 1153-1160.
    """
    positions = positions.to(torch.float64)
    if offsets is None or weights is None:
        offsets, weights = positions.new_zeros(1), positions.new_ones(1)
    at = (positions[:, None] + offsets[None, :]) / spacing
    inside = (at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6)
    share = inside * weights
    kept = share.sum(1, keepdim=True)
    share = torch.where(kept > 0.5, share / torch.where(kept > 0.5, kept, 1.0), 0.0)
    first = torch.floor(at.detach()).long()
    rows = torch.arange(len(positions), device=at.device)[:, None].expand_as(first)
    matrix = positions.new_zeros(len(positions), size)
    for tap in (-1, 0, 1, 2):
        index = first + tap
        value = share * keys_kernel(at - index)
        # Voxels before the first and after the last continue the line through the outermost two.
        if size > 1:
            beyond = (-index).clamp(min=0) + (index - (size - 1)).clamp(min=0)
            edge = index.clamp(0, size - 1)
            neighbour = torch.where(index < 0, 1, size - 2)
            matrix = matrix.index_put((rows, edge), value * (1 + beyond), accumulate=True)
            matrix = matrix.index_put((rows, neighbour), -value * beyond, accumulate=True)
        else:
            matrix = matrix.index_put((rows, torch.zeros_like(index)), value, accumulate=True)
    return matrix


def band_limited_matrix(size: int, spacing: float, positions: Tensor, sample_spacing: float) -> Tensor:
    """Matrix (len(positions), size) of samples of the volume's Fourier series, cut at the samples' Nyquist.

    The line is periodic over its field of view, as an image with sampled k-space is. Frequencies above
    ``1 / (2 sample_spacing)`` are dropped; one that lies on that limit, or on the volume's own, is shared
    between its two signs. Positions outside the field of view give rows of zeros.
    """
    count = min(size, int(size * spacing / sample_spacing + 1e-3))
    frequency = torch.arange(-(count // 2), count // 2 + 1, dtype=torch.float64)
    weight = torch.ones_like(frequency)
    if count % 2 == 0:
        weight[0] = weight[-1] = 0.5
    at = positions.to(torch.float64)[:, None] / spacing - torch.arange(size, dtype=torch.float64)
    angle = 2 * math.pi / size * at[..., None] * frequency
    matrix = (torch.cos(angle) @ weight) / size
    inside = (positions > -0.5 * spacing * (1 + 1e-6)) & (positions < (size - 0.5 + 1e-6) * spacing)
    return matrix * inside[:, None]


def _hamming_sinc() -> tuple[Array, Array]:
    time = (np.arange(512) + 0.5) / 512 - 0.5
    pulse = np.sinc(TIME_BANDWIDTH * time) * np.hamming(512)
    offsets = np.linspace(-2 * TIME_BANDWIDTH, 2 * TIME_BANDWIDTH, 513) / 2
    return offsets, np.cos(2 * np.pi * offsets[:, None] * time) @ pulse


def _shinnar_le_roux() -> tuple[Array, Array]:
    from sigpy.mri import rf

    samples = 256
    pulse = rf.slr.dzrf(samples, TIME_BANDWIDTH, ptype="ex", ftype="ls", d1=0.01, d2=0.01)
    offsets = np.linspace(-TIME_BANDWIDTH, TIME_BANDWIDTH, 513)
    a, b = rf.sim.abrm(pulse, offsets, balanced=True)[:2]
    return offsets, np.abs(2 * np.conj(a) * b)


def _trapezoid(values: Array, at: Array) -> float:
    return float(np.sum(0.5 * (values[1:] + values[:-1]) * np.diff(at)))


def _full_width(offsets: Array, amplitude: Array) -> float:
    """Full width at half maximum, by linear interpolation at the outermost crossings."""
    half = amplitude.max() / 2
    above = np.flatnonzero(amplitude >= half)
    low, high = above[0], above[-1]
    left = np.interp(half, amplitude[low - 1 : low + 1], offsets[low - 1 : low + 1])
    right = np.interp(half, amplitude[high : high + 2][::-1], offsets[high : high + 2][::-1])
    return float(right - left)
