"""A denoiser adapted to one scan: within its slices a thick-slice scan shows its own anatomy at full resolution.

The scan, interpolated, is degraded once more along an axis in its slices, as its slice profile degraded it across them,
and the network learns to undo that. What it then knows of this contrast and anatomy serves across the slices.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from invsr.errors import InvsrError
from invsr.models.networks import Network
from invsr.numerics.iteration import ProgressCallback
from invsr.priors.denoiser import Denoiser
from invsr.training.degradation import Degradation
from invsr.training.denoising_loss import relative_error
from invsr.training.muon import Muon

# A minute on two cores: optimiser steps, patches in each, their sides in voxels, learning rate.
STEPS = 150
BATCH = 3
PATCH = 32
RATE = 3e-4
# Patches are cut around voxels brighter than this share of the peak.
ANATOMY = 0.1


def adapt(
    prior: Denoiser,
    volume: Tensor,
    *,
    axis: int,
    thickness: float,
    gap: float = 0.0,
    sigma: float = 0.01,
    steps: int = STEPS,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Denoiser:
    """A copy of a prior, its network trained further on a scan's own in-plane detail.

    Parameters
    ----------
    prior : Denoiser
        With a network of this package.
    volume : Tensor, shape (1, 1, i, j, k)
        The scan, interpolated, its peak near 1.
    axis : int
        Across its slices.
    thickness, gap : float
        Of the slices, voxels of `volume`.
    sigma : float
        Its noise.
    steps : int
        Of the optimiser.
    seed : int
    progress : callable, optional
        Called with (step, steps, figures).

    Returns
    -------
    Denoiser

    Raises
    ------
    InvsrError
        When the prior is not a network of this package, or the scan has no anatomy to learn from.

    References
    ----------
    Zhao, Dewey, Pham, Calabresi, Reich, Prince (2021), IEEE Trans. Med. Imaging 40, 805-817 (SMORE: the idea, there
    for networks that invert; here for the prior).
    """
    if not isinstance(prior.network, Network):
        raise InvsrError(
            f"{prior.name}: only the denoisers of this package, and weights trained with it, can be adapted"
        )
    if prior.dim == 2:
        raise InvsrError(f"{prior.name}: a denoiser of slices cannot be adapted: use one of volumes")
    volume = volume.detach().cpu().float()
    bright = (volume[0, 0] > ANATOMY * float(volume.max())).nonzero()
    if not len(bright):
        raise InvsrError("the scan has no voxel bright enough to adapt the denoiser to: leave adaptation out")
    ends = (thickness, thickness)
    share = max(0.0, gap / thickness)
    degradation = Degradation(
        measured=0.7, thickness=ends, gap=share, slice_noise=(sigma, sigma), truncated=0.0, noisy=0.25,
        axes=tuple(n for n in range(3) if n != axis),
    )  # fmt: skip
    device = next(prior.network.parameters()).device
    with torch.enable_grad():
        network: Any = copy.deepcopy(prior.network).train().requires_grad_(True)
        optimiser = Muon(network.parameters(), lr=RATE)
        for step in range(steps):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            drawn = [_patch(volume, bright, degradation, generator) for _ in range(BATCH)]
            clean, noisy, level = (torch.stack(parts).to(device) for parts in zip(*drawn, strict=True))
            with prior.number_format(device):
                estimate = network(noisy.contiguous(memory_format=torch.channels_last_3d), level)
            loss = relative_error(estimate, noisy, clean)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.step()
            if progress is not None:
                progress(step + 1, steps, {"loss": float(loss.detach())})
    adapted = copy.copy(prior)
    adapted._modules = dict(prior._modules)
    adapted.network = network.eval().requires_grad_(False)
    return adapted


def _patch(
    volume: Tensor, bright: Tensor, degradation: Degradation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean patch, degraded patch and the level of its error, in random orientation."""
    centre = bright[int(torch.randint(len(bright), (), generator=generator))].tolist()
    clean = volume[0]
    for n, at in enumerate(centre, start=1):
        side = min(PATCH, clean.shape[n])
        clean = clean.narrow(n, min(max(0, at - side // 2), clean.shape[n] - side), side)
    clean = F.pad(clean, [p for n in reversed(clean.shape[1:]) for p in (0, PATCH - n)], mode="replicate")
    noisy, level = degradation(clean, generator)
    order = [0, *(1 + int(n) for n in torch.randperm(3, generator=generator))]
    flips = [1 + n for n in range(3) if int(torch.randint(2, (), generator=generator))]
    return clean.permute(order).flip(flips), noisy.permute(order).flip(flips), level
