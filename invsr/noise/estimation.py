"""Noise of MR images: sampling it, and estimating its standard deviation from one image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invsr.errors import InvsrError

# Unit-energy filters applied along every fine axis: the fourth difference, which anatomy hardly excites; the second
# difference (upper half of the band); the same with a gap (middle of the band).
FILTERS = torch.tensor([[1.0, -4, 6, -4, 1], [0, 1, -2, 1, 0], [1, 0, -2, 0, 1]], dtype=torch.float64)
FILTERS = FILTERS / FILTERS.norm(dim=1, keepdim=True)
# Half-width of the neighbourhood that decides whether a voxel is flat: smoothing 1, difference 1, average 1.
REACH = 3
# Share of the usable voxels, the flattest ones, that the noise is measured in, and bounds on their count: fewer make
# the estimate itself noisy, more make it slower but no better.
FLAT_SHARE, FEWEST, MOST = 0.02, 2500, 50_000
# Noise counts as white while the mean over bands stays below 1.4 times the second difference alone, as coloured from
# 1.7 on. Anatomy under white noise of 2 % reached 1.3 in crops of brain; zero-filled clinical scans began at 1.6.
WHITE, COLOURED = 1.4, 1.7
# With coloured noise air is believed up to this multiple of what tissue shows.
MOST_COLOURED = 2.5


def estimate_sigma(data: Tensor, axes: Sequence[int] | None = None, mask: Tensor | None = None) -> float:
    """Estimate the standard deviation of the noise in an image.

    ``sigma = quantile_68 |(h * h * ..) x|`` over the flattest voxels, where ``h`` is the fourth difference along
    each fine axis, scaled to unit energy.

    Flat means a small gradient of the smoothed image. That gradient is odd where ``h`` is even, so under white noise
    the two are uncorrelated and the choice of voxels does not bias the estimate. Voxels next to an exactly constant
    patch (zeroed background, padding, saturation) are left out. Beyond that:

    * Data without negative values are magnitudes. If their air is Rayleigh distributed (mean^2 / mean square = pi/4),
      ``sigma^2`` is half its mean square. Any other air (rounded to integers, filtered, from several coils) says
      little about the noise in tissue, and only tissue is used. Air that a scanner scaled down is believed.
    * Noise may be correlated, mostly because the scanner filled k-space with zeros. Where the middle of the band holds
      clearly more energy than its upper end, the mean over bands is returned, close to the sd of a voxel.

    An image that was noisy before noise was added has ``sqrt(native^2 + sigma^2)`` in its tissue. If its air was
    empty, that air is the flattest part and the estimate is the added sigma alone.

    Parameters
    ----------
    data : Tensor, shape (batch, channel, i, j, k) or (i, j, k)
        Real image, in any unit of intensity. Voxels that are not finite are ignored.
    axes : sequence of int, optional
        The array axes (0, 1, 2 for i, j, k) along which voxels are fine, such as (0, 1) for thick axial slices.
        Default: every axis of 8 voxels or more. Say which where slices are thick: correlation is judged along them too.
    mask : Tensor, optional
        True where to look; broadcasts to the shape of `data`.

    Returns
    -------
    float
        Standard deviation per voxel, in the unit of `data`; 0.0 for a constant image.

    Raises
    ------
    InvsrError
        When the data are complex or have neither 3 nor 5 axes, the mask does not fit or leaves nothing, or no axis
        is long enough.

    References
    ----------
    Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding, 1996 (product of second
    differences). Donoho, "De-noising by soft-thresholding", IEEE Transactions on Information Theory, 1995 (robust
    scale of the finest details). Sijbers, Poot, den Dekker and Pintjens, "Automatic estimation of the noise variance
    from the histogram of a magnetic resonance image", Physics in Medicine and Biology, 2007 (Rayleigh air).

    Examples
    --------
    >>> from invsr.noise import add_noise
    >>> x = add_noise(torch.ones(40, 40, 6), 0.1, generator=torch.Generator().manual_seed(0))
    >>> round(estimate_sigma(x, axes=(0, 1)), 2)
    0.1
    """
    found = _prepared(data, axes, mask)
    if found is None:
        return 0.0
    places = found.places
    if len(places) == 0:
        # Zeroed slices or a thin mask: the two longest axes may still do.
        return estimate_sigma(data, sorted(range(3), key=lambda n: -data.shape[n - 3])[:2], mask)
    with torch.no_grad():
        air = found.air()
        flattest = _flattest(found, air)
        if flattest is None:
            return air * found.scale
        tissue_sigma, coloured = _spread(found.patches(flattest))
        if coloured and air < MOST_COLOURED * tissue_sigma:
            return air * found.scale  # correlation does not change how the noise of a single voxel is distributed
        # Tissue has at least the noise of air: a larger value from air is dark tissue mistaken for it.
        return min(air, tissue_sigma) * found.scale


def noise_colour(
    data: Tensor, axes: Sequence[int] | None = None, mask: Tensor | None = None
) -> tuple[float, ...] | None:
    """How noise is correlated along each fine axis: its amplitude in the middle of the band over that at the upper end.

    About 1 where noise is white; more where neighbouring pixels share it, as filters and interpolation make them. Seen
    in the flattest tissue; parameters as of `estimate_sigma`.

    Returns
    -------
    tuple of float or None
        One value for each fine axis; None where nothing is known.
    """
    found = _prepared(data, axes, mask)
    if found is None or len(found.places) == 0:
        return None
    with torch.no_grad():
        flattest = _flattest(found, found.air())
        if flattest is None:
            return None
        sd = _bands(found.patches(flattest))
    first = (0,) * sd.dim()
    if not float(sd[first]) > 0:
        return None
    return tuple(float(sd[(*first[:n], 2, *first[n + 1 :])] / sd[first]) for n in range(sd.dim()))


def air_sigma(data: Tensor, axes: Sequence[int] | None = None, mask: Tensor | None = None) -> float:
    """Standard deviation of the noise in the air of a magnitude image, where that is Rayleigh distributed.

    Parameters as of `estimate_sigma`. It does not matter whether the noise is correlated.

    Returns
    -------
    float
        In the unit of `data`; infinite where there is no such air.
    """
    found = _prepared(data, axes, mask)
    if found is None or len(found.places) == 0:
        return math.inf
    with torch.no_grad():
        return found.air() * found.scale


def _flattest(found: _Prepared, air: float) -> Tensor | None:
    """The flattest places, in tissue if the image is a magnitude; None where only its air is known."""
    places = found.places
    gradient, smooth = _gradient(found.x, found.fine)
    if found.is_magnitude:
        darkest = max(0.5 * found.mean, 3 * air if math.isfinite(air) else 0.0)
        tissue = places[smooth.flatten()[places] > darkest]
        if len(tissue) >= FEWEST:
            places = tissue
        elif math.isfinite(air):
            return None
    count = min(len(places), max(FEWEST, min(MOST, int(FLAT_SHARE * len(places)))))
    return places[gradient.flatten()[places].topk(count, largest=False, sorted=False).indices]


@dataclass
class _Prepared:
    """An image and where in it noise can be looked for.

    `x`, shape (batch, i, j, k), is in units of `scale`; `places` are flat indices into voxels of the `usable` shape.
    """

    x: Tensor
    usable: torch.Size
    places: Tensor
    fine: tuple[int, ...]
    scale: float

    @property
    def is_magnitude(self) -> bool:
        return bool((self.x < 0).sum() < 0.01 * (self.x != 0).sum())

    @property
    def mean(self) -> float:
        """Over what is not zero."""
        return float(self.x.sum() / (self.x != 0).sum())

    def patches(self, places: Tensor) -> Tensor:
        return _patches(self.x, places, self.usable, self.fine)

    def air(self) -> float:
        """Sigma from air, in units of `scale`; infinite where none is Rayleigh distributed."""
        if not self.is_magnitude:
            return math.inf
        return _rayleigh(self.patches(self.places[:: max(1, len(self.places) // MOST)]))


def _prepared(data: Tensor, axes: Sequence[int] | None, mask: Tensor | None) -> _Prepared | None:
    """Check the input and find where noise can be looked for; None for data without noise."""
    fine = _fine_axes(data, axes)
    if mask is not None:
        try:
            mask = mask.expand(data.shape)
        except RuntimeError:
            raise InvsrError(
                f"the mask has shape {tuple(mask.shape)}, the data {tuple(data.shape)}: resample the mask "
                "onto the grid of the data"
            ) from None
    with torch.no_grad():
        x = data.reshape(-1, *data.shape[-3:]).contiguous()
        x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        allowed = x.isfinite()
        if mask is not None:
            allowed &= (mask.to(x.device) != 0).reshape(x.shape)
        inside = x if allowed.all() else x[allowed]
        if inside.numel() == 0:
            raise InvsrError("no voxel is finite and inside the mask: check the image and the mask, or give sigma")
        if inside.min() == inside.max():
            return None
        scale = float(inside.abs().max())
        x = torch.where(allowed, x, 0) / scale
        usable, constant = _usable(x, allowed, fine)
        places = usable.flatten().nonzero().squeeze(1)
        if 100 * len(places) < x.numel() and not (len(places) == 0 and len(fine) == 3):
            # A drawing without noise is constant piece by piece, and next to nothing else is left of it.
            pieces = int((constant & (x != 0) & (x != x.min())).sum())
            rest = int((x[~constant] != 0).sum())
            if pieces > 100 * len(places) or (len(places) == 0 and mask is None and rest < FEWEST):
                return None
            if len(places) == 0:
                raise InvsrError(
                    f"none of {rest} voxels is {REACH} voxels away from the mask's edge, from zeroed and from "
                    "missing voxels, as estimating noise needs: use a wider mask, or give sigma"
                )
        return _Prepared(x, usable.shape, places, fine, scale)


def _fine_axes(data: Tensor, axes: Sequence[int] | None) -> tuple[int, ...]:
    """Check the input; return the axes to filter along, counted in the (batch, i, j, k) view."""
    if data.is_complex() or data.dim() not in (3, 5) or data.numel() == 0:
        raise InvsrError(
            f"noise is estimated from real voxels (i, j, k) or (batch, channel, i, j, k), not from "
            f"{data.dtype} of shape {tuple(data.shape)}: convert or reshape it, or give sigma"
        )
    if axes is not None and (not set(axes) <= {0, 1, 2} or len(set(axes)) < len(axes)):
        raise InvsrError(f"the fine axes are {tuple(axes)}, but they are different ones of 0, 1 and 2: correct them")
    shape = tuple(data.shape[-3:])
    fine = tuple(n + 1 for n in range(3) if (shape[n] >= 8 if axes is None else n in axes and shape[n] > 2 * REACH))
    if not fine:
        raise InvsrError(f"no axis of the {shape} voxels is long enough to estimate noise along (8 needed): give sigma")
    return fine


def _fold(x: Tensor, axis: int, width: int, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Join every run of `width` neighbours along an axis into one; the axis loses width - 1 voxels."""
    n = x.shape[axis] - width + 1
    result = x.narrow(axis, 0, n)
    for start in range(1, width):
        result = join(result, x.narrow(axis, start, n))
    return result


