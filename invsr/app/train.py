"""`invsr train`: the training commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsr.app.outputs import require_distinct
from invsr.app.progress import progress
from invsr.app.train_options import (
    ARCHITECTURES,
    DENOISER,
    DEVIATION,
    SOLVER,
    DenoiserOptions,
    DeviationOptions,
    SolverOptions,
    TrainOptions,
    command_of,
    listed,
)
from invsr.errors import Interrupted, InvsrError
from invsr.training.recipe import DeviationRecipe, Recipe, SolverRecipe

if TYPE_CHECKING:
    from invsr.models.networks import Network
    from invsr.solvers.equilibrium import Equilibrium
    from invsr.solvers.unrolled import Unrolled


# Heavy modules are imported inside the commands: `invsr --help` answers at once.


app = typer.Typer(help="Train networks on your own volumes.")
SCANS = (".nii", ".nii.gz")
DEQ_ITERATIONS = 20


@command_of(app, DenoiserOptions)
def denoiser(options: DenoiserOptions) -> None:
    """Train a denoiser for `invsr reconstruct --method pnp`; the same command again resumes a stopped run."""
    _require_other_start(options.start_from, options.out)
    sides = _sides(options.patch or list(DENOISER.patch))
    files = volumes_in(options.data)
    first, architecture, config = _first_denoiser(options)
    recipe = Recipe(
        architecture=architecture,
        config=config,
        steps=options.steps,
        batch=options.batch,
        patch=sides,
        sigma=options.sigma_range,
        measured=options.measured,
        rate=options.rate,
        seed=options.seed,
    )
    from invsr.training.denoiser import train_denoiser

    _run(train_denoiser, files, recipe, first, options, f"--method pnp --denoiser {options.out}")


@command_of(app, SolverOptions)
def unrolled(
    options: SolverOptions,
    n_steps: Annotated[int, typer.Option(help="Number of steps.")] = SOLVER.n_steps,
    shared: Annotated[
        bool, typer.Option("--shared/--own", help="One network for all steps, or one for each step.")
    ] = SOLVER.shared,
    save_memory: Annotated[
        bool, typer.Option("--save-memory", help="Recompute intermediate results instead of storing them.")
    ] = SOLVER.save_memory,
) -> None:
    """Train a solver end to end for `invsr reconstruct --method unrolled`; the same command again resumes."""
    _train_solver(options, kind="unrolled", n_steps=n_steps, shared=shared, save_memory=save_memory)


@command_of(app, SolverOptions)
def deq(
    options: SolverOptions,
    max_iter: Annotated[int, typer.Option(help="Most iterations of the search for the fixed point.")] = DEQ_ITERATIONS,
    expansion: Annotated[
        float, typer.Option(help="Factor above which steps away from the fixed point are penalised.")
    ] = SOLVER.expansion,
) -> None:
    """Train an equilibrium solver for `invsr reconstruct --method deq`; the same command again resumes."""
    _train_solver(options, kind="deq", n_steps=max_iter, expansion=expansion)


@command_of(app, DeviationOptions)
def deviation(options: DeviationOptions) -> None:
    """Train a network that knows a solver's errors, for `--uncertainty predicted`; the same command again resumes."""
    require_distinct([], [Path(options.solver)], [options.out])
    files = volumes_in(options.data)
    recipe = DeviationRecipe(
        solver=options.solver,
        draws=options.draws,
        side=options.side,
        channels=tuple(_widths(options.channels)) or DEVIATION.channels,
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
    )
    from invsr.training.deviation import train_deviation

    _run(train_deviation, files, recipe, None, options, "--uncertainty predicted, once it lies beside the solver")


def _train_solver(options: SolverOptions, **own: Any) -> None:
    """Train the solver of a recipe from the common options and those of one kind of solver."""
    _require_other_start(options.start_from, options.out)
    files = volumes_in(options.data)
    from invsr.training.solver import joint, network_of, train_solver

    first = _first_solver(options.start_from)
    if options.contrasts > 1:
        first = joint(first)
    network: Any = network_of(first)
    recipe = SolverRecipe(
        architecture=type(network).__name__,
        config=network.config,
        step=options.step,
        loss=options.loss,
        supervision="measurements" if options.self_supervised else "truth",
        steps=options.steps,
        batch=options.batch,
        patch=_sides(options.patch or list(SOLVER.patch)),
        thickness=options.thickness,
        gap=options.gap,
        noise=options.noise_range,
        thin=options.thin,
        stacks=options.stacks,
        oblique=options.oblique,
        kspace=options.kspace,
        contrasts=options.contrasts,
        rate=options.rate,
        seed=options.seed,
        **own,
    )
    _run(train_solver, files, recipe, first, options, f"--method {recipe.kind} --model {options.out}")


