"""Faults of slices: spiked voxels, empty slices, interleaved packages that shine or lie differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.numerics.levels import peak

# A voxel is a spike above bright tissue times the first factor, or where it exceeds bright tissue and all of its
# neighbours by the second.
FAR_ABOVE, ABOVE_NEIGHBOURS = 20.0, 4.0
# A slice is empty below this share of what both of its neighbours have; those have more than the second share of the
# brightest slice.
EMPTY, LEAST_LEVEL = 0.1, 0.2
# Anatomy goes on beyond a slice that shows this share of the tissue that the fullest slice does. Of all slices, padding
# leaves the second share at least.
GOES_ON, LEAST_LEFT = 0.3, 0.5
# Tissue, as a share of bright tissue, and the fewest pixels of it that a slice is judged by.
TISSUE, FEWEST_PIXELS = 0.15, 200
# Fourth and second differences across slices, 1 for values that alternate by 1.
STENCILS = ((0.125, -0.5, 0.75, -0.5, 0.125), (-0.5, 1.0, -0.5))
# Tissue that packages are compared in: darker ones are, too.
GAIN_TISSUE = 0.7 * TISSUE
# Fewer slices say nothing of packages.
FEWEST_SLICES = 7
# Least difference of packages, a logarithm and pixels, and the largest chance that slices of still scans show it: found
# on simulated scans of 8 to 40 slices. How often either is found: `benchmarks.quality.slice_faults`.
LEAST_GAIN, LEAST_SHIFT, MOST_CHANCE = 0.02, 0.3, 5e-4
# Share of slices with the largest values, and with the smallest, that the chance is not judged by: anatomy jumps.
TRIMMED = 0.15
# Errors are no smaller, however alike the slices of a phantom are.
LEAST_ERROR = 1e-6
# Of the registration: smoothing in pixels, its iterations, and the side of slices above which pixels are averaged.
SMOOTHING, ITERATIONS, MOST_PIXELS = 1.5, 6, 256
# The neighbours of a slice moved as well: their mean is sharper when they are back in place.
PASSES = 3


@dataclass(frozen=True)
class Alternation:
    """How slices of odd number differ from those of even number.

    Attributes
    ----------
    difference : tuple of float
        Odd minus even: the logarithm of intensities, or pixels along each axis.
    chance : tuple of float
        How likely slices that differ by accident alone show as much of each.
    """

    difference: tuple[float, ...]
    chance: tuple[float, ...]


def spikes(slices: Tensor) -> Tensor:
    """Which voxels are spikes, bool.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices), real
    """
    size = slices.abs()
    bright = peak(size)
    far = size > FAR_ABOVE * bright
    around = torch.where(far, 0.0, size)
    padded = torch.nn.functional.pad(around[None, None], (1, 1, 1, 1, 1, 1))[0, 0]
    largest = torch.zeros_like(size)
    i, j, k = size.shape
    for a in (0, 1, 2):
        for b in (0, 1, 2):
            for c in (0, 1, 2):
                if (a, b, c) != (1, 1, 1):
                    largest = torch.maximum(largest, padded[a : a + i, b : b + j, c : c + k])
    return far | ((size > bright) & (size > ABOVE_NEIGHBOURS * largest))


def without_spikes(slices: Tensor, spiked: Tensor) -> Tensor:
    """The slices with each spiked voxel as the median of its neighbours within the slice that are none."""
    out = slices.clone()
    for i, j, k in spiked.nonzero().tolist():
        low, high = (max(i - 1, 0), max(j - 1, 0)), (i + 2, j + 2)
        around = slices[low[0] : high[0], low[1] : high[1], k]
        sound = around[~spiked[low[0] : high[0], low[1] : high[1], k]]
        out[i, j, k] = sound.median() if sound.numel() else 0.0
    return out


def empty_slices(slices: Tensor) -> list[int]:
    """Numbers of slices that hold next to nothing although the slices on both sides do."""
    pixels = slices.abs().flatten(0, 1)
    pixels = pixels[:: max(1, len(pixels) // 2**17)]
    level = pixels.kthvalue(max(1, round(0.9 * len(pixels))), dim=0).values
    least = LEAST_LEVEL * float(level.max())
    found = []
    for k in range(1, len(level) - 1):
        before = next((float(v) for v in level[:k].flip(0) if v > least), 0.0)
        after = next((float(v) for v in level[k + 1 :] if v > least), 0.0)
        if min(before, after) > 0 and float(level[k]) < EMPTY * min(before, after):
            found.append(k)
    return found


def padded_ends(slices: Tensor) -> list[int]:
    """Numbers of first and last slices that hold one constant, where anatomy would go on.

    Anatomy that ends there by itself, as above a skull-stripped head, fills less of the slice next to them.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    """
    pixels = slices.flatten(0, 1)
    full = (pixels != pixels[:1]).any(0).nonzero()[:, 0].tolist()
    if len(full) < LEAST_LEFT * slices.shape[2]:
        return []
    size = pixels.abs()
    area = (size > TISSUE * peak(size)).sum(0)
    first, last = full[0], full[-1]
    least = GOES_ON * float(area[full].max())
    before = range(first) if float(area[first]) > least else range(0)
    after = range(last + 1, slices.shape[2]) if float(area[last]) > least else range(0)
    return [*before, *after]


def between(slices: Tensor, which: list[int]) -> Tensor:
    """The slices with those named interpolated linearly between the next ones that are not."""
    out, kept = slices.clone(), [k for k in range(slices.shape[2]) if k not in which]
    for k in which:
        below, above = max(n for n in kept if n < k), min(n for n in kept if n > k)
        share = (k - below) / (above - below)
        out[..., k] = (1 - share) * slices[..., below] + share * slices[..., above]
    return out


def slice_levels(slices: Tensor) -> Tensor:
    """Intensity of each slice over that of its neighbours, as a logarithm, shape (slices,); NaN where none is known.

    The median over tissue of each slice against the geometric mean of the two next to it.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    """
    size = slices.abs()
    bright = peak(size)
    values = torch.full((size.shape[2],), torch.nan)
    for k in range(1, size.shape[2] - 1):
        before, here, after = size[..., k - 1], size[..., k], size[..., k + 1]
        tissue = (before > TISSUE * bright) & (after > TISSUE * bright) & (here > 0.1 * TISSUE * bright)
        if int(tissue.sum()) >= FEWEST_PIXELS:
            ratio = here[tissue].log() - 0.5 * (before[tissue].log() + after[tissue].log())
            values[k] = ratio.median().cpu()
    return values


def package_gain(slices: Tensor, left_out: Sequence[int] = ()) -> Alternation:
    """By how much the intensities of every other slice differ: the logarithm of the ratio, odd over even.

    The median over tissue of fourth differences of log intensities: the trends of anatomy hardly pass them, errors are
    a third of those of second differences, which serve where two slices on each side are not to be had.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    left_out : sequence of int
        Slices that say nothing of it, those that were empty for one.
    """
    size = slices.abs()
    least = GAIN_TISSUE * peak(size)
    values = torch.full((size.shape[2],), torch.nan)
    for k in range(size.shape[2]):
        for stencil in STENCILS:
            reach = len(stencil) // 2
            window = range(k - reach, k + reach + 1)
            if window.start < 0 or window.stop > size.shape[2] or any(n in window for n in left_out):
                continue
            some = size[..., window.start : window.stop]
            tissue = (some > least).all(-1)
            if int(tissue.sum()) >= FEWEST_PIXELS:
                values[k] = (some[tissue].log() @ torch.tensor(stencil).to(some)).median().cpu()
                break
    return _alternation(values[:, None])


def package_shift(slices: Tensor) -> Alternation:
    """By how many pixels every other slice lies elsewhere, along both axes of the slices: odd minus even.

    Each slice is registered with the mean of its neighbours, by translation (Lucas & Kanade 1981).

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    """
    if slices.shape[2] < 3:
        return Alternation((0.0, 0.0), (1.0, 1.0))
    if min(slices.shape[:2]) > MOST_PIXELS:
        coarse = torch.nn.functional.avg_pool2d(slices.permute(2, 0, 1)[:, None], 2)[:, 0].permute(1, 2, 0)
        found = package_shift(coarse)
        return Alternation(tuple(2 * one for one in found.difference), found.chance)
    odd = (torch.arange(slices.shape[2], device=slices.device) % 2 == 1).to(slices)
    first = _shift(slices)
    if not is_certain(first, LEAST_SHIFT / PASSES):  # nor is what more passes find
        return first
    total = torch.tensor(first.difference)
    for _ in range(PASSES - 1):
        total += torch.tensor(_shift(shifted(slices, -total.to(slices)[:, None] * odd)).difference)
    return Alternation(tuple(total.tolist()), first.chance)


def _shift(slices: Tensor) -> Alternation:
    smooth = smoothed(slices)
    reference, moving = 0.5 * (smooth[..., :-2] + smooth[..., 2:]), smooth[..., 1:-1]
    tissue = (reference > TISSUE / 3 * peak(smooth)).to(reference)
    shift = torch.zeros(2, moving.shape[2], dtype=reference.dtype, device=reference.device)
    for _ in range(ITERATIONS):
        there = shifted(moving, -shift)
        a, b = torch.gradient(there, dim=(0, 1))
        scale = _sum(there * reference * tissue) / _sum(there * there * tissue).clamp(min=1e-30)
        rest = (reference - scale * there) * tissue
        aa, ab, bb = _sum(a * a * tissue), _sum(a * b * tissue), _sum(b * b * tissue)
        determinant = (aa * bb - ab * ab).clamp(min=1e-30)
        step = torch.stack([bb * _sum(a * rest) - ab * _sum(b * rest), aa * _sum(b * rest) - ab * _sum(a * rest)])
        shift = shift + (step / (determinant * scale.clamp(min=1e-30))).clamp(-1, 1)
    values = torch.full((slices.shape[2], 2), torch.nan)
    values[1:-1] = torch.where(_sum(tissue) >= FEWEST_PIXELS, shift, torch.nan).T.cpu()
    return _alternation(values)


def shifted(slices: Tensor, pixels: Tensor) -> Tensor:
    """Each slice moved within its plane, by the Fourier shift theorem: exact for what k-space held.

    Parameters
    ----------
    slices : Tensor, shape (i, j, slices)
    pixels : Tensor, shape (2, slices)
        Towards higher indices i and j.
    """
    turns = torch.zeros((), dtype=slices.dtype, device=slices.device)
    for n in (0, 1):
        frequency = torch.fft.fftfreq(slices.shape[n], dtype=slices.dtype, device=slices.device)
        turns = turns + frequency.reshape([-1 if m == n else 1 for m in (0, 1)] + [1]) * pixels[n]
    moved: Tensor = torch.fft.ifft2(torch.fft.fft2(slices, dim=(0, 1)) * torch.exp(-2j * math.pi * turns), dim=(0, 1))
    return moved.real


def is_certain(found: Alternation, least: float) -> bool:
    """Whether packages differ by `least` or more, along an axis along which that is no accident."""
    both = zip(found.difference, found.chance, strict=True)
    return any(abs(difference) >= least and chance <= MOST_CHANCE for difference, chance in both)


def _alternation(values: Tensor) -> Alternation:
    """Of values per slice, shape (slices, n), NaN where nothing is known: each is of a slice against its neighbours."""
    known = values.isfinite().all(1)
    if int(known.sum()) < FEWEST_SLICES:
        return Alternation((0.0,) * values.shape[1], (1.0,) * values.shape[1])
    sign = torch.where(torch.arange(len(values)) % 2 == 1, 1.0, -1.0)
    signed = (values * sign[:, None])[known]
    return Alternation(tuple(signed.median(0).values.tolist()), tuple(chance(one) for one in signed.T))


def chance(values: Tensor) -> float:
    """How likely the mean of so many values that scatter about 0 lies as far from it: a t-test that forgives outliers.

    The mean of what is left when `TRIMMED` of the values at each end are, over its error from all values with the ends
    drawn in. Ten values have a spread that is itself uncertain, which the t-distribution allows for.

    Parameters
    ----------
    values : Tensor, shape (n,)

    References
    ----------
    Yuen (1974), Biometrika 61, 165-170.
    """
    from scipy.special import stdtr

    ordered, n = values.double().sort().values, len(values)
    cut = int(TRIMMED * n)
    inner = ordered[cut : n - cut]
    drawn_in = ordered.clamp(float(inner[0]), float(inner[-1]))
    count = len(inner)
    error = float(drawn_in.std()) * math.sqrt((n - 1) / (count * (count - 1)))
    return 2 * float(stdtr(count - 1, -abs(float(inner.mean())) / max(error, LEAST_ERROR)))


def smoothed(slices: Tensor) -> Tensor:
    """By a Gaussian within the slices."""
    reach = math.ceil(3 * SMOOTHING)
    at = torch.arange(-reach, reach + 1, dtype=slices.dtype, device=slices.device)
    kernel = torch.exp(-0.5 * (at / SMOOTHING) ** 2)
    kernel = kernel / kernel.sum()
    out = slices.permute(2, 0, 1)[:, None]
    out = torch.nn.functional.conv2d(out, kernel.reshape(1, 1, -1, 1), padding=(reach, 0))
    return torch.nn.functional.conv2d(out, kernel.reshape(1, 1, 1, -1), padding=(0, reach))[:, 0].permute(1, 2, 0)


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 1))
