"""Training a solver end to end on random anatomy and random acquisitions; one set of weights serves them all."""

from __future__ import annotations

import math
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
from invsr.models.joint import JointUNet
from invsr.models.networks import Network, UNet
from invsr.operators.base import Data, LinearOperator
from invsr.operators.contrasts import Contrasts
from invsr.solvers.contrasts import joint_start
from invsr.solvers.equilibrium import Equilibrium
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.residuals import as_tuple
from invsr.solvers.trained import DEQ, TRAINABLE_STEPS, equilibrium_of, save_solver, unrolled_of
from invsr.solvers.unrolled import Unrolled
from invsr.solvers.weighting import log_share
from invsr.training.acquisitions import Acquisitions, RandomAcquisition, RandomContrasts
from invsr.training.denoising_loss import square_error
from invsr.training.kspace import RandomKSpace
from invsr.training.loop import Objective, TrainingCallback, check, fabric_for, train
from invsr.training.losses import Mix, combined
from invsr.training.measurements import ScanPatches, objective_without_truth
from invsr.training.random_draws import STEPS, integer, seeded, uniform
from invsr.training.recipe import SolverRecipe
from invsr.training.synthesis import Anatomies

# Weight of an equilibrium's expansion beyond the recipe's limit; the loss itself is about 1.
EXPANSION_WEIGHT = 1.0
# Factor of the prior's weight with which training on k-space begins: plug-and-play is best there.
HEAVIER = 2.0
# Factor of the first noise level of a solver for several contrasts.
NEARER = 0.5


class SimulatedPatches(Dataset[tuple[Tensor, Data, Tensor]]):
    """Patch, its noisy slices (of several scans a tuple), and number of the step; one step has one acquisition."""

    def __init__(self, anatomies: Anatomies, recipe: SolverRecipe) -> None:
        self.anatomies = anatomies
        self.recipe = recipe
        self.acquisitions = Acquisitions(
            recipe.thickness,
            recipe.gap,
            recipe.noise,
            thin=recipe.thin,
            stacks=recipe.stacks,
            oblique=recipe.oblique,
            kspace=recipe.kspace,
        )

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def acquisition(self, step: int) -> RandomAcquisition | RandomContrasts | RandomKSpace:
        """The acquisition of a step, its slices across a random axis of the patches."""
        generator = seeded(self.recipe.seed, step, STEPS)
        if self.recipe.contrasts > 1:
            # As many as there may be one time in two.
            fewer = 1 + integer(generator, self.recipe.contrasts)
            count = self.recipe.contrasts if uniform(generator) < 0.5 else fewer
            return self.acquisitions.draw_contrasts(count, self.recipe.patch, generator)
        sides = sorted(self.recipe.patch)
        sides.insert(integer(generator, 3), sides.pop())
        return self.acquisitions.draw(sides, generator)

    def __getitem__(self, index: int) -> tuple[Tensor, Data, Tensor]:
        step = index // self.recipe.batch
        acquisition, generator = self.acquisition(step), seeded(self.recipe.seed, index)
        contrasts = len(acquisition.members) if isinstance(acquisition, RandomContrasts) else 1
        clean = self.anatomies.patch(acquisition.shape, generator, contrasts)
        y = acquisition.measured(clean[None], generator)
        slices = tuple(part[0] for part in y) if isinstance(y, tuple) else y[0]
        return clean, slices, torch.tensor(step)


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
    report: TrainingCallback | None = None,
) -> Path:
    """Train an unrolled or an equilibrium solver and write its weights; resumes an earlier run.

    Parameters
    ----------
    data : sequence of path
        Volumes and label maps, NIfTI; thick-slice scans for a recipe with supervision "measurements".
    out : path
        Weights file, .safetensors. Beside it are the checkpoint to resume from (.ckpt) and the logs (folder _log).
    recipe : SolverRecipe, optional
    start_from : Network, Unrolled or Equilibrium, optional
        Initial weights: a denoising network; a trained solver with as many steps, whose one network may become one for
        each step; or a solver of the other kind, of which only the network is used. By default random weights.
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
    passes = recipe.n_steps
    if recipe.kind == DEQ:
        solver = equilibrium_of(networks[0], recipe.step, recipe.n_steps)
        passes += solver.n_ending
    else:
        solver = unrolled_of(networks, recipe.step, recipe.n_steps, recipe.save_memory)
    if type(start_from) is type(solver):
        _take_over(solver, start_from)
    elif recipe.kspace and isinstance(solver, Unrolled):
        with torch.no_grad():
            solver.weight.add_(math.log(HEAVIER))
    # Seven eighths of the time on the CPU for a network that works on blocks of voxels, the same for others.
    solver.to(memory_format=torch.channels_last_3d)
    fabric = fabric_for(out, device, devices, log)
    patches: SimulatedPatches | ScanPatches
    if recipe.supervision == "truth":
        anatomies = Anatomies(data)
        patches = SimulatedPatches(anatomies, recipe)
        objective = _objective(patches, recipe)
        seen = {
            **{"thickness": list(recipe.thickness), "gap": recipe.gap, "noise": list(recipe.noise)},
            **{"thin": recipe.thin, "stacks": recipe.stacks, "oblique": recipe.oblique},
            **({"contrasts": recipe.contrasts} if recipe.contrasts > 1 else {}),
            **({"kspace": recipe.kspace} if recipe.kspace else {}),
        }
        described = f"{len(anatomies.labels)} label maps, {len(anatomies.images)} volumes"
    else:
        patches = ScanPatches(data, recipe)
        objective = objective_without_truth(patches)
        seen, described = patches.ranges(), f"{len(patches.scans)} thick-slice scans"
    about = {
        "recipe": asdict(recipe),
        **seen,
        "sigma": seen["noise"],
        "data": described,
        "multiply_adds": round(passes * multiply_adds(networks[0])),
    }

    def write(averaged: Any, step: int) -> None:
        save_solver(averaged, out, {**about, "steps": step})

    return train(
        fabric,
        solver,
        patches,
        objective,
        write,
        out,
        recipe,
        data=data,
        workers=workers,
        save_every=save_every,
        log=log,
        report=report,
        method="last_steps" if recipe.kind == DEQ else "forward",
    )


def _objective(patches: SimulatedPatches, recipe: SolverRecipe) -> Objective:
    """The share of the first guess's error that the solver leaves, by the loss of the recipe."""
    loss = combined(recipe.loss)

    def objective(model: Any, batch: Sequence[Tensor]) -> tuple[Tensor, dict[str, float]]:
        clean, data, step = batch
        y = data if isinstance(data, Tensor) else tuple(data)
        acquisition = patches.acquisition(int(step[0]))
        operator = acquisition.operator().to(clean.device)
        guess = first = smooth_guess(operator, y)
        sigma: Any = acquisition.assumed_sigma
        if isinstance(acquisition, RandomContrasts):
            assert isinstance(operator, Contrasts)  # for the type checker
            first = joint_start(acquisition.seen(operator, as_tuple(y)), guess)
            sigma = sigma.to(clean.device)
        figures: dict[str, float] = {}
        penalty: Tensor | float = 0.0
        if recipe.kind == DEQ:
            draw = random.Random(int(step[0]))
            n_before, search = draw.randrange(recipe.n_steps), draw.random() < 0.5
            estimate, expansion = model.last_steps(operator, y, sigma, guess, n_before=n_before, search=search)
            penalty = EXPANSION_WEIGHT * (expansion - recipe.expansion).clamp(min=0)
            figures["expansion"] = float(expansion.detach())
        else:
            estimate = model(operator, y, sigma, first)
        if operator.complex_range:  # what is shown of them is the magnitude
            estimate, guess, clean = estimate.abs(), guess.abs(), clean.abs()
        value = _share_left(loss, estimate, guess, clean, operator, y, acquisition) + penalty
        before, after = square_error(guess, clean), square_error(estimate.detach(), clean)
        gained = 10 * torch.log10((before + 1e-12) / (after + 1e-12))
        return value, {"gain_db": float(gained.mean())} | figures

    return objective


