"""The command line: `invsr reconstruct`, `inspect`, `register`, `simulate`, `evaluate`, `train` and the rest."""

from __future__ import annotations

import atexit
import gc
import io
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from invsr.app import options
from invsr.app.arguments import (
    Inputs,
    axis_number,
    parsed_spacing,
    parsed_thickness,
    repeat_options,
)
from invsr.app.bids import bids
from invsr.app.evaluate import scores_of
from invsr.app.info import info
from invsr.app.inspect import inspect
from invsr.app.outputs import figures_in_words, motion_lines, require_distinct
from invsr.app.progress import progress
from invsr.app.reconstruct import reconstruct
from invsr.app.signals import raise_on_signals, release_signals
from invsr.app.train import app as train
from invsr.errors import Interrupted, InvsrError, InvsrWarning

# Heavy modules are imported inside the commands: `invsr --help` answers at once.

# What typer raises for words that are no command: of click, or of the copy of it in later versions.
UsageError: type[Any] = typer.BadParameter.__bases__[0]
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Physics-driven MRI super-resolution: thick slices in, one isotropic volume out.",
)


app.add_typer(train, name="train")
app.command()(info)
app.command()(inspect)
app.command()(reconstruct)
app.command()(bids)


@app.command()
def register(
    scans: options.Scans,
    output: options.MotionOutput,
    motion: options.RegisterLevel = "stack",
    spacing: options.Spacing = None,
    slice_thickness: options.Thickness = None,
    slice_profile: options.Profile = None,
    slice_axis: options.ScanSliceAxis = None,
    geometry: options.Geometry = None,
    zero_filling: options.ZeroFilling = "auto",
    faults: options.Faults = "auto",
    mask: options.Masks = None,
    quiet: options.Quiet = False,
) -> None:
    """Find how several scans of one anatomy moved; `invsr reconstruct --transforms` uses it."""
    from invsr.io.files import check_writable
    from invsr.io.sidecars import sidecar_of
    from invsr.motion import motion_files, save_motion
    from invsr.pipeline.run import register as run

    acquired = {
        **{"slice_thickness": parsed_thickness(slice_thickness), "slice_profile": slice_profile or None},
        **{"zero_filling": zero_filling, "faults": faults},
    }
    check_writable(output, (".json",))
    require_distinct(scans, [*(mask or []), *map(sidecar_of, scans)], motion_files(output, len(scans)))
    with progress(figures_in_words, quiet=quiet) as bar:
        volumes, told = Inputs(scans, mask or [], None, geometry, slice_axis, acquired).load()
        found = run(
            volumes,
            motion=motion,
            spacing=None if spacing is None else parsed_spacing(spacing),
            progress=bar.part("motion"),
            **told,
        )
    written = save_motion(found, output)
    if not quiet:
        for line in motion_lines(found):
            print(line)
        print(f"wrote {', '.join(map(str, written))}")


@app.command()
def simulate(
    high: options.HighResolution,
    output: options.Output,
    slice_thickness: options.SimulatedThickness,
    gap: options.Gap = 0.0,
    slice_profile: options.SimulatedProfile = "gaussian",
    axis: options.SliceAxis = None,
    in_plane_factor: options.InPlaneFactor = 1.0,
    noise: options.SimulatedNoise = 0.0,
    noise_model: options.SimulatedNoiseModel = "gaussian",
    geometry: options.Geometry = None,
    seed: options.NoiseSeed = 0,
) -> None:
    """Simulate a thick-slice scan of a high-resolution volume."""
    from invsr.io.files import check_writable
    from invsr.io.nifti import load, save
    from invsr.testing.simulation import simulate as run

    check_writable(output)
    require_distinct([high], [], [output])
    scan = run(
        load(high, geometry=geometry),
        slice_thickness=slice_thickness,
        gap=gap,
        slice_profile=slice_profile,
        axis=None if axis is None else axis_number(axis),
        in_plane_factor=in_plane_factor,
        noise=noise,
        noise_model=noise_model,
        seed=seed,
    )
    save(scan, output)
    print(f"wrote {output}: {scan.grid}, slices of {scan.slice_thickness:.4g} mm")
    if scan.slice_thickness != scan.slice_spacing:  # for which NIfTI has no place
        print(f"the file does not hold their thickness: reconstruct with --slice-thickness {scan.slice_thickness:.4g}")


