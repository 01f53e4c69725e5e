"""The command line: `invsr reconstruct | register | simulate | evaluate | benchmark | models | train | demo`."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from invsr.app.arguments import axis_number, beside, moved_to, parsed_spacing, parsed_weight, repeat_options
from invsr.app.progress import progress
from invsr.app.train import app as train
from invsr.errors import Interrupted, InvsrError, InvsrWarning

# Heavy modules are imported inside the commands: `invsr --help` answers at once.


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Physics-driven MRI super-resolution: thick slices in, one isotropic volume out.",
)


app.add_typer(train, name="train")


Scans = Annotated[list[Path], typer.Argument(help="Thick-slice scans of one anatomy, NIfTI.", metavar="SCAN.nii.gz")]
Output = Annotated[Path, typer.Option("--output", "-o", help="NIfTI file to write.")]
Thickness = Annotated[
    list[float] | None,
    typer.Option(help="FWHM of the slice profile, mm; one, or one per scan. Default: sidecar, else slice spacing."),
]
Profile = Annotated[
    list[str] | None,
    typer.Option(help="gaussian, boxcar, sinc, slr or a file (mm, amplitude); one, or one per scan. [gaussian]"),
]
Masks = Annotated[list[Path] | None, typer.Option(help="Use only the data inside; one per scan.")]
Noise = Annotated[list[float] | None, typer.Option(help="Noise sigma in intensity units. Default: estimated.")]


@app.command()
def reconstruct(
    scans: Scans,
    output: Output,
    method: Annotated[
        str, typer.Option(help="auto, cubic, tikhonov, tv, pnp, unrolled, deq or posterior: see the README.")
    ] = "auto",
    solver: Annotated[str | None, typer.Option(help="With pnp: hqs, admm, pgd or red. [admm]")] = None,
    denoiser: Annotated[str, typer.Option(help="With pnp: see `invsr models`; a weights file; deepinv:CLASS.")] = (
        "mri-denoiser"
    ),
    adapt: Annotated[
        bool, typer.Option("--adapt", help="With pnp: train the denoiser on the scan's own slices first, a minute.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="With unrolled, deq: trained weights; see `invsr models`, or a file.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Of posterior, or repetitions of the bootstrap.")] = 8,
    uncertainty: Annotated[
        str | None, typer.Option(help="bootstrap: a standard deviation per voxel, beside the result.")
    ] = None,
    spacing: Annotated[str | None, typer.Option(help="Target spacing, mm: 1.0 or 0.8x0.8x1.")] = None,
    reference: Annotated[Path | None, typer.Option(help="NIfTI file whose grid the result gets.")] = None,
    slice_thickness: Thickness = None,
    slice_profile: Profile = None,
    in_plane: Annotated[str, typer.Option(help="Pixels as kspace truncation, gaussian or none.")] = "kspace",
    noise: Noise = None,
    noise_model: Annotated[str, typer.Option(help="gaussian, rician, huber or l1.")] = "gaussian",
    lam: Annotated[str, typer.Option(help="Weight of the prior at peak intensity 1, or auto.")] = "auto",
    huber: Annotated[float, typer.Option(help="With tv: slope (peak per mm) below which to smooth.")] = 0.0,
    mask: Masks = None,
    motion: Annotated[str, typer.Option(help="Of several scans: none, stack or slice, estimated.")] = "none",
    transforms: Annotated[Path | None, typer.Option(help="Motion from `invsr register`, instead.")] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of a 4-D file, from 0.")] = None,
    max_iter: Annotated[int, typer.Option(help="Iteration limit.", min=1)] = 60,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="For methods that draw random numbers.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML page and a JSON of the run.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Reconstruct one isotropic volume from one thick-slice scan or several."""
    from invsr.io.files import check_writable
    from invsr.io.nifti import load, save

    drawn = samples if method == "posterior" else 0
    extra = [beside(output, "std")] if drawn or uncertainty else []
    extra += [beside(output, f"sample-{n + 1}") for n in range(drawn)]
    for path in (output, *extra):
        check_writable(path)
    say = _silent if quiet else _say
    weight = parsed_weight(lam)
    target_spacing = None if spacing is None else parsed_spacing(spacing)
    if transforms is not None and motion != "none":
        raise InvsrError(f"--transforms and --motion {motion}: motion is either given or estimated")
    if report is not None:
        from invsr.report import make_folder

        make_folder(report)
    loaded = [load(path, volume) for path in scans]
    grid = None if reference is None else load(reference, 0).grid
    masks = None if not mask else [load(path, 0) for path in mask]

    from invsr.motion import load_motion, save_motion
    from invsr.pipeline.run import reconstruct as run

    known = motion if transforms is None else load_motion(transforms)
    with progress(method, _chi2, quiet=quiet, left="at most") as report_progress:
        solution = run(
            loaded,
            method=method,
            spacing=target_spacing,
            reference=grid,
            slice_thickness=slice_thickness or None,
            slice_profile=slice_profile or "gaussian",
            in_plane=in_plane,
            noise=noise or None,
            noise_model=noise_model,
            lam=weight,
            huber=huber,
            solver=solver,
            denoiser=denoiser,
            adapt=adapt,
            model=model,
            n_samples=samples,
            uncertainty=uncertainty,
            seed=seed,
            masks=masks,
            motion=known,
            max_iter=max_iter,
            device=device,
            progress=report_progress,
        )
    result = loaded[0].with_data(solution.x.cpu(), solution.grid)
    if solution.std is not None:
        import torch

        found = solution.std if solution.samples is None else torch.cat([solution.std, solution.samples])
        for path, one in zip(extra, found, strict=True):
            save(loaded[0].with_data(one[None].cpu(), solution.grid), path)
    if motion != "none":
        extra += save_motion(solution.motion, moved_to(output))
    save(result, output)
    if report is not None:
        from invsr.report import write_report

        inputs = [*scans, *(mask or [])]
        names = [path.name for path in inputs]
        # Files of one name in several folders keep their folders.
        roles = {path.name if names.count(path.name) == 1 else str(path): path for path in inputs}
        roles["the result"] = output
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        extra += write_report(
            report, [one.name for one in loaded], solution, command=command, seed=seed, files=roles
        )  # fmt: skip
    for line in _told(solution.motion):
        say(line)
    say(f"{solution.method}: {loaded[0].grid} -> {solution.grid}")
    if solution.samples is not None:
        say(f"{len(solution.samples)} samples")
    elif solution.method != "cubic":
        say(f"lambda {solution.lam:.4g}, {len(solution.history)} iterations, {solution.status.value}")
    say(f"noise sigma {solution.sigma:.4g}, chi2 {solution.chi2:.3f} per measured voxel, gain {solution.gain:.4f}")
    if solution.method != "cubic" and not quiet:
        for line in solution.remarks():
            print(f"invsr: note: {line}", file=sys.stderr)
    say(f"wrote {', '.join(map(str, (output, *extra)))}")


