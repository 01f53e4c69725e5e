"""The options of `invsr train`: one class for each kind of network, and the command made of its fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from invsr.app.options import LARGEST_SEED
from invsr.training.recipe import DeviationRecipe, Recipe, SolverRecipe

DENOISER = Recipe()
SOLVER = SolverRecipe()
DEVIATION = DeviationRecipe()


def listed(values: Sequence[object]) -> str:
    """Values as they are typed on the command line."""
    return " ".join(map(str, values))


Steps = Annotated[int, typer.Option(help="Training steps.")]
Batch = Annotated[int, typer.Option(help="Patches per step, over all devices.")]
Rate = Annotated[float, typer.Option(help="Largest learning rate.")]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights, patches and noise.", min=0, max=LARGEST_SEED)]
ARCHITECTURES = ("UNet", "ShuffledUNet", "DnCNN", "GradientStep")
SaveEvery = Annotated[int, typer.Option(help="Steps between saves.")]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of every training command."""

    data: Annotated[
        list[Path],
        typer.Option(
            help="Folder of .nii or .nii.gz files, at any depth: images, label maps and lesion masks. Repeat for more."
        ),
    ]
    out: Annotated[Path, typer.Option(help="Weights file to write, .safetensors.")]
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    devices: Annotated[int, typer.Option(help="Number of devices.")] = 1
    workers: Annotated[int, typer.Option(help="Processes that draw patches while the network trains.")] = 0
    log: Annotated[str, typer.Option(help="csv, tensorboard or none.")] = "csv"
    save_every: SaveEvery


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions(TrainOptions):
    """Options of `invsr train denoiser`."""

    steps: Steps = DENOISER.steps
    batch: Batch = DENOISER.batch
    patch: Annotated[
        list[int] | None,
        typer.Option(help=f"Sides of a patch, voxels: I J K or one number. [{listed(DENOISER.patch)}]"),
    ] = None
    architecture: Annotated[str | None, typer.Option(help=f"{', '.join(ARCHITECTURES)}. [{DENOISER.architecture}]")] = (
        None
    )
    channels: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Channels on each scale, finest first; one for DnCNN. [{listed(DENOISER.config['channels'])}]"
        ),
    ] = None
    dim: Annotated[int | None, typer.Option(help=f"2 for slices, 3 for volumes. [{DENOISER.config['dim']}]")] = None
    neighbours: Annotated[
        int | None, typer.Option(help="With --dim 2: neighbouring slices on either side that are also input. [0]")
    ] = None
    sigma_range: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest noise level, at peak intensity 1.")
    ] = DENOISER.sigma
    measured: Annotated[
        float, typer.Option(help="Share of patches with the errors of thick slices besides noise, 0 to 1.")
    ] = DENOISER.measured
    rate: Rate = DENOISER.rate
    seed: Seed = DENOISER.seed
    start_from: Annotated[
        str | None, typer.Option(help="Weights to start from, with their network: see `invsr models`, or a file.")
    ] = None
    save_every: SaveEvery = 500


@dataclass(frozen=True, kw_only=True)
class SolverOptions(TrainOptions):
    """Options of both `invsr train unrolled` and `invsr train deq`."""

    step: Annotated[str, typer.Option(help="Step that the solver repeats: hqs, admm or pgd.")] = SOLVER.step
    loss: Annotated[
        str, typer.Option(help='Terms and weights, as "charbonnier + 0.1 edge": see `invsr.training.losses`.')
    ] = SOLVER.loss
    self_supervised: Annotated[
        bool, typer.Option("--self-supervised", help="Train on thick-slice scans alone, without ground truth.")
    ] = False
    steps: Steps = SOLVER.steps
    batch: Batch = SOLVER.batch
    patch: Annotated[
        list[int] | None,
        typer.Option(help=f"Sides of a patch, voxels; slices lie across the longest. [{listed(SOLVER.patch)}]"),
    ] = None
    thickness: Annotated[tuple[float, float], typer.Option(help="Range of slice thickness, voxels.")] = SOLVER.thickness
    gap: Annotated[float, typer.Option(help="Largest gap, as a share of the thickness.")] = SOLVER.gap
    noise_range: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest noise level, at peak intensity 1.")
    ] = SOLVER.noise
    thin: Annotated[
        float, typer.Option(help="Share of the acquisitions with thinner slices, down to points, 0 to 1.")
    ] = SOLVER.thin
    stacks: Annotated[float, typer.Option(help="Share of the acquisitions that have two or three scans, 0 to 1.")] = (
        SOLVER.stacks
    )
    oblique: Annotated[float, typer.Option(help="Share of those whose scans lie obliquely, 0 to 1.")] = SOLVER.oblique
    kspace: Annotated[
        float, typer.Option(help="Share of the acquisitions that are k-space, of one coil or several, 0 to 1.")
    ] = SOLVER.kspace
    contrasts: Annotated[
        int, typer.Option(help="Largest number of contrasts that are reconstructed together, 1 to 4.")
    ] = SOLVER.contrasts
    rate: Rate = SOLVER.rate
    seed: Seed = SOLVER.seed
    start_from: Annotated[
        str, typer.Option(help="Denoiser or solver to start from: see `invsr models`, or a weights file.")
    ] = "mri-denoiser"
    save_every: SaveEvery = 250


@dataclass(frozen=True, kw_only=True)
class DeviationOptions(TrainOptions):
    """Options of `invsr train deviation`."""

    solver: Annotated[
        str, typer.Option(help="Trained solver whose errors are learned: see `invsr models`, or a weights file.")
    ] = DEVIATION.solver
    draws: Annotated[
        int, typer.Option(help="Patches that it reconstructs; they are kept beside the weights, and seen again.")
    ] = DEVIATION.draws
    side: Annotated[int, typer.Option(help="Side of a patch, a cube, voxels.")] = DEVIATION.side
    channels: Annotated[
        list[str] | None, typer.Option(help=f"Channels on each scale, finest first. [{listed(DEVIATION.channels)}]")
    ] = None
    steps: Steps = DEVIATION.steps
    batch: Batch = DEVIATION.batch
    rate: Rate = DEVIATION.rate
    seed: Seed = DEVIATION.seed
    save_every: SaveEvery = 250


def command_of(app: typer.Typer, options: type[TrainOptions]) -> Callable[[Callable[..., None]], None]:
    """Register a function as a command of its name; the options are the fields of a class and its own keywords.

    The function is called with an instance of the class and, by name, with the options of its own.
    """

    def register(function: Callable[..., None]) -> None:
        shared = inspect.signature(options, eval_str=True).parameters
        own = dict(list(inspect.signature(function, eval_str=True).parameters.items())[1:])

        def command(**values: Any) -> None:
            given = options(**{name: values[name] for name in shared})
            function(given, **{name: values[name] for name in own})

        everything = [*shared.values(), *own.values()]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in everything]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(function.__name__, help=function.__doc__)(command)

    return register
