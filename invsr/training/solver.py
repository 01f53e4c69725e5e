"""Training a whole solver end to end: random anatomy, random acquisitions, one set of weights for all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from invsr.errors import InvsrError
from invsr.models.architectures import build, multiply_adds
from invsr.models.networks import Network
from invsr.numerics.iteration import ProgressCallback
from invsr.solvers.equilibrium import Equilibrium
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.trained import DEQ, equilibrium_of, save_solver, unrolled_of
from invsr.solvers.unrolled import Unrolled
from invsr.training.acquisitions import Acquisitions, Protocol
from invsr.training.denoising_loss import square_error
from invsr.training.loop import Objective, check, fabric_for, train
from invsr.training.losses import combined
from invsr.training.measurements import Scans, objective_without_truth
from invsr.training.recipe import SolverRecipe
from invsr.training.synthesis import Anatomies

# Weight of an equilibrium's expansion beyond what the recipe allows, beside a loss of about 1.
EXPANSION = 1.0


class Measured(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Patch, its noisy slices, number of the step: all patches of a step are measured by the same protocol."""

    def __init__(self, anatomies: Anatomies, recipe: SolverRecipe) -> None:
        self.anatomies = anatomies
        self.recipe = recipe
        self.acquisitions = Acquisitions(recipe.thickness, recipe.gap, recipe.noise)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def protocol(self, step: int) -> Protocol:
        """The protocol of a step, slices across a random axis of its patches."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + 500_009 + step)
        sides = sorted(self.recipe.patch)
        sides.insert(int(torch.randint(3, (), generator=generator)), sides.pop())
        return self.acquisitions.draw(sides, generator)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        step = index // self.recipe.batch
        protocol = self.protocol(step)
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + index)
        clean = self.anatomies.patch(protocol.shape, generator)
        y = protocol.operator()(clean[None])[0]
        return clean, y + protocol.noise * torch.randn(y.shape, generator=generator), torch.tensor(step)


def train_solver(
    data: Sequence[str | Path],
    out: str | Path,
    recipe: SolverRecipe | None = None,
    *,
    start_from: Network | Unrolled | Equilibrium | None = None,
    device: str = "auto",
    devices: int = 1,
    workers: int = 0,
    log: str | None = "csv",
    save_every: int = 250,
    report: ProgressCallback | None = None,
) -> Path:
    """Train an unrolled or an equilibrium solver and write its weights; continues where an earlier run stopped.

    Parameters
    ----------
    data : sequence of path
        Volumes and label maps, NIfTI; thick-slice scans for a recipe with supervision "measurements".
    out : path
        Weights, .safetensors. The state to resume from lies beside it (.ckpt), the logs too (a folder, _log).
    recipe : SolverRecipe, optional
    start_from : Network, Unrolled or Equilibrium, optional
        What to begin with: a denoising network, or a trained solver of as many steps, or one of the other kind for its
        network; by default random weights.
    device, devices, workers, log, save_every, report
        As for `train_denoiser`.

    Raises
    ------
    InvsrError
        As `train_denoiser`.
    """
    recipe, out = recipe or SolverRecipe(), Path(out)
    check(out, recipe, devices=devices, workers=workers, save_every=save_every)
    networks = _networks(recipe, network_of(start_from))
    solver: Unrolled | Equilibrium
    if recipe.kind == DEQ:
        solver = equilibrium_of(networks[0], recipe.step, recipe.n_steps)
    else:
        solver = unrolled_of(networks, recipe.step, recipe.n_steps, recipe.save_memory)
    if type(start_from) is type(solver):
        _take_over(solver, start_from)
    fabric = fabric_for(out, device, devices, log)
    patches: Measured | Scans
    if recipe.supervision == "truth":
        anatomies = Anatomies(data)
        patches = Measured(anatomies, recipe)
        objective = _objective(patches, recipe)
        seen = {"thickness": list(recipe.thickness), "gap": recipe.gap, "noise": list(recipe.noise)}
        described = f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes"
    else:
        patches = Scans(data, recipe)
        objective = objective_without_truth(patches)
        seen, described = patches.ranges(), f"{len(patches.scans)} thick-slice scans"
    about = {
        "recipe": asdict(recipe), **seen, "sigma": seen["noise"], "data": described,
        "multiply_adds": round(recipe.n_steps * multiply_adds(networks[0])),
    }  # fmt: skip

    def write(averaged: Any, step: int) -> None:
        save_solver(averaged, out, {**about, "steps": step})

    return train(
        fabric, solver, patches, objective, write, out, recipe, workers=workers, save_every=save_every, report=report,
        method="last_steps" if recipe.kind == DEQ else "forward",
    )  # fmt: skip


def _objective(patches: Measured, recipe: SolverRecipe) -> Objective:
    """What is left of the first guess's error, by the recipe's loss."""
    loss = combined(recipe.loss)

    def objective(model: Any, batch: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
        clean, y, step = batch
        protocol = patches.protocol(int(step[0]))
        operator = protocol.operator().to(y.device)
        guess = smooth_guess(operator, y)
        figures: dict[str, float] = {}
        penalty: Tensor | float = 0.0
        if recipe.kind == DEQ:
            draw = random.Random(int(step[0]))
            estimate, expansion = model.last_steps(
                operator, y, protocol.told, guess, n_before=draw.randrange(recipe.n_steps), search=draw.random() < 0.5
            )
            penalty = EXPANSION * (expansion - recipe.expansion).clamp(min=0)
            figures["expansion"] = float(expansion.detach())
        else:
            estimate = model(operator, y, protocol.told, guess)
        before = square_error(guess, clean)
        # Patches differ in how much there is to gain: each counts by the share of its error that is left.
        scale = before.sqrt().mean() + 1e-3
        value = loss(estimate, clean, operator, y, protocol.noise) / scale + penalty
        gained = 10 * torch.log10((before + 1e-12) / (square_error(estimate.detach(), clean) + 1e-12))
        return value, {"gain_db": float(gained.mean())} | figures

    return objective


def network_of(start: Network | Unrolled | Equilibrium | None) -> Network | None:
    """The network, the first one of several, in what a training run begins with."""
    if isinstance(start, Unrolled | Equilibrium):
        prior: Any = start.priors[0] if isinstance(start, Unrolled) else start.prior
        found: Network = prior.network
        return found
    return start


def _take_over(solver: Unrolled | Equilibrium, trained: Any) -> None:
    try:
        solver.load_state_dict(trained.state_dict())
    except RuntimeError:
        raise InvsrError(
            "the solver to start from has other steps or networks than the recipe: "
            "ask for as many, or start from a denoiser"
        ) from None


def _networks(recipe: SolverRecipe, start_from: Network | None) -> list[Network]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        alike = recipe.shared or recipe.kind == DEQ
        found = [build(recipe.architecture, recipe.config) for _ in range(1 if alike else recipe.n_steps)]
    if found[0].dim != 3:
        raise InvsrError("a solver is trained on volumes: use a network with dim 3")
    if start_from is not None:
        if type(start_from) is not type(found[0]) or start_from.config != found[0].config:
            raise InvsrError(
                f"the weights to start from belong to {type(start_from).__name__} {start_from.config}, "
                f"the recipe asks for {recipe.architecture} {found[0].config}"
            )
        for network in found:
            network.load_state_dict(start_from.state_dict())
    return found
