"""Training a network that tells how wrong a trained solver is: on the solver's own errors, where the truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.data import Dataset

from invsr.errors import InvsrError
from invsr.io.files import whole_file, write_whole
from invsr.models.architectures import multiply_adds
from invsr.models.deviation import DeviationNetwork
from invsr.models.weights import save_weights
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.trained import load_solver
from invsr.solvers.unrolled import Unrolled
from invsr.training.acquisitions import RandomAcquisition
from invsr.training.loop import TrainingCallback, check, fabric_for, sum_of_files, train
from invsr.training.random_draws import integer, seeded
from invsr.training.recipe import DeviationRecipe, SolverRecipe
from invsr.training.solver import SimulatedPatches
from invsr.training.synthesis import Anatomies
from invsr.uncertainty.predicted import INTERVALS, fingerprint, told

# Errors below this share of the peak count as if they were as large.
LEAST_ERROR = 1e-4
# Where the truth is dark over this many voxels it is air, which counts less.
AIR, AIR_WIDTH, AIR_WEIGHT = 0.05, 5, 0.1


class Errors(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """What the network is told of a patch, the solver's error in it, the truth, and the noise that was assumed."""

    def __init__(
        self, anatomies: Anatomies, solver: Unrolled, ranges: SolverRecipe, recipe: DeviationRecipe, room: Path
    ) -> None:
        self.patches = SimulatedPatches(anatomies, ranges)
        self.solver, self.recipe, self.room = solver, recipe, room

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        known, error, clean, sigma = self.drawn(index % self.recipe.draws)
        generator = seeded(self.recipe.seed, index)
        flips = [axis for axis in (1, 2, 3) if integer(generator, 2)]
        return known.flip(flips), error.flip(flips), clean.flip(flips), sigma

    def drawn(self, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The n-th patch, from the disk; it is reconstructed where it is not there."""
        from safetensors.torch import load_file, save

        path = self.room / f"{n}.safetensors"
        if not path.exists():
            names = ("known", "error", "clean", "sigma")
            halves = {name: one.half() for name, one in zip(names, self._reconstructed(n), strict=True)}
            with whole_file(path) as part:
                part.write_bytes(save({name: one.contiguous() for name, one in halves.items()}))
        kept = load_file(path)
        return kept["known"].float(), kept["error"].float(), kept["clean"].float(), kept["sigma"].float()

    def _reconstructed(self, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        acquisition = self.patches.acquisition(n)
        assert isinstance(acquisition, RandomAcquisition)  # by `_ranges`
        clean, data, _ = self.patches[n]
        operator = acquisition.operator()
        y: Any = tuple(part[None] for part in data) if isinstance(data, tuple) else data[None]
        with torch.no_grad():
            x = self.solver(operator, y, acquisition.assumed_sigma, smooth_guess(operator, y))
            known = told(operator, x)
        return known[0], (x - clean).abs()[0], clean, torch.tensor(acquisition.assumed_sigma)


def train_deviation(
    data: Sequence[str | Path],
    out: str | Path,
    recipe: DeviationRecipe | None = None,
    *,
    start_from: DeviationNetwork | None = None,
    device: str = "auto",
    devices: int = 1,
    workers: int = 0,
    log: str | None = "csv",
    save_every: int = 250,
    report: TrainingCallback | None = None,
) -> Path:
    """Train a network on a solver's errors and write its weights; resumes an earlier run.

    Parameters
    ----------
    data : sequence of path
        Volumes and label maps, NIfTI.
    out : path
        Weights file, .safetensors. Beside it are the checkpoint (.ckpt), the logs (folder _log) and the patches that
        the solver has reconstructed (folder _draws).
    recipe : DeviationRecipe, optional
    start_from : DeviationNetwork, optional
        Initial weights; by default random ones.
    device, devices, workers, log, save_every, report
        As for `train_denoiser`.

    Raises
    ------
    InvsrError
        As `train_denoiser`, and when the solver is not of thick slices.
    """
    recipe, out = recipe or DeviationRecipe(), Path(out)
    check(out, recipe, devices=devices, workers=workers, save_every=save_every)
    solver, about = load_solver(recipe.solver)
    assert isinstance(solver, Unrolled)  # for the type checker
    ranges = _ranges(about, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = DeviationNetwork(recipe.channels)
    if start_from is not None:
        network.load_state_dict(start_from.state_dict())
    fabric = fabric_for(out, device, devices, log)
    anatomies = Anatomies(data)
    errors = Errors(anatomies, solver, ranges, recipe, _room(out, recipe, data))
    described = {
        "recipe": asdict(recipe),
        "solver": recipe.solver,
        "solver_sha256": fingerprint(recipe.solver),
        "sigma": list(ranges.noise),
        "data": f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes",
        "multiply_adds": round(multiply_adds(network)),
    }

    def write(averaged: Any, step: int) -> None:
        save_weights(averaged, out, {**described, "steps": step})

    network.to(memory_format=torch.channels_last_3d)
    return train(
        fabric,
        network,
        errors,
        objective,
        write,
        out,
        recipe,
        data=data,
        workers=workers,
        save_every=save_every,
        log=log,
        report=report,
    )


def objective(model: Any, batch: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch of errors, and the shares of them within the intervals, which are to be `INTERVALS`.

    The pinball loss of quantiles, of logarithms: a quantile of the logarithm is the logarithm of the quantile, and
    small errors count as much as large ones (Koenker & Bassett 1978, Econometrica 46, 33-50).
    """
    known, error, clean, sigma = batch
    deviation = model(known, sigma)
    bright = F.avg_pool3d(clean, AIR_WIDTH, 1, AIR_WIDTH // 2, count_include_pad=False) > AIR
    weight = torch.where(bright, 1.0, AIR_WEIGHT)
    losses, figures = [], {}
    for share, width in INTERVALS.items():
        beyond = (error + LEAST_ERROR).log() - (width * deviation + LEAST_ERROR).log()
        losses.append((weight * torch.maximum(share * beyond, (share - 1) * beyond)).sum() / weight.sum())
        figures[f"within {share:.0%}"] = float((beyond[bright] < 0).float().mean()) if bool(bright.any()) else share
    return torch.stack(losses).sum(), figures


def _ranges(about: dict[str, Any], recipe: DeviationRecipe) -> SolverRecipe:
    """The acquisitions that a solver was trained on, in patches of this recipe, one acquisition each."""
    if about.get("kspace") or about.get("contrasts", 1) > 1 or "thickness" not in about:
        raise InvsrError(f"{recipe.solver}: was trained on other data than thick slices of one contrast")
    names = {name: about[name] for name in ("thin", "stacks", "oblique") if name in about}
    return SolverRecipe(
        steps=recipe.draws,
        batch=1,
        patch=(recipe.side,) * 3,
        thickness=tuple(about["thickness"]),
        gap=about["gap"],
        noise=tuple(about["noise"]),
        seed=recipe.seed,
        **names,
    )


def _room(out: Path, recipe: DeviationRecipe, data: Sequence[str | Path]) -> Path:
    """The folder of the patches that were reconstructed: by these weights, of these volumes."""
    room = out.with_name(out.stem + "_draws")
    wanted = {"solver_sha256": fingerprint(recipe.solver), "side": recipe.side, "seed": recipe.seed}
    wanted["data"] = sum_of_files(data)
    note = room / "recipe.json"
    try:
        room.mkdir(exist_ok=True)
        if not note.exists():
            write_whole(note, json.dumps(wanted))
        if json.loads(note.read_text()) != wanted:
            raise InvsrError(
                f"{room}: its patches belong to another solver, recipe or data: delete it or write to another file"
            )
    except (OSError, ValueError) as error:
        raise InvsrError(f"{room}: cannot be used as a folder of patches ({error}): delete it") from error
    return room