def _share_left(
    loss: Mix,
    estimate: Tensor,
    guess: Tensor,
    clean: Tensor,
    operator: LinearOperator,
    y: Data,
    acquisition: RandomAcquisition | RandomContrasts | RandomKSpace,
) -> Tensor:
    """The loss as a share of the first guess's error: patches, and contrasts, differ in that."""
    if isinstance(acquisition, RandomContrasts):
        assert isinstance(operator, Contrasts)  # for the type checker
        volumes = (torch.split(one, 1, 1) for one in (estimate, guess, clean))
        channels = zip(*volumes, operator.channels, y, acquisition.members, strict=True)
        return torch.stack([_share_left(loss, *channel) for channel in channels]).mean()
    scale = square_error(guess, clean).sqrt().mean() + 1e-3
    return loss(estimate, clean, operator, y, acquisition.sigma) / scale


def network_of(start: Network | Unrolled | Equilibrium | None) -> Network | None:
    """The (first) network of the solver that a training run starts from."""
    if isinstance(start, Unrolled | Equilibrium):
        prior: Any = start.priors[0] if isinstance(start, Unrolled) else start.prior
        found: Network = prior.network
        return found
    return start


def joint(start: Network | Unrolled | Equilibrium) -> Network | Unrolled:
    """The same weights in a network that takes several contrasts (`JointUNet`).

    Raises
    ------
    InvsrError
        When it is no `UNet`, nor an unrolled solver with one.
    """
    network = network_of(start)
    if isinstance(start, Equilibrium) or not isinstance(network, UNet):
        raise InvsrError(f"{type(start).__name__}: several contrasts take a UNet, or an unrolled solver with one")
    both = network if isinstance(network, JointUNet) else JointUNet.of(network)
    if not isinstance(start, Unrolled):
        return both
    step = {kind: name for name, kind in TRAINABLE_STEPS.items()}[type(start.step)]
    solver = unrolled_of([both] * len(start.priors), step, start.n_steps)
    with torch.no_grad():
        # It begins with joint total variation, nearer to the truth than what `start` begins with.
        shares = [log_share(n, start.n_steps) for n in range(start.n_steps)]
        solver.level.copy_(start.level + math.log(NEARER) * (1 - torch.tensor(shares)))
        solver.weight.copy_(start.weight)
    return solver


def _take_over(solver: Unrolled | Equilibrium, trained: Any) -> None:
    state = trained.state_dict()
    if isinstance(solver, Unrolled) and len(trained.priors) == 1:
        # What all steps shared each of them begins with.
        first = "priors.0."
        shared = {name.removeprefix(first): value for name, value in state.items() if name.startswith(first)}
        state |= {f"priors.{n}.{name}": value for n in range(len(solver.priors)) for name, value in shared.items()}
    elif isinstance(solver, Equilibrium) and not trained.n_ending:  # it gets one
        state |= {name: value for name, value in solver.state_dict().items() if name not in state}
    try:
        solver.load_state_dict(state)
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