@app.command()
def register(
    scans: Scans,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write; .tfm files come beside it.")],
    motion: Annotated[str, typer.Option(help="stack, or slice: a motion for each slice.")] = "stack",
    spacing: Annotated[str | None, typer.Option(help="Of the volume to come, mm. Default: the finest.")] = None,
    slice_thickness: Thickness = None,
    slice_profile: Profile = None,
    mask: Masks = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Find how several scans of one anatomy moved; `invsr reconstruct --transforms` uses it."""
    from invsr.io.files import check_writable
    from invsr.io.nifti import load
    from invsr.motion import save_motion
    from invsr.pipeline.run import register as run

    check_writable(output, (".json",))
    loaded = [load(path) for path in scans]
    masks = None if not mask else [load(path, 0) for path in mask]
    with progress("motion", _chi2, quiet=quiet, left="at most") as report_progress:
        found = run(
            loaded, motion=motion, spacing=None if spacing is None else parsed_spacing(spacing),
            slice_thickness=slice_thickness or None, slice_profile=slice_profile or "gaussian", masks=masks,
            progress=report_progress,
        )  # fmt: skip
    written = save_motion(found, output)
    say = _silent if quiet else _say
    for line in _told(found):
        say(line)
    say(f"wrote {', '.join(map(str, written))}")


@app.command()
def simulate(
    high: Annotated[Path, typer.Argument(help="High-resolution volume, NIfTI.", metavar="HIGH.nii.gz")],
    output: Output,
    slice_thickness: Annotated[float, typer.Option(help="mm.")],
    gap: Annotated[float, typer.Option(help="Between slices, mm.")] = 0.0,
    slice_profile: Annotated[str, typer.Option(help="gaussian, boxcar, sinc, slr or a file.")] = "gaussian",
    axis: Annotated[str | None, typer.Option(help="Slice axis: i, j or k. Default: largest voxels.")] = None,
    in_plane_factor: Annotated[float, typer.Option(help="Pixels that many times larger.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Sigma as a share of the 99.9th percentile.")] = 0.0,
    noise_model: Annotated[str, typer.Option(help="gaussian or rician.")] = "gaussian",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Simulate a thick-slice scan of a high-resolution volume."""
    from invsr.io.files import check_writable
    from invsr.io.nifti import load, save
    from invsr.testing.simulation import simulate as run

    check_writable(output)
    scan = run(
        load(high),
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
    _say(f"wrote {output}: {scan.grid}, slices of {slice_thickness:g} mm")


@app.command()
def evaluate(
    image: Annotated[Path, typer.Argument(help="Volume to score, NIfTI.", metavar="OUT.nii.gz")],
    truth: Annotated[Path, typer.Option(help="The true volume, NIfTI.")],
    mask: Annotated[Path | None, typer.Option(help="Score inside; default: the head.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a volume against the truth: PSNR, SSIM, MS-SSIM, NRMSE, VIF."""
    from invsr.io.nifti import load
    from invsr.testing.metrics import evaluate as run

    found, true = load(image), load(truth)
    inside = None if mask is None else load(mask, 0)
    for other in [true] + ([] if inside is None else [inside]):
        if other.grid != found.grid:
            raise InvsrError(
                f"{other.name}: lies on {other.grid} but {found.name} on {found.grid}: "
                "reconstruct with --reference to compare voxel by voxel"
            )
    scores = run(found.numpy(), true.numpy(), None if inside is None else inside.numpy() != 0)
    if as_json:
        print(json.dumps(scores))
        return
    for name, value in scores.items():
        _say(f"{name:16s} {value:.4f}")


@app.command()
def benchmark(
    volumes: Annotated[
        list[Path] | None, typer.Argument(help="High-resolution volumes. [the MNI152 template]", metavar="HIGH.nii.gz")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat for several. Default: all but posterior.")] = None,
    slice_thickness: Annotated[float, typer.Option(help="Of the simulated slices, mm.")] = 4.0,
    gap: Annotated[float, typer.Option(help="Between slices, mm.")] = 0.0,
    axis: Annotated[str, typer.Option(help="Slice axis: i, j or k.")] = "k",
    noise: Annotated[float, typer.Option(help="Sigma as a share of the peak.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Simulate thick slices of volumes, reconstruct them by every method, and score the results."""
    from invsr.app.benchmark import benchmark as run
    from invsr.app.demo import template
    from invsr.io.nifti import load

    truths = [load(path) for path in volumes] if volumes else [template()]
    _say("| volume | method | PSNR | SSIM | dPSNR | dSSIM | chi2 | gain |\n" + "|---" * 8 + "|")
    base = None
    for score in run(
        truths, method or None, slice_thickness=slice_thickness, gap=gap, axis=axis_number(axis), noise=noise, seed=seed
    ):
        base = score if base is None or base.volume != score.volume else base
        gains = f"{score.psnr - base.psnr:+.2f} | {score.ssim - base.ssim:+.4f}"
        _say(
            f"| {score.volume} | {score.method} | {score.psnr:.2f} | {score.ssim:.4f} | {gains} | {score.chi2:.2f} | "
            f"{score.gain:.4f} |"
        )


@app.command()
def models(name: Annotated[str | None, typer.Argument(help="Print this model's card.")] = None) -> None:
    """List the trained models that come with the package."""
    from invsr.models.registry import card
    from invsr.models.registry import models as there

    if name is not None:
        _say(card(name))
        return
    for one, entry in there().items():
        _say(f"{one:20s} {entry['parameters'] / 1e6:5.2f} M parameters  {entry['for']}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("demo"),
    slice_thickness: Annotated[float, typer.Option(help="Of the simulated scan, mm.")] = 5.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the scores.")] = False,
) -> None:
    """Simulate a thick-slice scan of the MNI152 brain, reconstruct it, draw and score the result."""
    from invsr.app.demo import run_demo

    with progress("tv", _chi2, quiet=quiet, left="at most") as report_progress:
        lines = run_demo(out, slice_thickness, report_progress)
    for line in lines:
        print(line)


def main() -> None:
    """Entry point: one line for whatever the user can mend, a traceback only for our own bugs."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # the unused arguments are one *args
    warnings.simplefilter("always", InvsrWarning)
    try:
        sys.argv[1:] = repeat_options(sys.argv[1:])
        app()
    except InvsrError as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _fail(
            "out of memory: use a coarser --spacing or a smaller --reference grid; "
            "in training, a smaller --patch or --batch"
        )
    except Interrupted as stop:
        _fail(str(stop), 130)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Typer ends an interrupted command without a word, by this exit code.
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        _fail("interrupted: nothing was written", 130)


def _told(motion: Any) -> list[str]:
    """One line for each scan: how far it moved, its gain, the slices that are left out."""
    lines = []
    for one in () if motion is None else motion.scans:
        turned, shifted = (float((part**2).sum(1).mean() ** 0.5) for part in (one.motion[:, :3], one.motion[:, 3:]))
        left_out = f", slices left out: {', '.join(map(str, one.rejected))}" if one.rejected else ""
        degrees = turned * 57.29578
        lines.append(f"{one.name}: moved {shifted:.2f} mm, {degrees:.2f} degrees RMS, gain {one.gain:.3f}{left_out}")
    return lines


def _chi2(figures: dict[str, float]) -> str:
    if "motion_mm" in figures:
        return f"motion  up to {figures['motion_mm']:.1f} mm, {figures['rejected']:.0f} slices left out"
    return f"chi2 {figures['chi2']:.2f}" if "chi2" in figures else f"adapting  loss {figures['loss']:.3f}"


def _say(text: str) -> None:
    print(text)


def _silent(text: str) -> None:
    pass


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, InvsrWarning):
        print(f"invsr: warning: {message}", file=sys.stderr)


def _fail(message: str, code: int = 1) -> None:
    print(f"invsr: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
