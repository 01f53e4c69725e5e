"""Training a denoiser: random anatomy, random noise level, mean PSNR as the goal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from invsr.errors import InvsrError
from invsr.priors.denoiser import bfloat16_is_fast
from invsr.priors.networks import Network, build, multiply_adds
from invsr.priors.pretrained import save_weights
from invsr.training.degradation import Degradation
from invsr.training.synthesis import Anatomies

# Errors of less than this (of the peak) count less than in proportion.
FLOOR = 0.02

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on besides its data.

    Attributes
    ----------
    architecture, config
        As in `invsr.priors.networks.build`.
    steps, batch, patch
        Optimiser steps; patches per step; patch sides in voxels (networks of slices denoise all but `neighbours` at
        either end of the first side).
    sigma : (float, float)
        Range of the noise level, drawn log-uniformly.
    measured : float
        Share of patches with the errors of a random acquisition (`Degradation`); 0 for white noise alone.
    rate : float
        Largest learning rate; falls to nothing along a half cosine.
    seed : int
    average : float
        Decay of the running mean of the weights that is written out.
    """

    architecture: str = "UNet"
    config: dict[str, Any] = field(default_factory=lambda: {"dim": 3, "channels": [24, 48, 96]})
    steps: int = 20_000
    batch: int = 1
    patch: tuple[int, int, int] = (48, 48, 48)
    sigma: tuple[float, float] = (0.002, 0.3)
    measured: float = 0.6
    rate: float = 1e-3
    seed: int = 0
    average: float = 0.995


class Patches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clean patch, noisy patch, noise level: the n-th is always the same, whoever draws it and when."""

    def __init__(self, anatomies: Anatomies, recipe: Recipe) -> None:
        self.anatomies = anatomies
        self.recipe = recipe
        self.degradation = Degradation(sigma=recipe.sigma, measured=recipe.measured)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + index)
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
    report: Report | None = None,
) -> Path:
    """Train a denoising network and write its weights; continues where an earlier run stopped.

    Parameters
    ----------
    data : sequence of path
        Volumes and label maps, NIfTI.
    out : path
        Weights, .safetensors. The state to resume from lies beside it (.ckpt), the logs too.
    recipe : Recipe, optional
    start_from : Network, optional
        Weights to begin with, of the recipe's architecture.
    device, devices
        "auto", "cpu", "cuda"; how many of them (Lightning Fabric runs them in parallel).
    bfloat16 : bool, optional
        Run the convolutions in bfloat16; by default where the hardware has matrix units for it.
    workers : int
        Processes that draw patches; 0 draws them between the steps.
    log : {"csv", "tensorboard", None}
    save_every : int
        Steps between checkpoints.
    report : callable, optional
        Called with (step, steps, metrics).

    Raises
    ------
    InvsrError
        When the data cannot be used, a package is missing or a checkpoint belongs to another recipe.
    """
    try:
        import lightning_fabric as fabric_package
    except ImportError:
        raise InvsrError('training needs Lightning Fabric: pip install "invsr[train]"') from None
    recipe = recipe or Recipe()
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    anatomies = Anatomies(data)
    fabric = fabric_package.Fabric(
        accelerator=device,
        devices=devices,
        loggers=_logger(fabric_package, log, out),
    )
    fabric.launch()
    # Fabric's own bf16-mixed also rounds the images; the networks keep those in float32.
    coarse = bfloat16_is_fast(fabric.device) if bfloat16 is None else bfloat16
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.config)
    if start_from is not None:
        network.load_state_dict(start_from.state_dict())
    layout = torch.channels_last if network.dim == 2 else torch.channels_last_3d
    network = network.to(memory_format=layout)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average)
    ).to(fabric.device)
    model, optimiser = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))

    checkpoint = out.with_suffix(".ckpt")
    state: dict[str, Any] = {
        "model": model, "average": average, "optimiser": optimiser, "schedule": schedule,
        "step": 0, "recipe": json.dumps(asdict(recipe)),
    }  # fmt: skip
    if checkpoint.exists():
        wanted = state["recipe"]
        fabric.load(checkpoint, state)
        if state["recipe"] != wanted:
            raise InvsrError(f"{checkpoint}: belongs to another recipe: delete it or write to another file")
    first = int(state["step"])
    order = range(first * recipe.batch, recipe.steps * recipe.batch)
    loader = fabric.setup_dataloaders(
        DataLoader(Patches(anatomies, recipe), recipe.batch, sampler=order, num_workers=workers, drop_last=True)
    )
    running: dict[str, float] = {}
    for step, (clean, noisy, sigma) in enumerate(loader, start=first + 1):
        clean, noisy = _as_images(clean, network), _as_images(noisy, network)
        sigma = sigma.repeat_interleave(len(noisy) // len(sigma))
        noisy = noisy.contiguous(memory_format=layout)
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=coarse):
            estimate = model(noisy, sigma)
        target = clean[:, network.neighbours : network.neighbours + 1]
        error = (estimate.float() - target).square().flatten(1).mean(1)
        # Relative to the error that came in: small errors count, but the smallest do not drown the rest.
        before = (noisy[:, network.neighbours : network.neighbours + 1] - target).square().flatten(1).mean(1)
        loss = (error.sqrt() / (before.sqrt() + FLOOR)).mean()
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimiser, max_norm=1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        gain = float((10 * torch.log10((before + 1e-12) / (error.detach() + 1e-12))).mean())
        running["gain"] = gain if not running else 0.99 * running["gain"] + 0.01 * gain
        entry = {"loss": float(loss.detach()), "gain_db": running["gain"], "rate": schedule.get_last_lr()[0]}
        if step % 50 == 0:
            fabric.log_dict(entry, step=step)
        if report is not None:
            report(step, recipe.steps, entry)
        if step % save_every == 0 or step == recipe.steps:
            state["step"] = step
            fabric.save(checkpoint, state)
            if fabric.is_global_zero:
                _write(average.module, recipe, out, step, anatomies)
    return out


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(200, max(1, steps // 10)))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def _as_images(patch: Tensor, network: Network) -> Tensor:
    """(batch, 1, i, j, k) as what the network takes: volumes, or overlapping slabs of slices across the first axis."""
    if network.dim == 3:
        return patch
    slabs = patch.unfold(2, 1 + 2 * network.neighbours, 1)  # (batch, 1, slab, j, k, slice)
    return slabs.movedim(-1, 3).flatten(0, 2)


def _logger(fabric_package: Any, log: str | None, out: Path) -> Any:
    if log is None:
        return None
    if log == "csv":
        return fabric_package.loggers.CSVLogger(out.parent, name=out.stem + "_log", version="")
    if log == "tensorboard":
        try:
            return fabric_package.loggers.TensorBoardLogger(out.parent, name=out.stem + "_log")
        except ModuleNotFoundError:
            raise InvsrError("log tensorboard: TensorBoard is not installed: pip install tensorboard") from None
    raise InvsrError(f"log {log!r}: use csv or tensorboard")


def _write(network: Network, recipe: Recipe, out: Path, step: int, anatomies: Anatomies) -> None:
    sources = f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes"
    save_weights(
        network,
        out,
        {"sigma": list(recipe.sigma), "steps": step, "recipe": asdict(recipe), "data": sources,
         "multiply_adds": round(multiply_adds(network))},
    )  # fmt: skip
