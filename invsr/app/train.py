"""`invsr train`: the training commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsr.app.progress import progress
from invsr.errors import Interrupted, InvsrError
from invsr.numerics.iteration import ProgressCallback
from invsr.training.recipe import Recipe, SolverRecipe

if TYPE_CHECKING:
    from invsr.models.networks import Network
    from invsr.solvers.equilibrium import Equilibrium
    from invsr.solvers.unrolled import Unrolled


# Heavy modules are imported inside the commands: `invsr --help` answers at once.


app = typer.Typer(no_args_is_help=True, help="Train networks on your own volumes.")
SCANS = (".nii", ".nii.gz")


def _listed(values: Sequence[object]) -> str:
    return " ".join(map(str, values))


STANDARD = Recipe()
SOLVER = SolverRecipe()
Data = Annotated[
    list[Path],
    typer.Option(help="Folder with .nii or .nii.gz files, at any depth; images and label maps. Repeat for more."),
]
Out = Annotated[Path, typer.Option(help="Weights file to write, .safetensors.")]
Seed = Annotated[int, typer.Option(help="Of first weights, patches and noise.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option(help="How many of them.")]
Workers = Annotated[int, typer.Option(help="Processes that draw patches while the network trains.")]
Log = Annotated[str, typer.Option(help="csv, tensorboard or none.")]
SaveEvery = Annotated[int, typer.Option(help="Steps between saves.")]
Steps = Annotated[int, typer.Option(help="Training steps.")]
Batch = Annotated[int, typer.Option(help="Patches per step, over all devices.")]
Rate = Annotated[float, typer.Option(help="Largest learning rate.")]
# Of whole solvers.
SolverStep = Annotated[str, typer.Option(help="What is repeated: hqs, admm or pgd.")]
LossSum = Annotated[
    str, typer.Option(help='Terms and weights, as "charbonnier + 0.1 edge": see `invsr.training.losses`.')
]
SlabSides = Annotated[
    list[int] | None,
    typer.Option(help=f"Sides of a patch, voxels; slices lie across the longest. [{_listed(SOLVER.patch)}]"),
]
Thickness = Annotated[tuple[float, float], typer.Option(help="Of slices, voxels.")]
Gap = Annotated[float, typer.Option(help="Largest gap, share of the thickness.")]
NoiseRange = Annotated[tuple[float, float], typer.Option(help="At peak intensity 1.")]
SelfSupervised = Annotated[
    bool, typer.Option("--self-supervised", help="The data are thick-slice scans; nothing else is known.")
]
FirstWeights = Annotated[str, typer.Option(help="Denoiser or solver to begin with: see `invsr models`, or a file.")]


@app.command()
def denoiser(
    data: Data,
    out: Out,
    steps: Steps = STANDARD.steps,
    batch: Batch = STANDARD.batch,
    patch: Annotated[
        list[int] | None,
        typer.Option(help=f"Sides of a patch, voxels: I J K or one number. [{_listed(STANDARD.patch)}]"),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help=f"UNet, DnCNN or GradientStep. [{STANDARD.architecture}]")
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(help=f"Width per scale, finest first; one for DnCNN. [{_listed(STANDARD.config['channels'])}]"),
    ] = None,
    dim: Annotated[int | None, typer.Option(help=f"2 for slices, 3 for volumes. [{STANDARD.config['dim']}]")] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="With --dim 2: slices on either side that the network also sees. [0]")
    ] = None,
    sigma_range: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest noise level, at peak intensity 1.")
    ] = STANDARD.sigma,
    measured: Annotated[
        float, typer.Option(help="Share of patches with the errors of thick slices, not just noise: 0 to 1.")
    ] = STANDARD.measured,
    rate: Rate = STANDARD.rate,
    seed: Seed = STANDARD.seed,
    start_from: Annotated[
        str | None, typer.Option(help="Weights to begin with, and their network: see `invsr models`, or a file.")
    ] = None,
    device: Device = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    log: Log = "csv",
    save_every: SaveEvery = 500,
) -> None:
    """Train a denoiser for `invsr reconstruct --method pnp`; the same command again continues a stopped run."""
    sides = _sides(patch or list(STANDARD.patch))
    files = volumes_in(data)
    first: Any = None
    if start_from is not None:
        if any(choice is not None for choice in (architecture, channels, dim, neighbours)):
            raise InvsrError(
                f"--start-from {start_from}: brings its own network: "
                "leave out --architecture, --channels, --dim and --neighbours"
            )
        first = _weights(start_from)
        kind, config = type(first).__name__, first.config
    else:
        kind, config = _network(architecture or STANDARD.architecture, channels, dim, neighbours)
    recipe = Recipe(
        architecture=kind,
        config=config,
        steps=steps,
        batch=batch,
        patch=sides,
        sigma=sigma_range,
        measured=measured,
        rate=rate,
        seed=seed,
    )
    from invsr.training.denoiser import train_denoiser

    def run(report: ProgressCallback | None) -> None:
        train_denoiser(
            files, out, recipe, start_from=first, device=device, devices=devices, workers=workers,
            log=None if log == "none" else log, save_every=save_every, report=report,
        )  # fmt: skip

    _run(run, out, save_every, f"invsr reconstruct SCAN --method pnp --denoiser {out}")


@app.command()
def unrolled(
    data: Data,
    out: Out,
    step: SolverStep = SOLVER.step,
    n_steps: Annotated[int, typer.Option(help="How often.")] = SOLVER.n_steps,
    shared: Annotated[bool, typer.Option("--shared/--own", help="One network for all steps, or one each.")] = True,
    save_memory: Annotated[bool, typer.Option("--save-memory", help="Compute twice instead of storing.")] = False,
    loss: LossSum = SOLVER.loss,
    self_supervised: SelfSupervised = False,
    steps: Steps = SOLVER.steps,
    batch: Batch = SOLVER.batch,
    patch: SlabSides = None,
    thickness: Thickness = SOLVER.thickness,
    gap: Gap = SOLVER.gap,
    noise_range: NoiseRange = SOLVER.noise,
    rate: Rate = SOLVER.rate,
    seed: Seed = SOLVER.seed,
    start_from: FirstWeights = "mri-denoiser",
    device: Device = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    log: Log = "csv",
    save_every: SaveEvery = 250,
) -> None:
    """Train a solver end to end for `invsr reconstruct --method unrolled`; the same command again continues."""
    recipe = SolverRecipe(
        kind="unrolled", step=step, n_steps=n_steps, shared=shared, save_memory=save_memory, loss=loss, steps=steps,
        batch=batch, patch=_sides(patch or list(SOLVER.patch)), thickness=thickness, gap=gap, noise=noise_range,
        rate=rate, seed=seed, supervision=_supervision(self_supervised),
    )  # fmt: skip
    _train_solver(data, out, recipe, start_from, device, devices, workers, log, save_every)


@app.command()
def deq(
    data: Data,
    out: Out,
    step: SolverStep = SOLVER.step,
    max_iter: Annotated[int, typer.Option(help="Limit of the search for the fixed point.")] = 20,
    expansion: Annotated[
        float, typer.Option(help="Factor above which steps that leave the fixed point are penalised.")
    ] = SOLVER.expansion,
    loss: LossSum = SOLVER.loss,
    self_supervised: SelfSupervised = False,
    steps: Steps = SOLVER.steps,
    batch: Batch = SOLVER.batch,
    patch: SlabSides = None,
    thickness: Thickness = SOLVER.thickness,
    gap: Gap = SOLVER.gap,
    noise_range: NoiseRange = SOLVER.noise,
    rate: Rate = SOLVER.rate,
    seed: Seed = SOLVER.seed,
    start_from: FirstWeights = "mri-denoiser",
    device: Device = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    log: Log = "csv",
    save_every: SaveEvery = 250,
) -> None:
    """Train an equilibrium for `invsr reconstruct --method deq`; the same command again continues."""
    recipe = SolverRecipe(
        kind="deq", step=step, n_steps=max_iter, expansion=expansion, loss=loss, steps=steps, batch=batch,
        patch=_sides(patch or list(SOLVER.patch)), thickness=thickness, gap=gap, noise=noise_range,
        rate=rate, seed=seed, supervision=_supervision(self_supervised),
    )  # fmt: skip
    _train_solver(data, out, recipe, start_from, device, devices, workers, log, save_every)


def _train_solver(
    data: list[Path],
    out: Path,
    recipe: SolverRecipe,
    start_from: str,
    device: str,
    devices: int,
    workers: int,
    log: str,
    save_every: int,
) -> None:
    files = volumes_in(data)
    from invsr.training.solver import network_of, train_solver

    first = _first(start_from)
    network: Any = network_of(first)
    recipe = replace(recipe, architecture=type(network).__name__, config=network.config)

    def run(report: ProgressCallback | None) -> None:
        train_solver(
            files, out, recipe, start_from=first, device=device, devices=devices, workers=workers,
            log=None if log == "none" else log, save_every=save_every, report=report,
        )  # fmt: skip

    _run(run, out, save_every, f"invsr reconstruct SCAN --method {recipe.kind} --model {out}")


def _run(run: Callable[[ProgressCallback | None], None], out: Path, save_every: int, use: str) -> None:
    """A training run with its progress bar, and what is said after it or when it is interrupted."""
    from invsr.training.loop import checkpoint_of

    # With several devices, Lightning runs this command once for each: only the first speaks.
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with progress("training", _figures, quiet=not speaks) as report:
            run(report)
    except KeyboardInterrupt:
        if not checkpoint_of(out).exists():
            raise Interrupted(
                f"interrupted before the first save (--save-every {save_every}): nothing was written"
            ) from None
        raise Interrupted(
            f"interrupted: the same command again continues from the last save ({checkpoint_of(out)})"
        ) from None
    if speaks:
        typer.echo(f"wrote {out}: use it with: {use}")


def _supervision(self_supervised: bool) -> str:
    return "measurements" if self_supervised else "truth"


def _sides(sides: list[int]) -> tuple[int, int, int]:
    if len(sides) not in (1, 3):
        raise InvsrError(f"--patch {_listed(sides)}: give one side or three, in voxels")
    i, j, k = sides * (3 // len(sides))
    return i, j, k


def volumes_in(folders: Sequence[Path]) -> list[Path]:
    """Every NIfTI file in some folders and theirs, in order of name.

    Raises
    ------
    InvsrError
        When a folder does not exist or holds none.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InvsrError(f"--data {folder}: is no folder: name one with .nii or .nii.gz files")
        # Names that begin with a dot are other programs' notes, not scans.
        inside = [path for path in folder.rglob("*") if path.name.endswith(SCANS) and not path.name.startswith(".")]
        if not inside:
            raise InvsrError(f"--data {folder}: holds no .nii or .nii.gz file")
        found += sorted(inside)
    return found


