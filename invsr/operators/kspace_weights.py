"""Weights on k-space: which samples were taken, and how strongly they count. Frequency zero at index N // 2."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError

# Of a Poisson disc: the distance of samples beside the centre, lines, and how often the range of its growth is halved.
NEAREST, HALVINGS = 0.8, 12


def partial_fourier(shape: Sequence[int], fraction: float, axis: int) -> Tensor:
    """Ones on the upper `fraction` (0.5 to 1) of the lines along `axis`, zeros on the lowest frequencies.

    Frequency zero is always kept. Shape `shape`, float64.
    """
    if not 0.5 <= fraction <= 1:
        raise InvsrError(f"partial Fourier fraction {fraction}: it must be from 0.5 to 1")
    size = shape[axis]
    weights = torch.zeros(tuple(shape), dtype=torch.float64)
    first = min(size - math.ceil(fraction * size - 1e-9), size // 2)
    weights.narrow(axis, first, size - first).fill_(1)
    return weights


def elliptic(shape: Sequence[int], radii: float | Sequence[float] = 1.0) -> Tensor:
    """Ones where ``sum_n (f_n / (radii_n N_n / 2))^2 <= 1``: the corners of k-space left out.

    `radii` as a share of the largest frequency, one or three. Shape `shape`, float64.
    """
    three = np.broadcast_to(np.asarray(radii, float), 3).tolist()
    if not min(three) > 0:
        raise InvsrError(f"elliptic k-space of radii {three}: each must be above zero")
    i, j, k = (f / r for f, r in zip(_frequencies(shape), three, strict=True))
    inside: Tensor = i**2 + j**2 + k**2 <= 1 + 1e-9
    return inside.double()


def random_mask(
    shape: Sequence[int],
    acceleration: float,
    centre_fraction: float,
    generator: torch.Generator,
    axes: Sequence[int] = (0, 1, 2),
) -> Tensor:
    """A full centre and uniformly random samples around it, one in `acceleration` in all.

    Parameters
    ----------
    shape : three of int
    acceleration : float
        At least 1; exactly ``round(total / acceleration)`` samples are kept.
    centre_fraction : float
        Share of each of `axes` that the centre box spans.
    generator : torch.Generator
    axes : sequence of int
        The phase-encoding axes, along which samples are drawn; along the others, lines are complete.

    Raises
    ------
    InvsrError
        When the acceleration is below 1, the share is not from 0 to 1, or the centre alone is too many samples.
    """
    if not acceleration >= 1 or not 0 <= centre_fraction <= 1:
        raise InvsrError(
            f"acceleration {acceleration} and centre fraction {centre_fraction}: at least 1, and from 0 to 1"
        )
    drawn = [n if axis in {a % 3 for a in axes} else 1 for axis, n in enumerate(shape)]
    mask = torch.zeros(drawn, dtype=torch.float64)
    centre = mask
    for axis, n in enumerate(drawn):
        width = round(centre_fraction * n) if n > 1 else 1
        centre = centre.narrow(axis, n // 2 - width // 2, width)
    centre.fill_(1)
    missing = round(mask.numel() / acceleration) - int(mask.sum())
    if missing < 0:
        raise InvsrError(
            f"the centre holds {int(mask.sum())} of {mask.numel()} samples, more than acceleration {acceleration} "
            "leaves: lower the centre fraction or the acceleration"
        )
    free = torch.nonzero(mask.flatten() == 0).flatten()
    order = torch.randperm(len(free), generator=generator, device=generator.device).cpu()
    mask.view(-1)[free[order[:missing]]] = 1
    return mask.expand(tuple(shape)).clone()


def poisson_disc(
    shape: Sequence[int],
    acceleration: float,
    centre: int | Sequence[int],
    seed: int | torch.Generator = 0,
    axes: Sequence[int] = (1, 2),
) -> Tensor:
    """A full centre and, around it, random samples that keep a distance which grows with frequency.

    Samples are drawn one after the other, each at least as far from those before as their distance asks for: `NEAREST`
    lines of the longer axis beside the centre, more in proportion to the distance from it. The growth is the largest
    with which ``round(total / acceleration)`` samples, the centre's included, find room. For corners left out, multiply
    by `elliptic`.

    Parameters
    ----------
    shape : three of int
    acceleration : float
        Above 1.
    centre : int or two
        Lines of the full centre along each of `axes`.
    seed : int or torch.Generator
        The same seed gives the same mask.
    axes : two of {0, 1, 2}
        The phase-encoding axes; along the third, lines are complete.

    Returns
    -------
    Tensor, shape `shape`, float64
        Ones and zeros.

    Raises
    ------
    InvsrError
        When axes or sizes do not fit, or the acceleration is not above 1.

    References
    ----------
    Bridson (2007), ACM SIGGRAPH sketches, 22 (Poisson-disc sampling). Vasanawala, Murphy, Alley, Lai, Keutzer, Pauly,
    Lustig (2011), Proc. IEEE ISBI, 1039-1043 (in k-space).
    """
    drawn = sorted({a % 3 for a in axes})
    lines = [int(n) for n in np.broadcast_to(np.asarray(centre), 2)]
    if len(shape) != 3 or len(drawn) != 2 or not 1 < acceleration < math.inf:
        raise InvsrError(
            f"Poisson-disc mask of shape {tuple(shape)} along axes {tuple(axes)}, acceleration {acceleration:g}: give "
            "three sizes, two different axes, and an acceleration above 1"
        )
    plane = [shape[n] for n in drawn]
    wanted = round(math.prod(plane) / acceleration)
    if not all(0 <= m <= n for m, n in zip(lines, plane, strict=True)) or math.prod(lines) > wanted:
        raise InvsrError(
            f"a centre of {lines[0]}x{lines[1]} samples in a mask of {plane[0]}x{plane[1]} with acceleration "
            f"{acceleration:g}, which leaves {wanted}: lower the centre or the acceleration"
        )
    if isinstance(seed, torch.Generator):
        seed = int(torch.randint(2**31, (), generator=seed, device=seed.device))
    middle = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for m, n in zip(lines, plane, strict=True))
    mask = torch.from_numpy(_with_distances(plane, middle, wanted, np.random.default_rng(seed)))
    left = next(n for n in (0, 1, 2) if n not in drawn)
    return mask.unsqueeze(left).expand(tuple(shape)).clone()


def apodisation(shape: Sequence[int], kind: str = "hamming", taper: float = 0.5) -> Tensor:
    """A window over k-space, the product of one per axis, 1 at frequency zero and symmetric.

    With u the share of the largest frequency: "hamming" ``0.54 + 0.46 cos(pi u)``, "hann"
    ``0.5 + 0.5 cos(pi u)``, "tukey" 1 up to ``|u| = 1 - taper`` and a cosine from there to zero at 1.
    Shape `shape`, float64.

    References
    ----------
    Harris (1978), Proc. IEEE 66, 51-83.
    """
    weights = torch.ones(tuple(shape), dtype=torch.float64)
    for u in _frequencies(shape):
        if kind == "hamming":
            weights = weights * (0.54 + 0.46 * torch.cos(math.pi * u))
        elif kind == "hann":
            weights = weights * (0.5 + 0.5 * torch.cos(math.pi * u))
        elif kind == "tukey" and 0 < taper <= 1:
            edge = ((u.abs() - (1 - taper)) / taper).clamp(0, 1)
            weights = weights * (0.5 + 0.5 * torch.cos(math.pi * edge))
        else:
            raise InvsrError(f"apodisation {kind!r}, taper {taper}: use 'hamming', 'hann' or 'tukey' with taper 0 to 1")
    return weights


def _with_distances(
    plane: Sequence[int], middle: tuple[slice, ...], wanted: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A mask of a full middle and `wanted` samples in all, whose distances grow as fast as leaves room for them."""
    order = generator.permutation(math.prod(plane)).tolist()
    # Somewhere in their cells: between points of a lattice, distances would jump, and the density with them.
    places = np.indices(plane) + generator.random((2, *plane))
    low, high = 0.0, float(max(plane))
    found = _in_turn(places, middle, order, wanted, low)
    for _ in range(HALVINGS):
        growth = (low + high) / 2
        mask = _in_turn(places, middle, order, wanted, growth)
        if mask.sum() < wanted:
            high = growth
        else:
            found, low = mask, growth
    return found


