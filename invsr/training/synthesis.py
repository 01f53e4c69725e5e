"""Training patches drawn on the fly: anatomy of random contrast, from label maps and real volumes.

Each patch has random deformation, contrast, bias field and resolution. Label maps follow the generative model of
SynthSeg and SynthSR; real volumes add the texture that label maps lack, and random contrast maps keep the network from
learning their single contrast. Lesions and other structures are put into some patches (`structures.py`).

References
----------
Billot, Greve, Puonti, Thielscher, Van Leemput, Fischl, Dalca, Iglesias (2023), Med. Image Anal. 86, 102789 (SynthSeg).
Iglesias, Billot, Balbastre, Tabari, Conklin, Gonzalez, Alexander, Golland, Edlow, Fischl (2021), NeuroImage 237,
118206.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from invsr.errors import InvsrError
from invsr.training import structures
from invsr.training.anatomy import LABELS, Anatomy, read
from invsr.training.fields import apodised, bias, blend, smooth
from invsr.training.random_draws import integer, uniform, zero_or_uniform

# Voxels drawn around a patch and cropped again, so that blurs and k-space filters see no edge of the patch.
PATCH_MARGIN = 6
# Labels from here on are tissues outside the brain.
SCALP = 45
# Least voxel size of a patch in voxels of its source: interpolated finer, a volume would teach blur.
FINEST_ZOOM = 0.75
# Share of label maps among patches of several contrasts.
LABEL_SHARE_OF_CONTRASTS = 0.6
# Share of the further contrasts that lie elsewhere, and the standard deviation of that along each axis, source voxels:
# what registration leaves.
MISALIGNED, MISALIGNMENT = 0.3, 0.15
# Tissue classes of the label maps in the shared data (FreeSurfer ids recoded to 0..55), by what looks alike on MR.
CLASSES = (
    (1, 5, 13, 19, 23, 27, 37, 40),  # white matter, brain stem
    (2, 6, 14, 15, 24, 28, 33, 34),  # cortex
    (7, 8, 9, 10, 18, 29, 30, 31, 32, 36),  # deep grey matter
    (3, 4, 11, 12, 16, 25, 26, 39),  # ventricles, cerebrospinal fluid
)


@dataclass(frozen=True)
class Draw:
    """Ranges of the random deformations, contrasts and resolutions.

    Attributes
    ----------
    voxel : (float, float)
        Voxel size of the patch, mm; never below `FINEST_ZOOM` of the source's.
    shear, rotation : float
        Largest shear, and largest rotation in radians.
    bend : float
        Standard deviation of the elastic displacement, mm.
    bias : float
        Standard deviation of the log of the bias field.
    blur : float
        Largest standard deviation of the smoothing, drawn voxels.
    texture : float
        Largest standard deviation of the texture within a tissue, as a share of the peak.
    structure : float
        Probability that lesions or other structures are put into the patch.
    strip : float
        Probability that labels outside the brain are left out.
    apodise : float
        Probability that k-space is truncated and apodised along one axis.
    straight : float
        Probability that a real volume is only flipped and rotated by right angles, without interpolation.
    noise : float
        Largest noise, as a share of the peak, that belongs to the clean patch: reference scans have noise too, and a
        denoiser of level sigma must not remove more than sigma.
    """

    voxel: tuple[float, float] = (0.6, 1.3)
    rotation: float = 0.35
    shear: float = 0.1
    bend: float = 2.0
    bias: float = 0.2
    blur: float = 0.7
    texture: float = 0.07
    structure: float = 0.35
    strip: float = 0.4
    apodise: float = 0.3
    straight: float = 0.5
    noise: float = 0.02


class Anatomies:
    """Volumes and label maps, from which patches are drawn.

    Parameters
    ----------
    paths : sequence of path
        NIfTI files. Files of integers below 64 with at least four values are taken for label maps, files of zeros and
        ones for masks of lesions, which are put into patches of the others.
    draw : Draw
    label_share : float
        Probability of a label map, if there are both label maps and volumes.

    Raises
    ------
    InvsrError
        When there is no label map and no image, or a file cannot be read.
    """

    def __init__(self, paths: Sequence[str | Path], draw: Draw | None = None, label_share: float = 0.4) -> None:
        self.draw = draw or Draw()
        self.label_share = label_share
        found = [read(Path(path)) for path in paths]
        self.labels, self.images, lesions = (
            [one for one in found if one.kind == kind] for kind in ("labels", "image", "lesion")
        )
        self.lesions = [one.data for one in lesions]
        if not self.labels and not self.images:
            raise InvsrError("no training volume given: name a folder with images or label maps besides lesion masks")

    def patch(self, size: Sequence[int], generator: torch.Generator, contrasts: int = 1) -> Tensor:
        """One patch of one or several contrasts, shape (contrasts, *size): but for noise at least 0, and but for the
        brightest few percent at most about 1."""
        pools = [(self.labels, self._from_labels), (self.images, self._real)]
        # Tissues that look alike in one contrast differ in another: label maps know that, single volumes do not.
        share = self.label_share if contrasts == 1 else LABEL_SHARE_OF_CONTRASTS
        for _ in range(20):
            from_labels = bool(self.labels) and (not self.images or uniform(generator) < share)
            pool, make = pools[not from_labels]
            patch = make(pool[integer(generator, len(pool))], size, generator, contrasts)
            if float((patch > 0.03).float().mean()) > 0.25:
                break
        return patch

    def _from_labels(self, source: Anatomy, size: Sequence[int], generator: torch.Generator, contrasts: int) -> Tensor:
        draw, shape = self.draw, [n + 2 * PATCH_MARGIN for n in size]
        points = _positions(source, shape, draw, generator)
        images = []
        indices: list[Tensor] = []
        for n in range(contrasts):
            means, spreads = _contrast(draw, generator)
            if n == 0:  # all contrasts of a head are stripped, or none
                draw = replace(draw, strip=0.0 if bool(means[SCALP:].any()) else 1.0)
            image, spread = torch.zeros(shape), torch.zeros(shape)
            # Partial volume: labels at four jittered places in each voxel, nearest neighbour, averaged.
            if not indices or uniform(generator) < MISALIGNED:
                moved = points + (MISALIGNMENT * torch.randn(3, generator=generator) if n else 0.0)
                indices = [
                    _nearest(source.data, moved + torch.rand((*shape, 3), generator=generator) - 0.5) for _ in range(4)
                ]
            for index in indices:
                image += means[index] / 4
                spread += spreads[index] / 4
            scale = 0.5 + 2.0 * uniform(generator)
            fine = torch.randn((1, 1, *shape), generator=generator)
            coarse = smooth(torch.randn((1, 1, *shape), generator=generator), scale)
            share = uniform(generator)
            texture = share * smooth(fine, 0.5) / 0.35 + (1 - share) * coarse / coarse.std().clamp(min=1e-6)
            images.append((image + spread * texture[0, 0]).clamp(min=0))
        return self._finish(torch.stack(images), size, generator, least_blur=0.4)

    def _real(self, source: Anatomy, size: Sequence[int], generator: torch.Generator, contrasts: int) -> Tensor:
        draw, shape = self.draw, [n + 2 * PATCH_MARGIN for n in size]
        if uniform(generator) < draw.straight:
            image = _cut(source.data, shape, generator)
        else:
            image = _linear(source.data, _positions(source, shape, draw, generator))
        images = []
        for _ in range(contrasts):
            one = _mapped(image, generator) if uniform(generator) < 0.75 else image
            if contrasts > 1 and uniform(generator) < 0.5:
                # No contrast is a function of another: here one map holds, there another.
                one = one.lerp(_mapped(image, generator), blend(shape, generator))
            images.append(one)
        return self._finish(torch.stack(images), size, generator, least_blur=0.0)

    def _finish(self, images: Tensor, size: Sequence[int], generator: torch.Generator, least_blur: float) -> Tensor:
        if uniform(generator) < self.draw.structure:
            images = structures.insert(images, self.lesions, generator)
        return torch.cat([self._seen(image, size, generator, least_blur) for image in images])

    def _seen(self, image: Tensor, size: Sequence[int], generator: torch.Generator, least_blur: float) -> Tensor:
        """One contrast with shading, resolution, scale and noise of its own, shape (1, *size)."""
        draw = self.draw
        image = image * bias(image.shape, draw.bias * uniform(generator), generator)
        out = image[None, None]
        for axis in range(3):
            if uniform(generator) < 0.6:
                width = least_blur + (draw.blur - least_blur) * uniform(generator)
                out = smooth(out, width, (axis,))
            elif least_blur:
                out = smooth(out, least_blur, (axis,))
        if uniform(generator) < draw.apodise:
            out = apodised(out, integer(generator, 3), 0.65 + 0.35 * uniform(generator), uniform(generator))
        i, j, k = (slice(PATCH_MARGIN, PATCH_MARGIN + n) for n in size)
        out = out[..., i, j, k].clamp(min=0)
        rank = 0.95 + 0.049 * uniform(generator)
        peak = float(out.flatten().kthvalue(max(1, round(rank * out.numel()))).values)
        # Where anatomy fills less than that rank leaves, its brightest voxels are the measure, not the background.
        peak = max(peak, 0.3 * float(out.max()))
        out = out[0] / max(peak, 1e-6) * (0.6 + 0.45 * uniform(generator))
        level = zero_or_uniform(generator, draw.noise)
        return out + level * torch.randn(out.shape, generator=generator) if level else out


def _positions(source: Anatomy, shape: Sequence[int], draw: Draw, generator: torch.Generator) -> Tensor:
    """Where the voxels of a patch lie in the source, source voxels, (i, j, k, 3): permuted, flipped, turned, bent."""
    voxel = max(uniform(generator, *draw.voxel), FINEST_ZOOM * float(source.spacing.mean()))
    skew = draw.shear * (2 * torch.rand((3, 3), generator=generator) - 1)
    twist = draw.rotation * (2 * torch.rand(3, generator=generator) - 1)
    zero = torch.zeros(())
    turn: Tensor = torch.linalg.matrix_exp(
        torch.stack([zero, -twist[2], twist[1], twist[2], zero, -twist[0], -twist[1], twist[0], zero]).reshape(3, 3)
    )
    permute = torch.eye(3)[torch.randperm(3, generator=generator)]
    flips = torch.diag(2.0 * torch.randint(2, (3,), generator=generator) - 1)
    matrix: Tensor = voxel * turn @ (torch.eye(3) + skew) @ permute @ flips
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ (matrix / source.spacing[:, None]).T
    reach = torch.tensor([float(n) for n in source.data.shape[2:]])
    # Centres keep away from the faces of the volume, by less than half a patch.
    inner = 0.15 + 0.7 * torch.rand(3, generator=generator)
    points = points + inner * (reach - 1)
    knots = [max(2, round(n / 16)) for n in shape]
    bend = draw.bend * uniform(generator) * torch.randn((1, 3, *knots), generator=generator)
    field = F.interpolate(bend, size=tuple(shape), mode="trilinear", align_corners=True)
    return points + field[0].movedim(0, -1) / source.spacing


def _cut(data: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A piece of a volume on its own grid, axes in random order and direction; zeros beyond its faces."""
    order = torch.randperm(3, generator=generator).tolist()
    out = data[0, 0].permute(order)
    for axis, n in enumerate(shape):
        size = out.shape[axis]
        # As with turned patches, centres keep away from the faces, by less than half a patch.
        first = round((0.15 + 0.7 * uniform(generator)) * (size - 1)) - n // 2
        low, high = max(0, first), min(size, first + n)
        out = out.narrow(axis, low, max(0, high - low))
        pad = [0] * 6
        pad[2 * (2 - axis)], pad[2 * (2 - axis) + 1] = low - first, first + n - high
        out = F.pad(out, pad)
    return out.flip([axis for axis in range(3) if uniform(generator) < 0.5])


def _nearest(data: Tensor, points: Tensor) -> Tensor:
    shape = data.shape[2:]
    index = points.round().long()
    inside = torch.ones(points.shape[:3], dtype=torch.bool)
    flat = torch.zeros(points.shape[:3], dtype=torch.long)
    for axis, n in enumerate(shape):
        inside &= (index[..., axis] >= 0) & (index[..., axis] < n)
        flat = flat * n + index[..., axis].clamp(0, n - 1)
    return torch.where(inside, data.flatten()[flat].long(), 0)


def _linear(data: Tensor, points: Tensor) -> Tensor:
    extent = torch.tensor([float(n) for n in data.shape[2:]])
    place = (2 * points / (extent - 1).clamp(min=1) - 1).flip(-1)[None]
    out: Tensor = F.grid_sample(data, place, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0]
    return out


def _contrast(draw: Draw, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean and spread per label: alike within a tissue class, more or less, and anything between classes."""
    means = 0.08 + 0.92 * torch.rand(LABELS, generator=generator)
    spreads = draw.texture * torch.rand(LABELS, generator=generator)
    alike = uniform(generator)
    for members in CLASSES:
        centre = float(0.05 + 0.95 * uniform(generator))
        ids = torch.tensor(members)
        means[ids] = (centre + (1 - alike) ** 2 * 0.5 * (means[ids] - 0.5)).clamp(0.02, 1)
    if uniform(generator) < draw.strip:
        means[SCALP:] = 0
        spreads[SCALP:] = 0
    # Air outside the head; bone and air spaces are dark as a rule.
    means[0] = spreads[0] = 0
    return means, spreads


def _mapped(image: Tensor, generator: torch.Generator) -> Tensor:
    """A random piecewise linear contrast: monotone or not, dark stays dark."""
    knots = 4 + integer(generator, 4)
    steps = torch.randn(knots - 1, generator=generator)
    if uniform(generator) < 0.5:
        steps = steps.abs()
    steps = steps.clamp(-1.6, 1.6) * (1.1 / (knots - 1))
    values = torch.cat([torch.zeros(1), steps.cumsum(0)])
    if float(values.min()) < 0:  # keep air dark and tissue above it
        values = (values - values.min()).clone()
        values[0] = 0.0
    values = values / values.max().clamp(min=0.15)
    position = (image.clamp(0, 1.0999) / 1.1) * (knots - 1)
    low = position.floor().long().clamp(max=knots - 2)
    share = position - low
    return values[low] * (1 - share) + values[low + 1] * share
