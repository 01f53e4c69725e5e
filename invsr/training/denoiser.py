"""Training a denoiser: random anatomy, random errors; the goal is what it leaves of them, as a share."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from invsr.errors import InvsrError
from invsr.priors.denoiser import bfloat16_is_fast
from invsr.priors.networks import GradientStep, Network, build, multiply_adds
from invsr.priors.pretrained import save_weights
from invsr.progress import Report
from invsr.training.degradation import Degradation
from invsr.training.loss import relative_error, square_error
from invsr.training.muon import Muon
from invsr.training.recipe import Recipe
from invsr.training.synthesis import Anatomies
from invsr.volume import check_writable

__all__ = ["Patches", "Recipe", "train_denoiser"]

# Steps between lines of the log.
LOG_EVERY = 50
ENDING = ".safetensors"


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
        Weights, .safetensors. The state to resume from lies beside it (.ckpt), the logs too (a folder, _log).
    recipe : Recipe, optional
    start_from : Network, optional
        Weights to begin with, of the recipe's architecture.
    device, devices
        "auto", "cpu", "cuda"; how many of them (Lightning Fabric runs them in parallel, each on its share of a batch).
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
        When the data cannot be used, the patch does not suit the network, a package is missing, the output cannot
        be written, or a checkpoint belongs to another recipe.
    """
    recipe, out = recipe or Recipe(), Path(out)
    for name, value, least in (("devices", devices, 1), ("workers", workers, 0), ("save_every", save_every, 1)):
        if value < least:
            raise InvsrError(f"{name} is {value}: use at least {least}")
    check_writable(out, (ENDING,))
    network = _network(recipe, start_from)
    fabric = _fabric(device, devices, log, out)
    if recipe.batch % devices:
        raise InvsrError(f"batch is {recipe.batch}: {devices} devices cannot share it evenly: use a multiple")
    anatomies = Anatomies(data)
    fabric.launch()
    about = {
        "sigma": list(recipe.sigma), "recipe": asdict(recipe), "multiply_adds": round(multiply_adds(network)),
        "data": f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes",
    }  # fmt: skip
    # Fabric's own bf16-mixed also rounds the images; the networks keep those in float32.
    coarse = bfloat16_is_fast(fabric.device) if bfloat16 is None else bfloat16
    network = network.to(memory_format=_layout(network))
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_running_mean(recipe.average)).to(fabric.device)
    averaged: Any = average.module
    model, optimiser = fabric.setup(network, Muon(network.parameters(), lr=recipe.rate))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))

    state: dict[str, Any] = {
        "model": model, "average": average, "optimiser": optimiser, "schedule": schedule,
        "step": 0, "recipe": json.dumps(asdict(recipe)),
    }  # fmt: skip
    _resume(fabric, checkpoint_of(out), state)
    first = int(state["step"])

    def save() -> None:
        # Weights first: a run cut off in between redoes some steps, and never ends with old weights.
        if fabric.is_global_zero:
            save_weights(averaged, out, {**about, "steps": state["step"]})
        try:
            fabric.save(checkpoint_of(out), state)
        except OSError as error:
            raise InvsrError(f"{checkpoint_of(out)}: cannot be written ({error.strerror or error})") from None
        if fabric.loggers:
            fabric.logger.save()

    if first == recipe.steps and not out.exists():
        save()
    loader = _loader(fabric, Patches(anatomies, recipe), first, workers)
    gain = math.nan
    for step, patches in enumerate(loader, start=first + 1):
        estimate, noisy, clean = _denoised(model, network, patches, coarse)
        loss = relative_error(estimate, noisy, clean)
        entry = {"loss": float(loss.detach())}
        if not math.isfinite(entry["loss"]):
            raise InvsrError(f"step {step}: the loss is no longer a number: use a lower rate than {recipe.rate:g}")
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimiser, max_norm=1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        now = _gain_db(estimate.detach(), noisy, clean)
        gain = now if math.isnan(gain) else 0.99 * gain + 0.01 * now
        entry |= {"gain_db": gain, "rate": float(schedule.get_last_lr()[0])}
        if step % LOG_EVERY == 0 or step == recipe.steps:
            fabric.log_dict(entry, step=step)
        if report is not None and fabric.is_global_zero:
            report(step, recipe.steps, entry)
        if step % save_every == 0 or step == recipe.steps:
            state["step"] = step
            save()
    return out


def checkpoint_of(out: Path) -> Path:
    """Where the state lies that a run with the weights file `out` resumes from."""
    return out.with_suffix(".ckpt")


def _network(recipe: Recipe, start_from: Network | None) -> Network:
    """The network to train, with its first weights; checked against the patches it will get."""
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


def _fabric(device: str, devices: int, log: str | None, out: Path) -> Any:
    try:
        import lightning_fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        raise InvsrError('training needs Lightning Fabric: pip install "invsr[train]"') from None
    logger = _logger(lightning_fabric, log, out)
    try:
        return lightning_fabric.Fabric(accelerator=device, devices=devices, loggers=logger)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = str(error).splitlines()[0]
        raise InvsrError(f"{devices} of device {device!r} cannot be used ({reason}): try --device cpu") from None


def _resume(fabric: Any, checkpoint: Path, state: dict[str, Any]) -> None:
    """Put everything back as it was when `checkpoint` was written; does nothing where there is none."""
    if not checkpoint.exists():
        return
    try:
        # The recipe first: other networks' weights would not fit.
        found = json.loads(torch.load(checkpoint, map_location="cpu", weights_only=True)["recipe"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        raise InvsrError(f"{checkpoint}: is not the state of a training run, or damaged: delete it") from None
    wanted = json.loads(state["recipe"])
    if found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        differ = ", ".join(f"{name} {found.get(name)}, not {wanted[name]}" for name in names)
        raise InvsrError(f"{checkpoint}: belongs to another recipe ({differ}): delete it or write to another file")
    fabric.load(checkpoint, state)


def _loader(fabric: Any, patches: Patches, first: int, workers: int) -> Any:
    """The batches after step `first`, each shared out among the processes."""
    batch, parts = patches.recipe.batch, fabric.world_size
    order = range(first * batch + fabric.global_rank, len(patches), parts)
    loader = DataLoader(patches, batch // parts, sampler=order, num_workers=workers)
    # Fabric's own sampler would shuffle: a resumed run would then see other patches.
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _denoised(model: Any, network: Network, patches: Sequence[Tensor], coarse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Images after denoising, before, and without noise."""
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


def _running_mean(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(means: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        # Over a tenth of the run at first: the random weights of the start are not to be remembered.
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, weight in zip(means, weights, strict=True):
            mean.lerp_(weight, 1 - now)

    return update


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
        return fabric_package.loggers.CSVLogger(out.parent, name=out.stem + "_log")
    if log == "tensorboard":
        try:
            return fabric_package.loggers.TensorBoardLogger(out.parent, name=out.stem + "_log")
        except ModuleNotFoundError:
            raise InvsrError("log tensorboard: TensorBoard is not installed: pip install tensorboard") from None
    raise InvsrError(f"log {log!r}: use csv or tensorboard")
