"""Structures that appear in one place only, put into training patches: lesions, cysts, tubes and sheets.

Healthy anatomy repeats from head to head, and a network that learned from it alone may take what does not for an error.
Shapes are those of segmented lesions, or drawn; intensity and texture are random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from invsr.training.random_draws import integer, log_uniform, uniform

# Anatomy is brighter than this share of the peak: structures end where it ends.
ANATOMY = 0.05
# Most structures in a patch.
MOST = 3
# Radius of blobs and tubes, and half the thickness of sheets, voxels.
RADIUS = {"blob": (1.0, 9.0), "tube": (0.6, 2.5), "sheet": (0.5, 2.0)}
# Width of the edges, voxels: the partial volume of a sharp edge, and up to an oedema's.
EDGE = (0.5, 2.5)
# Voxel size of a segmented lesion's patch, voxels of the mask; masks of large lesions are shrunk to the patch's scale.
LESION_ZOOM = (0.7, 1.6)
# Intensity that a structure takes, as a share of the peak of the patch.
INTENSITY = (0.0, 1.3)
TEXTURE = 0.08
# Share of the structures that one of several contrasts shows alone.
ALONE = 0.6


def insert(images: Tensor, lesions: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The images with one to three random structures, which end where the anatomy ends.

    Most structures appear in one of several contrasts alone, the others in all of them, each with an intensity of its
    own.

    Parameters
    ----------
    images : Tensor, shape (contrast, i, j, k)
        Not negative; air is dark.
    lesions : sequence of Tensor, shape (1, 1, i, j, k)
        Lesion masks, 0 to 1, cropped; without any, all structures are drawn.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (contrast, i, j, k)
    """
    peaks = images.amax((1, 2, 3))
    # The share of anatomy among a voxel and its neighbours: noise makes no holes.
    bright = (images > ANATOMY * peaks.view(-1, 1, 1, 1)).any(0)
    inside = F.avg_pool3d(bright.float()[None, None], 3, 1, 1)[0, 0]
    inside = (2 * inside - 0.5).clamp(0, 1)
    places = (inside == 1).nonzero()
    if not len(places):
        return images
    found, shape = list(images), images.shape[1:]
    for _ in range(1 + integer(generator, MOST)):
        centre = places[integer(generator, len(places))].float()
        if lesions and uniform(generator) < 0.5:
            form = _segmented(lesions[integer(generator, len(lesions))], shape, centre, generator)
        else:
            form = _drawn(shape, centre, generator)
        affected = list(range(len(found)))
        if len(found) > 1 and uniform(generator) < ALONE:
            affected = [integer(generator, len(found))]
        for n in affected:
            weight = form * inside * uniform(generator, 0.3, 1.0)
            texture = TEXTURE * uniform(generator) * torch.randn(shape, generator=generator)
            value = float(peaks[n]) * (uniform(generator, *INTENSITY) + texture)
            found[n] = (found[n] + weight * (value - found[n])).clamp(min=0)
    return torch.stack(found)


def _segmented(mask: Tensor, shape: Sequence[int], centre: Tensor, generator: torch.Generator) -> Tensor:
    """A turned and scaled lesion mask, one of its voxels at a place of the patch."""
    points = _offsets(shape, centre) @ (log_uniform(generator, *LESION_ZOOM) * _turn(generator)).T
    voxels = (mask[0, 0] > 0.5).nonzero()
    middle = voxels[integer(generator, len(voxels))]
    extent = torch.tensor([float(n) for n in mask.shape[2:]])
    place = (2 * (points + middle) / (extent - 1).clamp(min=1) - 1).flip(-1)[None]
    found: Tensor = F.grid_sample(mask, place, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0]
    return found


def _drawn(shape: Sequence[int], centre: Tensor, generator: torch.Generator) -> Tensor:
    """A blob, a bent tube or a bent sheet through a place of the patch, 1 inside and 0 outside."""
    kind = ("blob", "tube", "sheet")[integer(generator, 3)]
    i, j, k = (_offsets(shape, centre) @ _turn(generator).T).unbind(-1)
    radius = log_uniform(generator, *RADIUS[kind])
    if kind == "blob":
        # An ellipsoid with a wavy surface.
        squash = torch.tensor([log_uniform(generator, 0.6, 1.6) for _ in range(3)])
        distance = ((i * squash[0]).square() + (j * squash[1]).square() + (k * squash[2]).square()).sqrt()
        knots = [max(2, round(n / 6)) for n in shape]
        waves = torch.randn((1, 1, *knots), generator=generator)
        waves = F.interpolate(waves, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]
        distance = distance - 0.4 * uniform(generator) * radius * waves
    else:
        bend = [uniform(generator, -1.0, 1.0) / max(shape) for _ in range(3)]
        if kind == "tube":
            distance = ((i - bend[0] * k.square()).square() + (j - bend[1] * k.square()).square()).sqrt()
        else:
            distance = (i - bend[0] * j.square() - bend[1] * k.square() - bend[2] * j * k).abs()
    return ((radius - distance) / log_uniform(generator, *EDGE) + 0.5).clamp(0, 1)


def _offsets(shape: Sequence[int], centre: Tensor) -> Tensor:
    """Distance of every voxel from a place along the three axes, (i, j, k, 3)."""
    axes = [torch.arange(n) - at for n, at in zip(shape, centre, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def _turn(generator: torch.Generator) -> Tensor:
    """A rotation drawn uniformly, from a random unit quaternion."""
    q = torch.randn(4, generator=generator)
    a, b, c, d = (q / max(math.sqrt(float(q @ q)), 1e-6)).tolist()
    return torch.tensor(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )
