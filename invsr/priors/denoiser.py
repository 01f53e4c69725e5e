"""Denoising networks as priors: planes, tiles, random symmetries, number format."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from invsr.errors import InvsrError
from invsr.models import engines
from invsr.models.joint import JointUNet
from invsr.models.networks import Network
from invsr.numerics.iteration import each
from invsr.priors.base import Prior
from invsr.priors.phase import smooth_phase, wiener_gain
from invsr.priors.tiling import tiles

# Background: voxels whose neighbourhood stays below this share of the peak. Around the rest, a margin is kept.
BACKGROUND = 0.02
FOREGROUND_MARGIN = 8
# Voxels of one network call, by default: what 8 GB hold at 32 channels.
LARGEST_CALL = 20_000_000
# Working memory of a network of another package, float32 numbers per voxel: a DRUNet's of 64 channels.
FOREIGN_FLOATS = 400


class Denoiser(Prior):
    """A denoiser ``D(x, sigma)`` in the place of a prox: the plug-and-play prior.

    Parameters
    ----------
    network : callable
        ``network(x, sigma)`` with x of shape (batch, 1, *image) and sigma a number: the package's networks
        (`invsr.models.networks`) or any denoiser of deepinv.
    dim : {2, 3}, optional
        Whether the network takes slices or volumes; by default what the network says, or else 2.
    planes : {"random", "all"} or int
        With 2-D networks: slices across a random axis in each call, the mean over the three axes, or slices
        across one given axis.
    symmetries : bool or int, optional
        Flip the image at random, and permute the axes of volumes, before the network and back after it. The denoiser
        then is equivariant in the mean, which stabilises the iteration. A number asks for the mean over as many draws.
        On by default, except with gradient-step networks: with it their prox is no gradient step any more.
    tile : int, optional
        Largest number of voxels to hand to the network at once. Larger volumes go through in tiles that overlap
        by the network's reach, so that no seam shows. By default 20 million where memory grows with the volume.
    bfloat16 : bool, optional
        Run the convolutions in bfloat16; by default where that is fastest (`invsr.models.engines`), with the same
        exception: a descent is told by the last digits.
    crop : bool, optional
        Leave background alone: it is smoothed, not sent through the network. On by default, with the same exception.
    seed : int
        Seed of the random planes and symmetries.

    References
    ----------
    Venkatakrishnan, Bouman, Wohlberg (2013), GlobalSIP, 945-948.
    Terris, Moreau, Pustelnik, Tachella (2024), Equivariant plug-and-play image reconstruction, CVPR.

    Examples
    --------
    >>> from invsr.models.networks import DnCNN
    >>> prior = Denoiser(DnCNN(dim=3, channels=4, depth=3))
    >>> prior.prox(torch.rand(1, 1, 9, 10, 11), 0.1).shape
    torch.Size([1, 1, 9, 10, 11])
    """

    is_denoiser = True

    def __init__(
        self,
        network: Callable[[Tensor, Any], Tensor],
        *,
        dim: int | None = None,
        planes: str | int = "random",
        symmetries: int | None = None,
        tile: int | None = None,
        bfloat16: bool | None = None,
        crop: bool | None = None,
        seed: int = 0,
        name: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.dim = dim if dim is not None else int(getattr(network, "dim", 2))
        if self.dim not in (2, 3):
            raise InvsrError(f"dim is {self.dim}: a denoiser takes slices (2) or volumes (3)")
        if planes not in ("random", "all", 0, 1, 2):
            raise InvsrError(f"planes {planes!r}: use random, all or an axis 0, 1, 2")
        self.planes = planes
        # A foreign network has no such attribute.
        exact = bool(getattr(network, "is_gradient_step", False))
        self.exact = exact
        self.symmetries = not exact if symmetries is None else symmetries
        if self.symmetries < 0:
            raise InvsrError(f"symmetries is {self.symmetries}: use True, False or a number of draws")
        streams = isinstance(network, Network) and network.streams
        self.tile = (sys.maxsize if streams else LARGEST_CALL) if tile is None else tile
        self.coarse = False if exact and bfloat16 is None else bfloat16
        self.crop = not exact if crop is None else crop
        self.neighbours = int(getattr(network, "neighbours", 0))
        self.multiple = int(getattr(network, "multiple", 8))
        self.reach = int(getattr(network, "reach", 32))
        self.joint = isinstance(network, JointUNet)
        self.name = name or type(network).__name__
        self._generator = torch.Generator().manual_seed(seed)

    def memory(self, shape: Sequence[int], device: torch.device) -> int:
        """Bytes that the network takes for a volume of a shape, tiles of `tile` voxels at a time."""
        voxels = math.prod(shape)
        if self.dim == 2:  # as many slices at once as `tile` allows
            shape = (min(voxels, self.tile), 1)
        elif voxels > self.tile:
            shape = (self.tile, 1, 1) if self.exact else (round(self.tile ** (1 / 3)),) * 3
        if isinstance(self.network, Network):
            return self.network.memory(shape, device)
        return 4 * FOREIGN_FLOATS * math.prod(shape)

    @property
    def deterministic(self) -> bool:
        return not self.symmetries and not (self.dim == 2 and self.planes == "random")

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        if not bool(torch.as_tensor(sigma).detach().min() > 0):
            return v
        if v.is_complex():
            return self._complex(v, sigma)
        if self.joint:  # it takes all channels together
            return torch.cat([self._volume(one, sigma) for one in torch.split(v, 1)])
        images = v.reshape(-1, 1, *v.shape[2:])
        return torch.cat([self._volume(one, sigma) for one in torch.split(images, 1)]).reshape(v.shape)

    def _complex(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """Without its smooth phase, the real part of v is an image, and the imaginary part noise around 0, mostly."""
        phase = smooth_phase(v)
        rest = v * phase.conj()
        return torch.complex(self.prox(rest.real, sigma), rest.imag * wiener_gain(rest.imag, sigma)) * phase

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor | None:
        """``g(z) / sigma^2`` for gradient-step networks, whose prox is a gradient step on it; else None.

        For networks of slices the mean over the axes that `planes` allows. Complex z count without their smooth phase:
        g of the real part, and half the energy that `prox` takes off the imaginary part.
        """
        if not self.exact or not float(sigma) > 0:
            return None
        if not z.is_complex():
            return self._cost(z, sigma) / float(sigma) ** 2
        rest = z * smooth_phase(z).conj()
        lost = (1 - wiener_gain(rest.imag, sigma)) * rest.imag.square()
        return (self._cost(rest.real, sigma) + 0.5 * lost.sum()) / float(sigma) ** 2

    def _cost(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """g of real volumes, summed."""
        network: Any = self.network
        images = z.reshape(-1, 1, *z.shape[2:])
        stacks = [images]
        if self.dim == 2:
            axes = (self.planes,) if isinstance(self.planes, int) else (0, 1, 2)
            stacks = [images.movedim(axis + 2, 0).flatten(0, 1) for axis in axes]
        with torch.no_grad():
            return torch.stack([network.cost(self._padded(one), sigma).sum() for one in stacks]).mean()

    def _volume(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """One volume, (1, 1, i, j, k)."""
        if not bool(v.any()):
            return v
        box = _foreground(v) if self.crop else (slice(None),) * 5
        inner = v[box]
        if inner.shape == v.shape:
            return self._symmetric(v, sigma)
        out = _smoothed(v)
        out[box] = self._symmetric(inner, sigma)
        return out

    def _symmetric(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        if not self.symmetries:
            return self._oriented(v, sigma)
        draws = [self._turned(v, sigma) for _ in each(range(int(self.symmetries)))]
        return draws[0] if len(draws) == 1 else torch.stack(draws).mean(0)

    def _turned(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        flips = [axis for axis in (2, 3, 4) if int(torch.randint(2, (), generator=self._generator))]
        order = [2 + int(n) for n in torch.randperm(3, generator=self._generator)] if self.dim == 3 else [2, 3, 4]
        back = [2 + order.index(axis) for axis in (2, 3, 4)]
        out = self._oriented(v.flip(flips).permute(0, 1, *order), sigma)
        return out.permute(0, 1, *back).flip(flips)

    def _oriented(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        if self.dim == 3:
            return self._tiled(v, sigma)
        axes: Sequence[int]
        if self.planes == "all":
            axes = (0, 1, 2)
        elif self.planes == "random":
            axes = (int(torch.randint(3, (), generator=self._generator)),)
        else:
            axes = (int(self.planes),)
        total = torch.zeros_like(v)
        for axis in each(axes):
            total += self._slices(v.movedim(axis + 2, 2), sigma).movedim(2, axis + 2)
        return total / len(axes)

    def _slices(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """Slices across the first axis of (1, 1, i, j, k), as many at once as fit."""
        near = self.neighbours
        padded = F.pad(v, (0, 0, 0, 0, near, near), mode="replicate") if near else v
        slabs = padded[0].unfold(1, 1 + 2 * near, 1)[0].movedim(-1, 1)  # (i, slab, j, k)
        at_once = max(1, self.tile // (v.shape[3] * v.shape[4]))
        return torch.cat([self._call(part, sigma) for part in each(torch.split(slabs, at_once))], 0).movedim(1, 0)[None]

    def _tiled(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        shape = v.shape[2:]
        if math.prod(shape) <= self.tile:
            return self._call(v, sigma)
        out = torch.empty_like(v)
        for core, padded, inside in each(list(tiles(shape, self.tile, self.reach, self.multiple))):
            out[_volumes(core)] = self._call(v[_volumes(padded)], sigma)[_volumes(inside)]
        return out

    def _call(self, images: Tensor, sigma: float | Tensor) -> Tensor:
        """The network on images of any size, padded to what it takes."""
        sides = images.shape[2:]
        images = self._padded(images)
        kind = torch.channels_last if self.dim == 2 else torch.channels_last_3d
        images = images.contiguous(memory_format=kind)
        with self.number_format(images.device):
            out = self.network(images, sigma)
        inside = _volumes([slice(0, n) for n in sides])
        if self.exact:
            # The gradient with respect to the image before it was padded: what falls on the padding counts there.
            return images[inside] - self._unpadded(images - out, sides)
        found: Tensor = out[inside].to(images.dtype)
        return found

    def _padded(self, images: Tensor) -> Tensor:
        pad = [(-n) % self.multiple for n in images.shape[2:]]
        if not any(pad):
            return images
        return F.pad(images, [p for n in reversed(pad) for p in (0, n)], mode="replicate")

    def _unpadded(self, slope: Tensor, sides: Sequence[int]) -> Tensor:
        """The adjoint of `_padded`."""
        for axis, n in enumerate(sides, start=2):
            inner, rest = torch.split(slope, [n, slope.shape[axis] - n], axis)
            slope = inner.clone()
            slope.narrow(axis, n - 1, 1).add_(rest.sum(axis, keepdim=True))
        return slope

    def number_format(self, device: torch.device) -> Any:
        """The context in which the network runs: bfloat16 where that is faster."""
        if self.coarse is not None:
            coarse = self.coarse
        else:  # a foreign network is not measured
            network = self.network if isinstance(self.network, Network) else None
            coarse = engines.bfloat16_is_fastest(network, device)
        return torch.autocast(device.type, torch.bfloat16) if coarse else nullcontext()


def _volumes(box: Sequence[slice]) -> Any:
    """The index of a box in the last axes."""
    return (..., *box)


def _smoothed(v: Tensor) -> Tensor:
    """Means over three voxels, along axes that have as many."""
    width = [3 if n >= 3 else 1 for n in v.shape[2:]]
    return F.avg_pool3d(v, width, 1, [n // 2 for n in width], count_include_pad=False)


def _foreground(v: Tensor) -> tuple[slice, ...]:
    """The box around all that is not background, with a margin."""
    # Means over 3 voxels: single noisy voxels do not count as anatomy.
    size = v.detach().abs()
    bright = _smoothed(size)[0, 0] > BACKGROUND * float(size.max())
    box = [slice(None), slice(None)]
    for axis in range(3):
        others = [n for n in range(3) if n != axis]
        found = bright.amax(others).nonzero().flatten()
        if not len(found):
            return (slice(None),) * 5
        box.append(slice(max(0, int(found[0]) - FOREGROUND_MARGIN), int(found[-1]) + 1 + FOREGROUND_MARGIN))
    return tuple(box)
