"""The training loop of all networks: resumable, logged, on one device or several."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invsr.errors import InvsrError
from invsr.io.files import check_writable, whole_file
from invsr.numerics.iteration import ProgressCallback
from invsr.training.muon import Muon

# Steps between lines of the log.
LOG_EVERY = 50
WEIGHTS_ENDING = ".safetensors"
Objective = Callable[[Any, Sequence[Tensor]], tuple[Tensor, dict[str, float]]]


class LoopRecipe(Protocol):
    """The fields of a recipe that the loop reads; a recipe is a dataclass of plain numbers."""

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def average(self) -> float: ...


def checkpoint_of(out: Path) -> Path:
    """The checkpoint from which a run with the weights file `out` resumes."""
    return out.with_suffix(".ckpt")


def check(out: Path, recipe: LoopRecipe, *, devices: int, workers: int, save_every: int) -> None:
    """Raise, before any work, when the options do not fit each other or the output cannot be written."""
    for name, value, least in (("devices", devices, 1), ("workers", workers, 0), ("save_every", save_every, 1)):
        if value < least:
            raise InvsrError(f"{name} is {value}: use at least {least}")
    check_writable(out, (WEIGHTS_ENDING,))
    if recipe.batch % devices:
        raise InvsrError(f"batch is {recipe.batch}: {devices} devices cannot share it evenly: use a multiple")


def fabric_for(out: Path, device: str, devices: int, log: str | None) -> Any:
    """Lightning Fabric, launched on the given devices, with its logger."""
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
    recipe: LoopRecipe,
    *,
    workers: int = 0,
    save_every: int = 500,
    report: ProgressCallback | None = None,
    method: str = "forward",
) -> Path:
    """Train a network and write the running mean of its weights; resumes an earlier run.

    Parameters
    ----------
    fabric
        What `fabric_for` returned.
    network : nn.Module
    patches : Dataset
        ``recipe.steps * recipe.batch`` samples; sample n is the same in every run.
    objective : callable
        ``objective(model, batch)`` returns the loss, and figures whose running means are logged.
    write : callable
        ``write(network, step)`` writes the weights file `out`.
    out : Path
    recipe : LoopRecipe
    workers, save_every, report
        As for `train_denoiser`.
    method : str
        Name of the method of the network that `objective` calls.

    Raises
    ------
    InvsrError
        When the loss is not finite, or a checkpoint belongs to another recipe or cannot be written.
    """
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=_running_mean(recipe.average)).to(fabric.device)
    model, optimiser = fabric.setup(network, Muon(network.parameters(), lr=recipe.rate))
    if method != "forward":
        model.mark_forward_method(method)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    plain: Any = recipe
    state: dict[str, Any] = {
        "model": model,
        "average": average,
        "optimiser": optimiser,
        "schedule": schedule,
        "step": 0,
        "recipe": json.dumps(asdict(plain)),
    }
    _resume(fabric, checkpoint_of(out), state)
    first = int(state["step"])
    if first == recipe.steps and not out.exists():
        _save(fabric, write, out, state)
    means: dict[str, float] = {}
    for step, batch in enumerate(_loader(fabric, patches, recipe, first, workers), start=first + 1):
        loss, figures = objective(model, batch)
        entry = {"loss": float(loss.detach())}
        if not math.isfinite(entry["loss"]):
            raise InvsrError(f"step {step}: the loss is not a finite number: use a lower rate than {recipe.rate:g}")
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
            _save(fabric, write, out, state)
    return out


def _save(fabric: Any, write: Callable[[Any, int], None], out: Path, state: dict[str, Any]) -> None:
    """Write the averaged weights and the state to resume from."""
    # Weights first: a run interrupted in between repeats some steps, and never ends with old weights.
    if fabric.is_global_zero:
        write(state["average"].module, state["step"])
    save_checkpoint(fabric, checkpoint_of(out), state)
    if fabric.loggers:
        fabric.logger.save()


def save_checkpoint(fabric: Any, path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training run, whole or not at all.

    Raises
    ------
    InvsrError
        As `whole_file`.
    """
    # Every process takes part in saving; only the first writes the file.
    with whole_file(path) if fabric.is_global_zero else nullcontext(path) as part:
        fabric.save(part, state)


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
    """Restore the state from `checkpoint`, if there is one."""
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


def _loader(fabric: Any, patches: Any, recipe: LoopRecipe, first: int, workers: int) -> Any:
    """The batches after step `first`, each divided among the processes."""
    batch, parts = recipe.batch, fabric.world_size
    order = range(first * batch + fabric.global_rank, len(patches), parts)
    loader = DataLoader(patches, batch // parts, sampler=order, num_workers=workers)
    # Fabric's own sampler shuffles: a resumed run would then see other patches.
    return fabric.setup_dataloaders(loader, use_distributed_sampler=False)


def _running_mean(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(means: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        # Over a tenth of the run at first, so that the mean forgets the initial random weights.
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
