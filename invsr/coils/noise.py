"""The noise of k-space where there is no noise scan."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from invsr.coils.centre import centre_box
from invsr.numerics.fourier import inverse_fourier
from invsr.raw import RawData

# Longest side of the middle of k-space that is looked at: more would cost memory and tell no more.
MOST = 128
# Shortest side that still separates the air from the head.
FEWEST = 8
# Side of the blocks whose mean power is compared, in voxels.
SIDE = 4
# Blocks count as air up to so many standard deviations above the mean of air.
REACH = 3.0
# Air is trusted if its blocks scatter at most so many times as much as those of Gaussian noise, and hold so many
# independent samples: their level is then off by less than 5 % by chance.
SCATTER, SAMPLES = 1.3, 200
# Share of the darkest voxels' noise below which the weakest samples tell that these voxels are not air.
LEAST = 0.95
# Rounds that the level of the darkest blocks takes to settle.
STEPS = 30
# Samples for each coil below which only the variances are used: the covariance would be off by more than 20 %.
FEWEST_PER_COIL = 25


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The noise of samples that were measured once.

    Parameters
    ----------
    covariance : Tensor, shape (coils, coils), complex128
        ``1/2 E[n_c conj(n_d)]``, as `noise_covariance` defines it; only the variances where there is little air.
    doubt : str
        Why it may be wrong, empty if it can be trusted.
    """

    covariance: Tensor
    doubt: str = ""

    @property
    def trusted(self) -> bool:
        """Whether there was air enough that looks like noise."""
        return not self.doubt

    @property
    def sigma(self) -> float:
        """Standard deviation of the real and of the imaginary part, root mean square over coils."""
        return float(self.covariance.diagonal().real.mean().sqrt())


def estimate_noise(raw: RawData) -> NoiseEstimate:
    """The noise of one average, from the air of an image of low resolution.

    The fully sampled middle of k-space, weighted by a Hann window against ringing, gives an image in which the noise of
    a voxel has the variance of a sample, as the transform is orthonormal. Its air is found as the blocks with the least
    power over all coils. It needs no measured noise, holds where signal reaches the edge of k-space, and for masks.
    Where the middle is too small, the weakest samples are taken, which hold some signal: this is doubtful.

    Parameters
    ----------
    raw : RawData

    Returns
    -------
    NoiseEstimate
        A sample of m averages has its covariance divided by m.

    References
    ----------
    Harris (1978), Proc. IEEE 66, 51-83 (windows). Sijbers, Poot, den Dekker, Pintjens (2007), Phys. Med. Biol. 52,
    1335-1348 (noise from air).
    """
    box = centre_box(raw.counts, raw.axes, (MOST, MOST, MOST))
    weakest = _darkest(raw.samples[0], raw.counts, 1.0)
    if any(box[n].stop - box[n].start < min(FEWEST, raw.grid.shape[n]) for n in raw.axes):
        return NoiseEstimate(
            weakest.covariance,
            "too little of the middle of k-space is fully sampled, so that the weakest samples were taken for noise",
        )
    image, counts, spread = _low_resolution(raw, box)
    air = _darkest(image, counts, spread)
    if weakest.sigma < LEAST * air.sigma:
        return NoiseEstimate(
            weakest.covariance,
            f"the weakest samples of k-space hold {weakest.sigma / air.sigma:.2f} times as much as the darkest voxels: "
            "there is no air in view, or k-space was filtered",
        )
    if air.scatter > SCATTER:
        doubt = f"the darkest voxels scatter {air.scatter:.1f} times as much as noise: there is little air in view"
    elif air.count < SAMPLES:
        doubt = f"there are only {air.count:.0f} independent samples of air"
    else:
        doubt = ""
    return NoiseEstimate(air.covariance, doubt)


@dataclass(frozen=True, eq=False)
class _Darkest:
    """What blocks of least power hold: covariance, independent samples of all coils, their variance over noise's."""

    covariance: Tensor
    count: float
    scatter: float

    @property
    def sigma(self) -> float:
        return NoiseEstimate(self.covariance).sigma


def _darkest(samples: Tensor, counts: Tensor, spread: float) -> _Darkest:
    """The noise of one average in the blocks of least power of (coils, i, j, k); `spread` voxels count as one."""
    sides = [min(SIDE, n) for n in counts.shape]
    share = avg_pool3d((counts > 0).to(samples.real.dtype)[None, None], sides)[0, 0]
    full = share >= min(0.5, float(share.max()))
    mean = torch.zeros_like(share)
    for y in samples:  # one coil at a time: all of them are large
        power = avg_pool3d((y.abs().square() * counts)[None, None], sides)[0, 0] / share.clamp(min=1e-3)
        least = power[full]
        mean += power / least.kthvalue(max(1, len(least) // 20)).values.clamp(min=1e-30)
    values = mean[full] / len(samples)
    level = values.kthvalue(max(1, len(values) // 20)).values
    independent = math.prod(sides) * len(samples) / spread
    bound = 1 + REACH / math.sqrt(independent)
    for _ in range(STEPS):
        level = values[values <= bound * level].mean()
    below = values <= bound * level
    inside = torch.zeros_like(full)
    inside[full] = below
    for n, side in enumerate(sides):
        inside = inside.repeat_interleave(side, n)
    view = tuple(slice(n) for n in inside.shape)
    inside &= counts[view] > 0
    noise = (samples[(slice(None), *view)][:, inside] * counts[view][inside].sqrt()).to(torch.complex128)
    covariance = noise @ noise.mH / (2 * noise.shape[1])
    if noise.shape[1] / spread < FEWEST_PER_COIL * len(samples):
        covariance = covariance.diagonal().real.diag_embed().to(covariance.dtype)
    scatter = float((values[below] / level - 1).square().mean()) * independent
    return _Darkest(covariance, noise.numel() / spread, scatter)


def _low_resolution(raw: RawData, box: tuple[slice, slice, slice]) -> tuple[Tensor, Tensor, float]:
    """The image of the middle of k-space, averages that its voxels are worth, and how far noise spreads.

    Noise spreads over as many voxels as the number returned, so that so many count as one.
    """
    samples, counts = raw.samples[0][(slice(None), *box)], raw.counts[box]
    weights, spread = torch.ones(1, 1, 1, device=samples.device), 1.0
    for n in raw.axes:
        size = samples.shape[n + 1]
        if size >= FEWEST:
            window = torch.sin(math.pi * (torch.arange(size, device=samples.device) + 0.5) / size) ** 2
            window = window / window.square().mean().sqrt()
            spread *= float(window.pow(4).mean())
            weights = weights * window.reshape([-1 if n == m else 1 for m in (0, 1, 2)])
    taken = counts > 0
    # Samples keep their weights whatever their averages: weights by averages would blur signal into the air.
    variance = torch.where(taken, weights.square() / counts.clamp(min=1e-30), 0.0).mean(raw.axes, keepdim=True)
    worth = torch.where(variance > 0, 1 / variance.clamp(min=1e-30), 0.0)
    return inverse_fourier(samples * weights, raw.axes), worth.expand(counts.shape), spread