def _in_turn(
    places: npt.NDArray[np.float64], middle: tuple[slice, ...], order: Sequence[int], wanted: int, growth: float
) -> npt.NDArray[np.float64]:
    """Samples in a given order, each taken unless one before it is too near, until there are as many as wanted.

    The distance is `NEAREST` beside the middle and `NEAREST` + growth at the end of an axis, in lines of the longer
    one; with growth 0 it is 0.
    """
    plane = places.shape[1:]
    steps = np.array(plane) / max(plane)
    along = [np.arange(n) for n in plane]
    beyond = [np.maximum(part.start - at, at - part.stop + 1).clip(0) for part, at in zip(middle, along, strict=True)]
    radius = np.hypot(*np.ix_(*(one / max(1, one.max()) for one in beyond)))
    distance = ((NEAREST + growth * radius) * (growth > 0)).ravel().tolist()
    u, v = places / steps[:, None, None]
    mask, free = np.zeros(plane), np.ones(plane, bool)
    mask[middle], free[middle] = 1, False
    left, open_ones = wanted - int(mask.sum()), free.ravel()
    for place in order:
        if not left:
            break
        if not open_ones[place]:
            continue
        (i, j), far = divmod(place, plane[1]), distance[place]
        rows, columns = (
            slice(max(0, at - reach), at + reach + 1)
            for at, reach in zip((i, j), (math.ceil(far * step) for step in steps), strict=True)
        )
        around = (u[rows, columns] - u[i, j]) ** 2 + (v[rows, columns] - v[i, j]) ** 2
        free[rows, columns] &= around >= far * far
        mask[i, j], free[i, j] = 1, False
        left -= 1
    return mask


# Transforms -----------------------------------------------------------------------------------------


def _frequencies(shape: Sequence[int]) -> list[Tensor]:
    """Per axis, frequencies as a share of the largest, in broadcastable shapes."""
    if len(shape) != 3 or min(shape) < 1:
        raise InvsrError(f"k-space weights take three positive sizes, not {tuple(shape)}")
    along = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    return [((torch.arange(n).double() - n // 2) / (n / 2)).reshape(a) for n, a in zip(shape, along, strict=True)]