@app.command()
def evaluate(
    image: Annotated[Path, typer.Argument(help="Volume to score, NIfTI.", metavar="OUT.nii.gz")],
    truth: Annotated[Path, typer.Option(help="The true volume, NIfTI.")],
    mask: Annotated[Path | None, typer.Option(help="Score inside; default: the head.")] = None,
    geometry: options.Geometry = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; null: not finite.")] = False,
) -> None:
    """Score a volume against the truth: PSNR, SSIM, MS-SSIM, NRMSE, VIF."""
    scores = scores_of(image, truth, mask, geometry)
    if as_json:
        # JSON has no word for the NaN of a window that does not fit, or the infinite PSNR of equal volumes.
        print(json.dumps({name: value if math.isfinite(value) else None for name, value in scores.items()}))
        return
    for name, value in scores.items():
        print(f"{name:16s} {value:.4f}")


@app.command()
def benchmark(
    volumes: options.HighResolutionVolumes = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several. Default: all but posterior.")] = None,
    slice_thickness: Annotated[float, typer.Option(help="Thickness of the simulated slices, mm.")] = 4.0,
    gap: Annotated[float, typer.Option(help="Gap between slices, mm.")] = 0.0,
    axis: Annotated[str, typer.Option(help="Slice axis: i, j or k.")] = "k",
    noise: Annotated[float, typer.Option(help="Sigma as a share of the peak.")] = 0.01,
    seed: options.NoiseSeed = 0,
) -> None:
    """Simulate thick slices of volumes, reconstruct them by every method, and score the results."""
    from invsr.app.benchmark import BASE
    from invsr.app.benchmark import benchmark as run
    from invsr.examples import example
    from invsr.io.nifti import load

    truths = [load(path) for path in volumes] if volumes else [example()]
    print("| volume | method | PSNR | SSIM | dPSNR | dSSIM | chi2 | gain |")
    print("|---" * 8 + "|")
    base = None
    for score in run(
        truths, method or None, slice_thickness=slice_thickness, gap=gap, axis=axis_number(axis), noise=noise, seed=seed
    ):
        # Each volume begins with it; names of files in several folders may be the same.
        base = score if base is None or score.method == BASE else base
        gains = f"{score.psnr - base.psnr:+.2f} | {score.ssim - base.ssim:+.4f}"
        print(
            f"| {score.volume} | {score.method} | {score.psnr:.2f} | {score.ssim:.4f} | {gains} | {score.chi2:.2f} | "
            f"{score.gain:.4f} |"
        )


@app.command()
def models(name: Annotated[str | None, typer.Argument(help="Print this model's card.")] = None) -> None:
    """List the trained models that come with the package."""
    from invsr.models.registry import card
    from invsr.models.registry import models as there

    if name is not None:
        print(card(name))
        return
    width = max(map(len, there()))
    for one, entry in there().items():
        print(f"{one:{width}s} {entry['parameters'] / 1e6:5.2f} M parameters  {entry['for']}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("demo"),
    slice_thickness: Annotated[float, typer.Option(help="Slice thickness of the simulated scan, mm.")] = 5.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the scores.")] = False,
) -> None:
    """Simulate a thick-slice scan of the example head, reconstruct it, score and draw the result."""
    from invsr.app.demo import run_demo

    with progress(figures_in_words, quiet=quiet) as bar:
        lines = run_demo(out, slice_thickness, bar.part("demo"))
    for line in lines:
        print(line)


def main() -> None:
    """Entry point: one line for whatever the user can mend, a traceback only for our own bugs."""
    code = raise_on_signals()
    # At exit Python collects garbage, which takes half a second with these packages; nothing waits to be closed by it.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error: a file name that the terminal's encoding cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # the unused arguments are one *args
    warnings.simplefilter("always", InvsrWarning)
    try:
        sys.argv[1:] = repeat_options(sys.argv[1:]) or ["--help"]
        try:
            # Typer ends an interrupted command without a word, by this exit code.
            if app(prog_name="invsr", standalone_mode=False) == INTERRUPTED:
                raise KeyboardInterrupt
        finally:
            sys.stdout.flush()
    except UsageError as error:
        command = "invsr" if error.ctx is None else error.ctx.command_path
        _fail(f"{error.format_message().rstrip('.')}: see {command} --help", error.exit_code)
    except InvsrError as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _fail(
            "out of memory: use a coarser --spacing or a smaller --reference grid; "
            "in training, a smaller --patch or --batch"
        )
    except OSError as error:
        if error.filename is not None:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # else Python tries it again at its end, and complains
        _fail(f"standard output could not be written ({error.strerror}): free some space or write elsewhere")
    except Interrupted as stop:
        _fail(str(stop), code())
    except KeyboardInterrupt:
        _fail("interrupted: no unfinished file is left", code())
    finally:
        release_signals()


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, InvsrWarning):
        print(f"invsr: warning: {message}", file=sys.stderr)


def _fail(message: str, code: int = 1) -> None:
    print(f"invsr: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
