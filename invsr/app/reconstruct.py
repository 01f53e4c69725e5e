"""`invsr reconstruct`: one volume from scans of one anatomy, or one for each contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invsr.app import options
from invsr.app.arguments import Inputs, grid_of, motion_of, parsed_spacing, parsed_thickness, parsed_weight
from invsr.app.contrasts import GRIDS, OWN, run_contrasts
from invsr.app.outputs import figures_in_words, finish, prepare_outputs, require_distinct, tell
from invsr.app.progress import progress, share_of_solving
from invsr.app.raw import refuse_options, run_raw
from invsr.errors import InvsrError

# Heavy modules are imported inside the functions: `invsr --help` answers at once.


def reconstruct(
    scans: options.ScansOrRaw,
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
    coil_maps: options.CoilMaps = None,
    coils: options.Coils = None,
    raw_spacing: options.RawSpacing = None,
    raw_matrix: options.RawMatrix = None,
    trajectory: options.Trajectory = None,
    phase: options.Phase = False,
    complex_: options.Complex = False,
    device: options.Device = "auto",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Reconstruct one isotropic volume from thick-slice scans, one for each contrast, or one from k-space."""
    acquired: dict[str, Any] = {
        **{"slice_thickness": parsed_thickness(slice_thickness), "slice_profile": slice_profile or None},
        **{"in_plane": in_plane, "noise": noise or None, "noise_model": noise_model},
        **{"zero_filling": zero_filling, "faults": faults},
    }
    inputs = Inputs(scans, mask or [], volume, geometry, slice_axis, acquired)
    where: dict[str, Any] = {"spacing": None if spacing is None else parsed_spacing(spacing), "reference": reference}
    where |= {"device": device, "memory": memory}
    how: dict[str, Any] = {"lam": parsed_weight(lam), "huber": huber, "max_iter": max_iter, "solver": solver}
    how |= {"denoiser": denoiser, "adapt": adapt or None, "model": model}
    drawn: dict[str, Any] = {"samples": samples, "uncertainty": uncertainty, "seed": seed}
    of_contrasts: dict[str, Any] = {"contrasts": contrasts, "contrast": contrast, "contrast_grid": contrast_grid}
    moved: dict[str, Any] = {"motion": motion, "transforms": transforms}
    of_raw: dict[str, Any] = {"coil_maps": coil_maps, "coils": coils, "raw_spacing": raw_spacing}
    of_raw |= {"raw_matrix": raw_matrix, "trajectory": trajectory, "phase": phase, "complex": complex_}
    told: dict[str, Any] = {"report": report, "quiet": quiet}
    _of_kind(inputs, output, method, how, where, drawn, of_contrasts, moved, of_raw, told)


def _of_kind(
    inputs: Inputs,
    output: Path,
    method: str,
    how: dict[str, Any],
    where: dict[str, Any],
    drawn: dict[str, Any],
    of_contrasts: dict[str, Any],
    moved: dict[str, Any],
    of_raw: dict[str, Any],
    told: dict[str, Any],
) -> None:
    """k-space, several contrasts, or scans of one: each has its own way, and refuses the options of the others."""
    from invsr.io.raw import is_raw

    if any(map(is_raw, inputs.scans)):
        unused = of_contrasts | moved | {"mask": inputs.masks, "reference": where.pop("reference")}
        unused |= {"geometry": inputs.geometry, "slice_axis": inputs.slice_axis, "adapt": how.pop("adapt")}
        run_raw(inputs, output, method, how, where, of_raw, unused, **drawn, **told)
        return
    refuse_options(of_raw, "images", "k-space")
    names, grid = of_contrasts["contrast"] or None, of_contrasts["contrast_grid"]
    if grid not in (None, *GRIDS):
        raise InvsrError(f"--contrast-grid {grid}: use {' or '.join(GRIDS)}")
    if of_contrasts["contrasts"] or names:
        used = {name: how.pop(name) for name in ("lam", "huber", "max_iter", "model")}
        unused = how | {name: drawn[name] for name in ("samples", "uncertainty")}
        run_contrasts(inputs, output, names, method, used, unused, where, **moved, own=grid == OWN, **told)
    elif grid is not None:
        raise InvsrError("--contrast-grid: one volume of all scans has one grid: leave it out, or add --contrasts")
    else:
        level = moved["motion"] or "none"
        _run(inputs, output, method, how, where, level, moved["transforms"], **drawn, **told)


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
    beside_result = prepare_outputs(output, getattr(chosen, "n_samples", 0), uncertainty, report)
    require_distinct(inputs.scans, [*inputs.masks, where["reference"]], [output, *beside_result])
    solved = share_of_solving(name := method if chosen is None else chosen.name, report is not None)
    with progress(figures_in_words, quiet=quiet) as bar:
        scans, acquired = inputs.load()
        result = run(
            scans,
            method=method if chosen is None else chosen,
            n_samples=samples if uncertainty else None,
            uncertainty=uncertainty,
            motion=given_motion,
            seed=seed,
            progress=bar.part(name, 0.0, solved),
            **acquired,
            **where | {"reference": grid_of(where["reference"], inputs.geometry)},
        )
        bar.part("writing", solved)
        said, written = finish(result, output, beside_result, report, inputs.files, motion != "none", quiet)
    tell(said, written)
