"""How wide the slice profile is, from the data: what the slices show across themselves against within themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.numerics.levels import peak
from invsr.operators.profiles import AxisProfile

Array = npt.NDArray[np.float64]
# Side of the windows within the slices, mm, the largest first, and pixels at least and at most.
SIDES, FEWEST_PIXELS, MOST_PIXELS = (32.0, 24.0, 16.0), 16, 64
# Windows lie in tissue: the share of their middle's pixels that are brighter than this share of bright tissue.
TISSUE, INSIDE = 0.15, 0.98
# Pairs of windows in neighbouring slices: fewer say nothing, more say no more.
FEWEST, MOST = 100, 6000
# Windows with less standard deviation than this share of tissue hold nothing but rounding.
ROUNDING = 1e-5
# Groups of windows, for the standard error.
GROUPS = 5
# Slices that are compared lie up to so many apart.
LAGS = 4
# Frequencies within the slices up to this share of Nyquist: the edge of k-space lies beyond.
HIGHEST = 0.9
# Knots of the anatomy's spectrum, its slope beyond them (3-D power of edges falls by the fourth power, of texture by
# less), and how much finer or coarser anatomy may be across the slices than within.
KNOTS, SLOPE, ANISOTROPY = 9, 3.5, 1.25
# Slices that differ by turns correlate with the next but one by so much more than with the next, at low frequencies.
ALTERNATING = 0.02
# Widths that are tried, as shares of the slice spacing.
WIDTHS = np.concatenate([[0.02], np.geomspace(0.1, 2.5, 33)])
# Of the least squares, which take some tens.
MOST_ITERATIONS = 1000
# Frequencies across the slices, cycles per slice spacing; negative ones add the same.
ACROSS = np.linspace(0.0, 4.0, 401)


@dataclass(frozen=True)
class SliceWidth:
    """Width of the slice profile, mm.

    Attributes
    ----------
    width : float
        Full width at half maximum; the smallest that is told apart is a tenth of the spacing.
    low, high : float
        Its range: where anatomy is 25 % finer or coarser across the slices than within them, and one standard error.
    """

    width: float
    low: float
    high: float


@dataclass(frozen=True)
class _CrossSpectra:
    """Mean power between slices `lag` apart, by radial frequency within them.

    `radius` in cycles per mm, shape (r,); `total`, the sum of the products, and `count`, their number, each for
    `GROUPS` groups of windows, shape (group, lag, r).
    """

    radius: Array
    total: Array
    count: Array

    def of(self, groups: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
        """Mean power and number of products over some of the groups (bool), both of shape (lag, r)."""
        count = self.count[groups].sum(0)
        return self.total[groups].sum(0) / np.maximum(count, 1), count


def slice_width(slices: Tensor, pixel: Sequence[float], spacing: float, profile: AxisProfile) -> SliceWidth | None:
    """Estimate how wide slices are, from the slices alone, by maximum likelihood.

    Anatomy is taken as a random field with an isotropic spectrum S. Slices k and k + l then have the cross-spectrum::

        C_l(r) = integral of H(w z)^2 S(sqrt(r^2 + z^2)) cos(2 pi z l d) dz + sigma^2 [l = 0]

    at the frequency r within the slices, H the Fourier transform of a profile of width w, d the slice spacing. For
    every w that is tried, S (piecewise in log frequency, not negative) and the noise follow by non-negative least
    squares from the cross-spectra of windows in tissue; the width with the smallest residual is the estimate.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices), real
    pixel : two floats, mm
        Spacing within the slices.
    spacing : float, mm
        Between slices.
    profile : AxisProfile
        Its shape counts, its width does not.

    Returns
    -------
    SliceWidth or None
        None where too little tissue is wide enough, or slices are more like the next but one than like the next.

    References
    ----------
    Whittle (1954), Biometrika 41, 434-449 (likelihood of a stationary field from its spectrum).
    """
    spectra = _cross_spectra(slices, pixel)
    if spectra is None or _alternates(spectra):
        return None
    transfers, groups, everything = _transfers(profile), np.eye(GROUPS, dtype=bool), np.ones(GROUPS, dtype=bool)
    # Squares: what thin profiles change in the data is their variance.
    middle, *others = (
        _best(spectra, everything, spacing, transfers, ratio) ** 2 for ratio in (1.0, ANISOTROPY, 1 / ANISOTROPY)
    )
    # Jackknife: each group left out once.
    without = np.array([_best(spectra, ~group, spacing, transfers, 1.0) ** 2 for group in groups])
    error = math.sqrt((GROUPS - 1) * float(without.var()))
    low = middle - math.hypot(middle - min(middle, *others), error)
    high = middle + math.hypot(max(middle, *others) - middle, error)
    return SliceWidth(math.sqrt(middle), math.sqrt(max(low, 0.0)), math.sqrt(high))


def _cross_spectra(slices: Tensor, pixel: Sequence[float]) -> _CrossSpectra | None:
    data = slices if slices.dtype == torch.float64 else slices.float()
    bright = TISSUE * peak(data)
    for side in SIDES:
        shape = [min(MOST_PIXELS, max(FEWEST_PIXELS, 2 * round(side / size / 2))) for size in pixel]
        if shape[0] > data.shape[0] or shape[1] > data.shape[1]:
            continue
        found = _of_windows(data, shape, pixel, bright)
        if found is not None:
            return found
    return None


def _of_windows(data: Tensor, shape: list[int], pixel: Sequence[float], bright: float) -> _CrossSpectra | None:
    """Cross-spectra of Hann windows of a shape, normalised by the power of their column of slices."""
    a, b = shape
    windows = data.unfold(0, a, a // 2).unfold(1, b, b // 2)  # (row, column, slice, a, b), a view
    middle = windows[..., a // 4 : a - a // 4, b // 4 : b - b // 4]
    inside = ((middle > bright).sum((-1, -2)) > INSIDE * middle.shape[-1] * middle.shape[-2]).flatten(0, 1)
    pairs = (inside[:, 1:] & inside[:, :-1]).sum(1)
    chosen = pairs.nonzero()[:, 0][:: max(1, math.ceil(int(pairs.sum()) / MOST))]
    if int(pairs.sum()) < FEWEST or len(chosen) < GROUPS:
        return None
    radius, ring, n_rings = _rings(shape, pixel)
    hann = [torch.hann_window(n + 2, periodic=False, dtype=data.dtype, device=data.device)[1:-1] for n in shape]
    window = hann[0][:, None] * hann[1]
    least = (ROUNDING * bright) ** 2 * float(window.square().sum())
    lags = min(LAGS, data.shape[2] - 1)
    total, count = np.zeros((2, GROUPS, lags + 1, n_rings))
    per_ring = torch.zeros(n_rings + 1, dtype=data.dtype, device=data.device)
    modes = per_ring.index_add(0, ring, torch.ones_like(ring, dtype=data.dtype))
    for n, column in enumerate(chosen.tolist()):
        group = n * GROUPS // len(chosen)  # neighbours, which overlap, share one
        here, known = windows[divmod(column, windows.shape[1])], inside[column]
        here = here - ((here * window).sum((-1, -2)) / window.sum())[:, None, None]
        spectrum = torch.fft.fft2(here * window).flatten(1)
        level = spectrum[known][:, ring < n_rings].abs().square().mean()
        if not float(level) > least:
            continue
        for lag in range(lags + 1):
            both = known[: known.numel() - lag] & known[lag:]
            product = spectrum[: known.numel() - lag][both] * spectrum[lag:][both].conj()
            summed = per_ring.index_add(0, ring, product.real.sum(0) / level)
            total[group, lag] += summed[:n_rings].cpu().numpy()
            count[group, lag] += int(both.sum()) * modes[:n_rings].cpu().numpy()
    return _CrossSpectra(radius, total, count) if bool((total[:, 0] > 0).all()) else None


def _rings(shape: list[int], pixel: Sequence[float]) -> tuple[Array, Tensor, int]:
    """Radii of rings in the frequency plane, the ring of each frequency (one too many: none), and their number."""
    along = [torch.fft.fftfreq(n, size, dtype=torch.float64) for n, size in zip(shape, pixel, strict=True)]
    distance = (along[0][:, None].square() + along[1].square()).sqrt().flatten()
    # The lowest frequencies are what the window and its mean leave of the rest.
    width = 1 / min(n * size for n, size in zip(shape, pixel, strict=True))
    top = 0.5 * HIGHEST / max(pixel)
    n_rings = max(3, int(top / width - 1.5))
    ring = torch.floor(distance / width - 1.5).long()
    ring = torch.where((ring < 0) | (ring >= n_rings), n_rings, ring)
    radius = np.array([float(distance[ring == n].mean()) for n in range(n_rings)])
    return radius, ring, n_rings


def _alternates(spectra: _CrossSpectra) -> bool:
    """Whether slices differ by turns: no profile makes the next but one more alike than the next."""
    power, _ = spectra.of(np.ones(GROUPS, bool))
    if len(power) < 3:
        return False
    low = max(1, len(spectra.radius) // 3)
    one, two = (power[1:3, :low] / power[0, :low]).mean(1)
    return bool(one < two - ALTERNATING)


def _best(
    spectra: _CrossSpectra, groups: npt.NDArray[np.bool_], spacing: float, transfers: Array, ratio: float
) -> float:
    """The likeliest width, mm, where anatomy's frequencies across the slices are `ratio` times those within."""
    from scipy.optimize import nnls

    power, count = spectra.of(groups)
    radius = np.hypot(spectra.radius[:, None], ratio * ACROSS / spacing)
    knots = np.linspace(math.log(spectra.radius[0]), math.log(1.5 * spectra.radius[-1]), KNOTS)
    falling = (radius / spectra.radius[0]) ** -SLOPE
    basis = np.stack([np.interp(np.log(radius), knots, one) * falling for one in np.eye(KNOTS)])
    turning = np.cos(2 * math.pi * np.arange(len(power))[:, None] * ACROSS)
    # A mean of n products has a standard deviation of the power over the root of n.
    weight = np.sqrt(count) / power[0]
    data = (power * weight).ravel()
    noise = np.zeros((*power.shape, 1))
    noise[0] = 1
    residual = []
    for transfer in transfers:
        model = np.moveaxis((basis * transfer**2) @ turning.T, (2, 1, 0), (0, 1, 2))
        model = np.concatenate([model, noise], 2) * weight[..., None]
        residual.append(nnls(model.reshape(len(data), -1), data, maxiter=MOST_ITERATIONS)[1] ** 2)
    return spacing * _lowest(np.log(WIDTHS), np.array(residual))


def _transfers(profile: AxisProfile) -> Array:
    """Fourier transforms of profiles of all widths, shape (width, frequency)."""
    offsets, weights = (one.numpy() for one in (profile.offsets, profile.weights))
    at = np.linspace(0, WIDTHS[-1] * ACROSS[-1], 2001)
    values = np.cos(2 * math.pi * at[:, None] * offsets) @ weights
    return np.stack([np.interp(width * ACROSS, at, values) for width in WIDTHS])


def _lowest(at: Array, values: Array) -> float:
    """Where values are lowest, by a parabola through the three lowest neighbours; `at` are logarithms."""
    n = int(values.argmin())
    if n in (0, 1, len(values) - 1):
        return math.exp(at[n])
    step, (left, here, right) = at[n + 1] - at[n], values[n - 1 : n + 2]
    return math.exp(at[n] + 0.5 * step * (left - right) / max(left - 2 * here + right, 1e-30))
