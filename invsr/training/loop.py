"""The training loop of all networks: resumable, logged, on one device or several."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invsr.errors import InvsrError
from invsr.io.bounds import parse_json
from invsr.io.files import check_writable, sha256, whole_file, write_whole
from invsr.models.weights import DAMAGES
from invsr.training.muon import Muon

# Steps between lines of the log.
LOG_EVERY = 50
WEIGHTS_ENDING = ".safetensors"
# What a run begins with besides its recipe, in words for a checkpoint that began with another one.
ORIGINS = {"files": "other training files", "start": "other initial weights"}
# Called with (step, steps, figures).
TrainingCallback = Callable[[int, int, dict[str, float]], None]
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


def log_of(out: Path) -> Path:
    """The folder of the logs of a run with the weights file `out`."""
    return out.with_name(out.stem + "_log")


def check(out: Path, recipe: LoopRecipe, *, devices: int, workers: int, save_every: int) -> None:
    """Raise, before any work, when the options do not fit each other or the output cannot be written."""
    for name, value, least in (("devices", devices, 1), ("workers", workers, 0), ("save_every", save_every, 1)):
        if value < least:
            raise InvsrError(f"{name} is {value}: use at least {least}")
    check_writable(out, (WEIGHTS_ENDING,))
    if recipe.batch % devices:
        raise InvsrError(f"batch is {recipe.batch}: {devices} devices cannot share it evenly: use a multiple")


def fabric_for(out: Path, device: str, devices: int, log: str | None) -> Any:
    """Lightning Fabric, launched on the given devices, with its logger; the table of ``log="csv"`` is `train`'s."""
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
    data: Sequence[str | Path],
    workers: int = 0,
    save_every: int = 500,
    log: str | None = None,
    report: TrainingCallback | None = None,
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
    data : sequence of path
        The files that the patches come from: a run resumes on the same ones, wherever they lie now.
    workers, save_every, log, report
        As for `train_denoiser`.
    method : str
        Name of the method of the network that `objective` calls.

    Raises
    ------
    InvsrError
        When the loss is not finite, or a checkpoint belongs to another recipe, other files or initial weights, or
        cannot be written.
    """
    origins = {"files": sum_of_files(data), "start": _sum_of_weights(network)}
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
        "means": {},
        "log": [],
        "recipe": json.dumps(asdict(plain) | origins),
    }
    table = log_of(out) / "metrics.csv" if log == "csv" else None
    _resume(fabric, checkpoint_of(out), state)
    first = int(state["step"])
    if first == recipe.steps and not (out.exists() and (table is None or table.exists())):
        _save(fabric, write, out, state, table)
    for step, batch in enumerate(_loader(fabric, patches, recipe, first, workers), start=first + 1):
        loss, figures = objective(model, batch)
        entry = {"loss": float(loss.detach())}
        if not math.isfinite(entry["loss"]):
            raise InvsrError(f"step {step}: the loss is not a finite number: use a lower rate than {recipe.rate:g}")
        optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(model, optimiser, max_norm=1.0)
        optimiser.step()
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        average.update_parameters(network)
        state["means"] = {name: 0.99 * state["means"].get(name, now) + 0.01 * now for name, now in figures.items()}
        entry |= state["means"] | {"rate": rate}
        if step % LOG_EVERY == 0 or step == recipe.steps:
            state["log"].append({"step": step} | entry)
            fabric.log_dict(entry, step=step)
        if report is not None and fabric.is_global_zero:
            report(step, recipe.steps, entry)
        if step % save_every == 0 or step == recipe.steps:
            state["step"] = step
            _save(fabric, write, out, state, table)
    return out


def _save(fabric: Any, write: Callable[[Any, int], None], out: Path, state: dict[str, Any], table: Path | None) -> None:
    """Write the averaged weights, the state to resume from and the table of the log."""
    # The checkpoint last: a run interrupted in between repeats some steps, and never keeps old weights or an old log.
    if fabric.is_global_zero:
        write(state["average"].module, state["step"])
        if table is not None and state["log"]:
            _write_table(table, state["log"])
    save_checkpoint(fabric, checkpoint_of(out), state)
    if fabric.loggers:
        fabric.logger.save()


def _write_table(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write the whole log: a resumed run has it from its checkpoint, without lines doubled or lost."""
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InvsrError(f"{path.parent}: cannot be made a folder ({error.strerror}): or use --log none") from error
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue())


def save_checkpoint(fabric: Any, path: Path, state: dict[str, Any]) -> None:
    """Write the state of a training run, whole or not at all.

    Raises
    ------
    InvsrError
        As `whole_file`.
    """
    # Not by `fabric.save`: it writes into the system's folder for temporary files first, which may be full or stay so.
    if fabric.is_global_zero:
        plain = {name: one.state_dict() if hasattr(one, "state_dict") else one for name, one in state.items()}
        memory = io.BytesIO()
        torch.save(plain, memory)
        with whole_file(path) as part:
            part.write_bytes(memory.getbuffer())
    fabric.barrier()


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
    wanted = json.loads(state["recipe"])
    try:
        with zipfile.ZipFile(checkpoint) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                raise ValueError("compressed, which torch does not write: its size is unknown")
        # The recipe first: other networks' weights would not fit.
        found = dict(parse_json(torch.load(checkpoint, map_location="cpu", weights_only=True)["recipe"]))
        # Earlier versions did not keep the origins.
        found = {name: value for name, value in wanted.items() if name in ORIGINS} | found
        if found == wanted:
            fabric.load(checkpoint, state, weights_only=True)
    except DAMAGES:
        raise InvsrError(f"{checkpoint}: is not the state of a training run, or damaged: delete it") from None
    if found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        differ = ", ".join(ORIGINS.get(name, f"{name} {found.get(name)}, not {wanted[name]}") for name in names)
        raise InvsrError(f"{checkpoint}: belongs to another run ({differ}): delete it or write to another file")


def sum_of_files(paths: Sequence[str | Path]) -> str:
    """A checksum of the contents of files, in their order."""
    found = hashlib.sha256()
    for path in paths:
        found.update(bytes.fromhex(sha256(path)))
    return found.hexdigest()


def _sum_of_weights(network: nn.Module) -> str:
    """A checksum of the parameters and buffers of a network."""
    found = hashlib.sha256()
    for value in network.state_dict().values():
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


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
    if log in (None, "csv"):
        return None
    if log == "tensorboard":
        try:
            return fabric_package.loggers.TensorBoardLogger(out.parent, name=log_of(out).name)
        except ModuleNotFoundError:
            raise InvsrError("log tensorboard: TensorBoard is not installed: pip install tensorboard") from None
    raise InvsrError(f"log {log!r}: use csv or tensorboard")