def _network(
    architecture: str, channels: list[str] | None, dim: int | None, neighbours: int | None
) -> tuple[str, dict[str, Any]]:
    """Architecture and configuration, for `invsr.models.architectures.build`."""
    if architecture not in ("UNet", "DnCNN", "GradientStep"):
        raise InvsrError(f"--architecture {architecture}: use UNet, DnCNN or GradientStep")
    config: dict[str, Any] = {"dim": STANDARD.config["dim"] if dim is None else dim}
    if neighbours:
        config["neighbours"] = neighbours
    widths = _widths(channels)
    if architecture == "DnCNN":
        if widths and len(widths) > 1:
            raise InvsrError(f"--channels {_listed(widths)}: DnCNN has one width")
        return architecture, config | ({"channels": widths[0]} if widths else {})
    config["channels"] = widths or STANDARD.config["channels"]
    if architecture == "UNet":
        return architecture, config
    # The theorem behind gradient steps asks for a differentiable network.
    return architecture, {"network": {"architecture": "UNet", **config, "activation": "elu"}}


def _widths(channels: list[str] | None) -> list[int]:
    """``--channels 32 64``, ``--channels "32 64"`` and ``--channels 32,64`` alike."""
    words = " ".join(channels or []).replace(",", " ").split()
    if not all(word.isdigit() and int(word) for word in words):
        raise InvsrError(f"--channels {_listed(words)}: give whole numbers above zero")
    return [int(word) for word in words]


def _first(name: str) -> Network | Unrolled | Equilibrium:
    """A solver, if there is one of this name or in this file; else a denoiser."""
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