def _usable(x: Tensor, allowed: Tensor, fine: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Voxels more than REACH from forbidden and constant ones (REACH is cut off along fine axes); constant ones."""
    constant = torch.zeros_like(allowed)
    for a, b in itertools.combinations(fine, 2) if len(fine) > 1 else [(fine[0], fine[0])]:
        runs = [_fold(_fold(x, axis, 2, torch.eq), axis, 2, torch.logical_and) for axis in (a, b)]
        if a != b:
            # Nine equal voxels in a plane: among rounded noisy values four would meet by chance too often.
            runs[0] = _fold(runs[0], b, 3, torch.logical_and)
            runs[1] = runs[1].narrow(a, 1, runs[0].shape[a])
        middle = constant
        for axis in {a, b}:
            middle = middle.narrow(axis, 1, x.shape[axis] - 2)
        middle |= runs[0] & runs[1]
    usable = allowed & ~constant
    for axis in fine:
        usable = _fold(usable, axis, 2 * REACH + 1, torch.logical_and)
    return usable, constant


def _gradient(x: Tensor, fine: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Energy of the gradient of the smoothed image, averaged over neighbours, and the smoothed image."""
    for axis in fine:
        x = _fold(_fold(x, axis, 2, torch.add), axis, 2, torch.add) / 4
    energy = torch.zeros(())
    inner = x
    for axis in fine:
        n = x.shape[axis] - 2
        part = (x.narrow(axis, 2, n) - x.narrow(axis, 0, n)).square_()
        for other in fine:
            if other != axis:
                part = part.narrow(other, 1, x.shape[other] - 2)
        energy = part if axis == fine[0] else energy + part
        inner = inner.narrow(axis, 2, n - 2)
    for axis in fine:
        energy = _fold(energy, axis, 3, torch.add)
    return energy, inner


def _patches(x: Tensor, places: Tensor, shape: torch.Size, fine: tuple[int, ...]) -> Tensor:
    """The five voxels along each fine axis around places (flat indices into `shape`): (places, 5, 5, ..)."""
    steps = torch.arange(-2, 3, device=x.device)
    index = torch.zeros_like(places)
    for axis in reversed(range(len(shape))):  # torch.unravel_index imports sympy, for half a second
        at, places = places % shape[axis], places // shape[axis]
        index += (at + REACH if axis in fine else at) * x.stride(axis)
    for axis in fine:
        index = index.unsqueeze(-1) + steps * x.stride(axis)
    return x.view(-1)[index]


def _spread(patches: Tensor) -> tuple[float, bool]:
    """Standard deviation of the noise in flat patches, from their energy in bands, and whether it is coloured."""
    sd = _bands(patches)
    highest, upper = float(sd.flatten()[0]), float(sd[(1,) * sd.dim()])
    total = float(sd[(slice(1, None),) * sd.dim()].square().mean().sqrt())
    if upper == 0:
        return highest, False
    coloured = min(1.0, max(0.0, (total / upper - WHITE) / (COLOURED - WHITE)))
    return (1 - coloured) * highest + coloured * total, coloured > 0


def _bands(patches: Tensor) -> Tensor:
    """Robust standard deviation in each combination of `FILTERS` along the fine axes, shape (3, ...)."""
    filters = FILTERS.to(patches)
    for _ in range(patches.dim() - 1):
        patches = torch.tensordot(patches, filters, ([1], [1]))
    rank = max(1, round(0.6827 * len(patches)))
    return patches.abs().kthvalue(rank, dim=0).values


def _rayleigh(patches: Tensor) -> float:
    """Sigma from the air of a magnitude image; infinite where the darkest part is not Rayleigh distributed."""
    patches = patches.flatten(1)
    mean, square = patches.mean(1), patches.square().mean(1)
    power = square.kthvalue(max(1, len(square) // 20)).values
    for _ in range(20):
        # The mean of 25 exponential values exceeds 1.8 times its expectation once in ten thousand patches.
        dark = square < 1.8 * power
        power = square[dark].mean()
    # Over all patches and within each of them: dark tissue of many shades passes the first, but is even within.
    pooled, within = float(mean[dark].mean().square() / power), float(mean[dark].square().mean() / power)
    return float((power / 2).sqrt()) if abs(pooled - math.pi / 4) < 0.03 and within < math.pi / 4 + 0.05 else math.inf
