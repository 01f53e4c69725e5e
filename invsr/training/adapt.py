"""Adapting a denoiser to one scan: a thick-slice scan shows its own anatomy at full resolution within its slices.

The interpolated scan is degraded once more along an in-plane axis, as the slice profile degraded it across the slices,
and the network learns to undo that. What it learns about contrast and anatomy then helps across the slices.
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
from invsr.training.random_draws import integer, seeded

# Optimiser steps, patches per step, sides of a patch in voxels, learning rate: about a minute on two cores.
ADAPTATION_STEPS = 150
ADAPTATION_BATCH = 3
ADAPTATION_PATCH = 32
ADAPTATION_RATE = 3e-4
# Least noise of the slices that are simulated, share of the peak: its logarithm is drawn.
LEAST_NOISE = 1e-6
# Patches are centred on voxels brighter than this share of the peak.
ANATOMY = 0.1


def adapt(
    prior: Denoiser,
    volume: Tensor,
    *,
    axis: int,
    thickness: float,
    gap: float = 0.0,
    sigma: float = 0.01,
    steps: int = ADAPTATION_STEPS,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Denoiser:
    """A copy of a prior whose network is trained further on the in-plane detail of a scan.

    Parameters
    ----------
    prior : Denoiser
        A prior with a network of this package.
    volume : Tensor, shape (1, 1, i, j, k)
        The interpolated scan, its peak near 1.
    axis : int
        Axis across the slices.
    thickness, gap : float
        Slice thickness, and gap between slices, in voxels of `volume`.
    sigma : float
        Standard deviation of the noise in `volume`.
    steps : int
        Number of optimiser steps.
    seed : int
    progress : callable, optional
        Called with the share that is done, 0 to 1, and the figures of the last step.

    Returns
    -------
    Denoiser

    Raises
    ------
    InvsrError
        When the prior is not a network of this package, the scan has no anatomy to learn from, or a number makes no
        sense.

    References
    ----------
    Zhao, Dewey, Pham, Calabresi, Reich, Prince (2021), IEEE Trans. Med. Imaging 40, 805-817 (SMORE, which trains
    networks that invert the acquisition; here the prior is trained).
    """
    if not isinstance(prior.network, Network):
        raise InvsrError(
            f"{prior.name}: only the denoisers of this package, and weights trained with it, can be adapted"
        )
    if prior.dim == 2:
        raise InvsrError(f"{prior.name}: a denoiser of slices cannot be adapted: use one of volumes")
    if axis not in (0, 1, 2) or not 0 < thickness < math.inf or not 0 <= sigma < math.inf:
        raise InvsrError(
            f"axis {axis}, thickness {thickness:g}, sigma {sigma:g}: an axis from 0 to 2, a thickness above zero, "
            "noise not below"
        )
    volume = volume.detach().cpu().float()
    bright = (volume[0, 0] > ANATOMY * float(volume.max())).nonzero()
    if not len(bright):
        raise InvsrError("the scan has no voxel bright enough to adapt the denoiser to: leave adaptation out")
    degradation = Degradation(
        measured=0.7,
        thickness=(thickness, thickness),
        gap=max(0.0, gap / thickness),
        slice_noise=(max(sigma, LEAST_NOISE),) * 2,
        truncated=0.0,
        noisy=0.25,
        axes=tuple(n for n in range(3) if n != axis),
    )
    device = next(prior.network.parameters()).device
    with torch.enable_grad():
        network: Any = copy.deepcopy(prior.network).train().requires_grad_(True)
        optimiser = Muon(network.parameters(), lr=ADAPTATION_RATE)
        for step in range(steps):
            generator = seeded(seed, step)
            drawn = [_patch(volume, bright, degradation, generator) for _ in range(ADAPTATION_BATCH)]
            clean, noisy, level = (torch.stack(parts).to(device) for parts in zip(*drawn, strict=True))
            with prior.number_format(device):
                estimate = network(noisy.contiguous(memory_format=torch.channels_last_3d), level)
            loss = relative_error(estimate, noisy, clean)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = ADAPTATION_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.step()
            if progress is not None:
                progress((step + 1) / steps, {"loss": float(loss.detach())})
    adapted = copy.copy(prior)
    adapted._modules = dict(prior._modules)
    adapted.network = network.eval().requires_grad_(False)
    return adapted


def _patch(
    volume: Tensor, bright: Tensor, degradation: Degradation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean patch, degraded patch and level of its error, in a random orientation."""
    centre = bright[integer(generator, len(bright))].tolist()
    clean = volume[0]
    for n, at in enumerate(centre, start=1):
        side = min(ADAPTATION_PATCH, clean.shape[n])
        clean = clean.narrow(n, min(max(0, at - side // 2), clean.shape[n] - side), side)
    clean = F.pad(clean, [p for n in reversed(clean.shape[1:]) for p in (0, ADAPTATION_PATCH - n)], mode="replicate")
    noisy, level = degradation(clean, generator)
    order = [0, *(1 + int(n) for n in torch.randperm(3, generator=generator))]
    flips = [1 + n for n in range(3) if integer(generator, 2)]
    return clean.permute(order).flip(flips), noisy.permute(order).flip(flips), level
