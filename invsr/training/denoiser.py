"""Training a denoiser on random anatomy with random errors; the loss is the share of the error that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from invsr.errors import InvsrError
from invsr.models.architectures import build, multiply_adds
from invsr.models.engines import multiplies_bfloat16
from invsr.models.gradient_step import GradientStep
from invsr.models.networks import Network
from invsr.models.weights import save_weights
from invsr.training.degradation import Degradation
from invsr.training.denoising_loss import relative_error, square_error
from invsr.training.loop import TrainingCallback, check, checkpoint_of, fabric_for, train
from invsr.training.random_draws import seeded
from invsr.training.recipe import Recipe
from invsr.training.synthesis import Anatomies

__all__ = ["Patches", "Recipe", "checkpoint_of", "train_denoiser"]


class Patches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clean patch, noisy patch and noise level; sample n is the same whichever process draws it, and whenever."""

    def __init__(self, anatomies: Anatomies, recipe: Recipe) -> None:
        self.anatomies = anatomies
        self.recipe = recipe
        self.degradation = Degradation(sigma=recipe.sigma, measured=recipe.measured)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = seeded(self.recipe.seed, index)
        clean = self.anatomies.patch(self.recipe.patch, generator)
        noisy, sigma = self.degradation(clean, generator)
        return clean, noisy, sigma


def train_denoiser(
    data: Sequence[str | Path],
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    start_from: Network | None = None,
    device: str = "auto",
    devices: int = 1,
    bfloat16: bool | None = None,
    workers: int = 0,
    log: str | None = "csv",
    save_every: int = 500,
    report: TrainingCallback | None = None,
) -> Path:
    """Train a denoising network and write its weights; resumes an earlier run.

    Parameters
    ----------
    data : sequence of path
        Volumes and label maps, NIfTI.
    out : path
        Weights file, .safetensors. Beside it are the checkpoint to resume from (.ckpt) and the logs (folder _log).
    recipe : Recipe, optional
    start_from : Network, optional
        Weights to begin with, of the recipe's architecture.
    device, devices
        "auto", "cpu" or "cuda", and how many of them; each trains on its share of a batch (Lightning Fabric).
    bfloat16 : bool, optional
        Run the convolutions in bfloat16; by default if the hardware multiplies it.
    workers : int
        Number of processes that draw patches; with 0 the training process draws them.
    log : {"csv", "tensorboard", None}
    save_every : int
        Steps between checkpoints.
    report : callable, optional
        Called with (step, steps, metrics).

    Raises
    ------
    InvsrError
        When the data cannot be used, the patch does not suit the network, a package is missing, the output cannot
        be written, or a checkpoint belongs to another recipe.
    """
    recipe, out = recipe or Recipe(), Path(out)
    check(out, recipe, devices=devices, workers=workers, save_every=save_every)
    network = _network(recipe, start_from)
    fabric = fabric_for(out, device, devices, log)
    anatomies = Anatomies(data)
    about = {
        "sigma": list(recipe.sigma),
        "recipe": asdict(recipe),
        "multiply_adds": round(multiply_adds(network)),
        "data": f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes",
    }
    # Fabric's bf16-mixed would also round the images; the networks keep them in float32.
    coarse = _trains_in_bfloat16(network, recipe, fabric.device) if bfloat16 is None else bfloat16

    def objective(model: Any, patches: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
        estimate, noisy, clean = _denoised(model, network, patches, coarse)
        return relative_error(estimate, noisy, clean), {"gain_db": _gain_db(estimate.detach(), noisy, clean)}

    def save(averaged: Any, step: int) -> None:
        save_weights(averaged, out, {**about, "steps": step})

    network.to(memory_format=_layout(network))
    return train(
        fabric,
        network,
        Patches(anatomies, recipe),
        objective,
        save,
        out,
        recipe,
        data=data,
        workers=workers,
        save_every=save_every,
        log=log,
        report=report,
    )


def _trains_in_bfloat16(network: Network, recipe: Recipe, device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, and its gradients are right.

    On CPUs those of 3-D convolutions over images with sides of 2 voxels are not numbers (oneDNN reads memory that it
    has not written).
    """
    is_tiny = network.dim == 3 and min(recipe.patch) < 3 * network.multiple
    return multiplies_bfloat16(device) and not (device.type == "cpu" and is_tiny)


def _network(recipe: Recipe, start_from: Network | None) -> Network:
    """The network to train, with its initial weights; checked against the patches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build(recipe.architecture, recipe.config)
    if isinstance(network, GradientStep) and network.network.neighbours:
        raise InvsrError("a gradient step denoises slices or volumes: it has no neighbours: leave them out")
    sides, slab = recipe.patch[3 - network.dim :], 1 + 2 * network.neighbours
    if any(side % network.multiple for side in sides):
        raise InvsrError(
            f"patch is {'x'.join(map(str, recipe.patch))} voxels: the network needs sides that are multiples of "
            f"{network.multiple}"
        )
    if network.dim == 2 and recipe.patch[0] < slab:
        raise InvsrError(f"patch has {recipe.patch[0]} slices: with {network.neighbours} neighbours it needs {slab}")
    if start_from is not None:
        if type(start_from) is not type(network) or start_from.config != network.config:
            raise InvsrError(
                f"the weights to start from belong to {type(start_from).__name__} {start_from.config}, "
                f"the recipe asks for {recipe.architecture} {network.config}"
            )
        network.load_state_dict(start_from.state_dict())
    return network


def _denoised(model: Any, network: Network, patches: Sequence[Tensor], coarse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Denoised, noisy and clean images."""
    clean, noisy, sigma = patches
    clean, noisy = _as_images(clean, network), _as_images(noisy, network)
    sigma = sigma.repeat_interleave(len(noisy) // len(sigma))
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=coarse):
        estimate = model(noisy.contiguous(memory_format=_layout(network)), sigma)
    centre = slice(network.neighbours, network.neighbours + 1)
    return estimate.float(), noisy[:, centre], clean[:, centre]


def _gain_db(estimate: Tensor, noisy: Tensor, clean: Tensor) -> float:
    before, after = square_error(noisy, clean), square_error(estimate, clean)
    return float((10 * torch.log10((before + 1e-12) / (after + 1e-12))).mean())


def _layout(network: Network) -> torch.memory_format:
    return torch.channels_last if network.dim == 2 else torch.channels_last_3d


def _as_images(patch: Tensor, network: Network) -> Tensor:
    """Patches (batch, 1, i, j, k) as network input: volumes, or overlapping slabs of slices across the first axis."""
    if network.dim == 3:
        return patch
    slabs = patch.unfold(2, 1 + 2 * network.neighbours, 1)  # (batch, 1, slab, j, k, slice)
    return slabs.movedim(-1, 3).flatten(0, 2)