def _run(
    train: Callable[..., Path],
    files: list[Path],
    recipe: Recipe | SolverRecipe | DeviationRecipe,
    first: Any,
    options: TrainOptions,
    use: str,
) -> None:
    """Train with a progress bar; then say how to use the weights or, when interrupted, how to resume."""
    from invsr.training.loop import checkpoint_of

    # With several devices, Lightning runs this command once for each: only the first one prints.
    prints = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with progress(_figures, quiet=not prints) as bar:
            tell = bar.part("training")
            train(
                files,
                options.out,
                recipe,
                start_from=first,
                device=options.device,
                devices=options.devices,
                workers=options.workers,
                log=None if options.log == "none" else options.log,
                save_every=options.save_every,
                report=None if tell is None else lambda step, steps, figures: tell(step / steps, figures),
            )
    except KeyboardInterrupt:
        checkpoint = checkpoint_of(options.out)
        if not checkpoint.exists():
            raise Interrupted(
                f"interrupted before the first save (--save-every {options.save_every}): the same command begins anew"
            ) from None
        raise Interrupted(f"interrupted: the same command again continues from the last save ({checkpoint})") from None
    if prints:
        typer.echo(f"wrote {options.out}: use it with: invsr reconstruct SCAN {use}")


def _sides(sides: list[int]) -> tuple[int, int, int]:
    if len(sides) not in (1, 3):
        raise InvsrError(f"--patch {listed(sides)}: give one side or three, in voxels")
    i, j, k = sides * (3 // len(sides))
    return i, j, k


def volumes_in(folders: Sequence[Path]) -> list[Path]:
    """All NIfTI files in folders and their subfolders, in order of name.

    Raises
    ------
    InvsrError
        When a folder does not exist or holds none.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InvsrError(f"--data {folder}: is no folder: name one with .nii or .nii.gz files")
        # Other programs keep notes in files whose names begin with a dot.
        inside = [path for path in folder.rglob("*") if path.name.endswith(SCANS) and not path.name.startswith(".")]
        if not inside:
            raise InvsrError(f"--data {folder}: holds no .nii or .nii.gz file")
        found += sorted(inside)
    return found


def _network(
    architecture: str, channels: list[str] | None, dim: int | None, neighbours: int | None
) -> tuple[str, dict[str, Any]]:
    """Architecture and configuration, for `invsr.models.architectures.build`."""
    if architecture not in ARCHITECTURES:
        raise InvsrError(f"--architecture {architecture}: use one of {', '.join(ARCHITECTURES)}")
    config: dict[str, Any] = {"dim": DENOISER.config["dim"] if dim is None else dim}
    if neighbours:
        config["neighbours"] = neighbours
    widths = _widths(channels)
    if architecture == "DnCNN":
        if widths and len(widths) > 1:
            raise InvsrError(f"--channels {listed(widths)}: DnCNN has one width")
        return architecture, config | ({"channels": widths[0]} if widths else {})
    config["channels"] = widths or DENOISER.config["channels"]
    if architecture in ("UNet", "ShuffledUNet"):
        return architecture, config
    # The convergence theorem of gradient steps needs a differentiable network.
    return architecture, {"network": {"architecture": "UNet", **config, "activation": "elu"}}


def _widths(channels: list[str] | None) -> list[int]:
    """``--channels 32 64``, ``--channels "32 64"`` and ``--channels 32,64`` alike."""
    words = " ".join(channels or []).replace(",", " ").split()
    if not all(word.isdigit() and int(word) for word in words):
        raise InvsrError(f"--channels {listed(words)}: give whole numbers above zero")
    return [int(word) for word in words]


def _require_other_start(start_from: str | None, out: Path) -> None:
    """Raise where training would overwrite the weights that it starts from: it could not be resumed."""
    require_distinct([], [None if start_from is None else Path(start_from)], [out])


def _first_denoiser(options: DenoiserOptions) -> tuple[Network | None, str, dict[str, Any]]:
    """The network to start from, if there is one; architecture and configuration of the network to train."""
    if options.start_from is None:
        architecture = options.architecture or DENOISER.architecture
        return None, *_network(architecture, options.channels, options.dim, options.neighbours)
    choices = (options.architecture, options.channels, options.dim, options.neighbours)
    if any(choice is not None for choice in choices):
        raise InvsrError(
            f"--start-from {options.start_from}: has its own network: "
            "leave out --architecture, --channels, --dim and --neighbours"
        )
    network = _weights(options.start_from)
    return network, type(network).__name__, network.config


def _first_solver(name: str) -> Network | Unrolled | Equilibrium:
    """The solver of this name or in this file, or else the denoiser."""
    from invsr.models.registry import holds_solver
    from invsr.solvers.trained import load_solver

    return load_solver(name, None)[0].requires_grad_(True) if holds_solver(name) else _weights(name)


def _weights(name: str) -> Network:
    from invsr.models.networks import Network
    from invsr.priors.loading import pretrained

    network = pretrained(name).network
    if not isinstance(network, Network):
        raise InvsrError(f"--start-from {name}: only networks of this package can be trained further")
    return network


def _figures(figures: dict[str, float]) -> str:
    gained = f"gain {figures['gain_db']:.2f} dB  " if "gain_db" in figures else ""
    return f"{gained}loss {figures['loss']:.3f}"
