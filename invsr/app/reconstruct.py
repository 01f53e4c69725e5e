"""`invsr reconstruct`: one volume from scans of one anatomy, or one for each contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invsr.app import options
from invsr.app.arguments import Inputs, grid_of, motion_of, parsed_spacing, parsed_thickness, parsed_weight
from invsr.app.contrasts import GRIDS, OWN, run_contrasts
from invsr.app.outputs import figures_in_words, finish, prepare_outputs, require_distinct, tell
from invsr.app.progress import progress, share_of_solving
from invsr.errors import InvsrError

# Heavy modules are imported inside the functions: `invsr --help` answers at once.


def reconstruct(
    scans: options.Scans,
    output: options.ResultOutput,
    contrasts: options.Contrasts = False,
    contrast: options.ContrastNames = None,
    contrast_grid: options.ContrastGrid = None,
    method: options.MethodName = "auto",
    solver: options.Solver = None,
    denoiser: options.DenoiserName = None,
    adapt: options.Adapt = False,
    model: options.Model = None,
    lam: options.Weight = None,
    huber: options.HuberSlope = None,
    max_iter: options.MaxIter = None,
    samples: options.Samples = None,
    uncertainty: options.Uncertainty = None,
    spacing: options.Spacing = None,
    reference: options.Reference = None,
    slice_thickness: options.Thickness = None,
    slice_profile: options.Profile = None,
    in_plane: options.InPlane = None,
    noise: options.Noise = None,
    noise_model: options.NoiseModel = None,
    slice_axis: options.ScanSliceAxis = None,
    geometry: options.Geometry = None,
    zero_filling: options.ZeroFilling = "auto",
    faults: options.Faults = "auto",
    mask: options.Masks = None,
    motion: options.MotionLevel = None,
    transforms: options.Transforms = None,
    volume: options.VolumeIndex = None,
    device: options.Device = "auto",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Reconstruct one isotropic volume from one thick-slice scan or several; of several contrasts, one for each."""
    acquired: dict[str, Any] = {
        **{"slice_thickness": parsed_thickness(slice_thickness), "slice_profile": slice_profile or None},
        **{"in_plane": in_plane, "noise": noise or None, "noise_model": noise_model},
        **{"zero_filling": zero_filling, "faults": faults},
    }
    inputs = Inputs(scans, mask or [], volume, geometry, slice_axis, acquired)
    where: dict[str, Any] = {"spacing": None if spacing is None else parsed_spacing(spacing), "reference": reference}
    where |= {"device": device, "memory": memory}
    weights: dict[str, Any] = {"lam": parsed_weight(lam), "huber": huber, "max_iter": max_iter}
    rest: dict[str, Any] = {"solver": solver, "denoiser": denoiser, "adapt": adapt or None, "model": model}
    told: dict[str, Any] = {"report": report, "quiet": quiet}
    if contrast_grid not in (None, *GRIDS):
        raise InvsrError(f"--contrast-grid {contrast_grid}: use {' or '.join(GRIDS)}")
    if contrasts or contrast:
        how = weights | {"model": rest.pop("model")}
        unused = rest | {"samples": samples, "uncertainty": uncertainty}
        moved: dict[str, Any] = {"motion": motion, "transforms": transforms, "own": contrast_grid == OWN}
        run_contrasts(inputs, output, contrast or None, method, how, unused, where, **moved, **told)
    elif contrast_grid is not None:
        raise InvsrError("--contrast-grid: one volume of all scans has one grid: leave it out, or add --contrasts")
    else:
        drawn: dict[str, Any] = {"samples": samples, "uncertainty": uncertainty, "seed": seed}
        _run(inputs, output, method, weights | rest, where, motion or "none", transforms, **drawn, **told)


def _run(
    inputs: Inputs,
    output: Path,
    method: str,
    how: dict[str, Any],
    where: dict[str, Any],
    motion: str,
    transforms: Path | None,
    *,
    samples: int | None,
    uncertainty: str | None,
    seed: int,
    report: Path | None,
    quiet: bool,
) -> None:
    """One volume of all scans; `how` are the method's options, `where` spacing, reference, device and memory."""
    given_motion = motion_of(transforms, motion)
    from invsr.pipeline.choice import method_of
    from invsr.pipeline.run import reconstruct as run

    chosen = method_of(method, how | {"n_samples": None if uncertainty else samples}, seed)
    beside_result = prepare_outputs(output, getattr(chosen, "n_samples", 0), uncertainty is not None, report)
    require_distinct(inputs.scans, [*inputs.masks, where["reference"]], [output, *beside_result])
    solved = share_of_solving(name := method if chosen is None else chosen.name, report is not None)
    with progress(figures_in_words, quiet=quiet) as bar:
        result = run(
            inputs.read(),
            method=method if chosen is None else chosen,
            n_samples=samples if uncertainty else None,
            uncertainty=uncertainty,
            motion=given_motion,
            zero_filling="keep",  # done when they were read
            faults="keep",
            seed=seed,
            progress=bar.part(name, 0.0, solved),
            **where | {"reference": grid_of(where["reference"])},
        )
        bar.part("writing", solved)
        said, written = finish(result, output, beside_result, report, inputs.files, motion != "none", quiet)
    tell(said, written)
