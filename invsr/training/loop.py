"""The training loop that every network goes through: resumable, logged, on one device or several."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invsr.errors import InvsrError
from invsr.io.files import check_writable
from invsr.numerics.iteration import ProgressCallback
from invsr.training.muon import Muon

# Steps between lines of the log.
LOG_EVERY = 50
ENDING = ".safetensors"
Objective = Callable[[Any, Sequence[Tensor]], tuple[Tensor, dict[str, float]]]


class Plan(Protocol):
    """What the loop reads of a recipe; a recipe is a dataclass of plain numbers."""

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def average(self) -> float: ...


def checkpoint_of(out: Path) -> Path:
    """Where the state lies that a run with the weights file `out` resumes from."""
    return out.with_suffix(".ckpt")


def check(out: Path, recipe: Plan, *, devices: int, workers: int, save_every: int) -> None:
    """Raise before any work where a run could not go on or its output not be written."""
    for name, value, least in (("devices", devices, 1), ("workers", workers, 0), ("save_every", save_every, 1)):
        if value < least:
            raise InvsrError(f"{name} is {value}: use at least {least}")
    check_writable(out, (ENDING,))
    if recipe.batch % devices:
        raise InvsrError(f"batch is {recipe.batch}: {devices} devices cannot share it evenly: use a multiple")


def fabric_for(out: Path, device: str, devices: int, log: str | None) -> Any:
    """Lightning Fabric on the devices asked for, with its logger, launched."""
    fabric = _fabric(device, devices, log, out)
    fabric.launch()
    return fabric


def train(
    fabric: Any,
    network: nn.Module,
    patches: Dataset[Any],
    objective: Objective,
    write: Callable[[Any, int], None],
    out: Path,
    recipe: Plan,
    *,
    workers: int = 0,
    save_every: int = 500,
    report: ProgressCallback | None = None,
    method: str = "forward",
) -> Path:
    """Train a network and write the running mean of its weights; continues where an earlier run stopped.

    Parameters
    ----------
    fabric
        Of `fabric_for`.
    network : nn.Module
    patches : Dataset
        Of ``recipe.steps * recipe.batch`` samples, the n-th always the same.
    objective : callable
        ``objective(model, batch)``: the loss, and figures for the log, of which running means are kept.
    write : callable
        ``write(network, step)`` writes the weights file `out`.
    out : Path
    recipe : Plan
    workers, save_every, report
        As for `train_denoiser`.
    method : str
        Of the network, that `objective` calls.

    Raises
    ------
    InvsrError
        When the loss is no longer a number, or a checkpoint belongs to another recipe or cannot be written.
    """
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_running_mean(recipe.average)).to(fabric.device)
    averaged: Any = average.module
    model, optimiser = fabric.setup(network, Muon(network.parameters(), lr=recipe.rate))
    if method != "forward":
        model.mark_forward_method(method)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    plain: Any = recipe
    state: dict[str, Any] = {
        "model": model, "average": average, "optimiser": optimiser, "schedule": schedule,
        "step": 0, "recipe": json.dumps(asdict(plain)),
    }  # fmt: skip
    _resume(fabric, checkpoint_of(out), state)
    first = int(state["step"])

    def save() -> None:
        # Weights first: a run cut off in between redoes some steps, and never ends with old weights.
        if fabric.is_global_zero:
            write(averaged, state["step"])
        try:
            fabric.save(checkpoint_of(out), state)
        except OSError as error:
            raise InvsrError(f"{checkpoint_of(out)}: cannot be written ({error.strerror or error})") from None
        if fabric.loggers:
            fabric.logger.save()

    if first == recipe.steps and not out.exists():
        save()
    means: dict[str, float] = {}
    for step, batch in enumerate(_loader(fabric, patches, recipe, first, workers), start=first + 1):
        loss, figures = objective(model, batch)
        entry = {"loss": float(loss.detach())}
        if not math.isfinite(entry["loss"]):
            raise InvsrError(f"step {step}: the loss is no longer a number: use a lower rate than {recipe.rate:g}")
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimiser, max_norm=1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        means = {name: 0.99 * means.get(name, now) + 0.01 * now for name, now in figures.items()}
        entry |= means | {"rate": float(schedule.get_last_lr()[0])}
        if step % LOG_EVERY == 0 or step == recipe.steps:
            fabric.log_dict(entry, step=step)
        if report is not None and fabric.is_global_zero:
            report(step, recipe.steps, entry)
        if step % save_every == 0 or step == recipe.steps:
            state["step"] = step
            save()
    return out


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


def _loader(fabric: Any, patches: Any, recipe: Plan, first: int, workers: int) -> Any:
    """The batches after step `first`, each shared out among the processes."""
    batch, parts = recipe.batch, fabric.world_size
    order = range(first * batch + fabric.global_rank, len(patches), parts)
    loader = DataLoader(patches, batch // parts, sampler=order, num_workers=workers)
    # Fabric's own sampler would shuffle: a resumed run would then see other patches.
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


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
