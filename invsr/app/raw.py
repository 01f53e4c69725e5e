"""`invsr reconstruct RAW.h5`: one volume from k-space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from invsr.app.arguments import Inputs, beside, parsed_matrix, parsed_spacing
from invsr.app.outputs import (
    describe,
    figures_in_words,
    prepare_outputs,
    require_distinct,
    tell,
    write_result,
    write_result_report,
)
from invsr.app.progress import progress, share_of_solving
from invsr.errors import InvsrError

if TYPE_CHECKING:
    from invsr.pipeline import Reconstruction

# Heavy modules are imported inside the functions: `invsr --help` answers at once.

# What the options are for images by default.
DEFAULTS = {"zero_filling": "auto", "faults": "auto"}


def refuse_options(given: dict[str, Any], of: str, instead: str) -> None:
    """Raise where an option was given that has no meaning."""
    for name, value in given.items():
        if value not in (None, False, [], DEFAULTS.get(name)):
            option = name.replace("_", "-")
            raise InvsrError(f"--{option}: {of} have no use for it, only {instead}: leave it out")


def run_raw(
    inputs: Inputs,
    output: Path,
    method: str,
    how: dict[str, Any],
    where: dict[str, Any],
    of_raw: dict[str, Any],
    unused: dict[str, Any],
    *,
    samples: int | None,
    uncertainty: str | None,
    seed: int,
    report: Path | None,
    quiet: bool,
) -> None:
    """Reconstruct, write and tell.

    Parameters
    ----------
    how, where : dict
        Options of the method; spacing, device and memory.
    of_raw : dict
        The options that only k-space has.
    unused : dict
        Options that it has no use for.
    """
    if len(inputs.scans) > 1:
        raise InvsrError(f"{inputs.scans[1]}: k-space is reconstructed one file at a time: name one")
    (path,) = inputs.scans
    acquired = inputs.acquired
    left = {name: acquired[name] for name in ("in_plane", "noise_model", "zero_filling", "faults")}
    refuse_options(unused | left, "k-space data", "images")
    from invsr.io.files import check_writable
    from invsr.io.raw import load_maps, load_raw
    from invsr.pipeline.raw_run import raw_method_of, reconstruct_raw

    chosen = raw_method_of(method, how | {"n_samples": None if uncertainty else samples}, seed)
    beside_result = prepare_outputs(output, getattr(chosen, "n_samples", 0), uncertainty, report)
    parts = {name: beside(output, name) for name in ("phase", "complex") if of_raw[name]}
    for one in parts.values():
        check_writable(one)
    require_distinct(
        inputs.scans, [of_raw["coil_maps"], of_raw["trajectory"]], [output, *beside_result, *parts.values()]
    )
    solved = share_of_solving(name := method if chosen is None else chosen.name, report is not None)
    thickness, profile, noise = (_one(acquired[n], n) for n in ("slice_thickness", "slice_profile", "noise"))
    if thickness == "auto":
        raise InvsrError("--slice-thickness auto: it is estimated from images only: give it in mm")
    own = None if of_raw["raw_spacing"] is None else parsed_spacing(of_raw["raw_spacing"], "--raw-spacing")
    matrix = None if of_raw["raw_matrix"] is None else parsed_matrix(of_raw["raw_matrix"], "--raw-matrix")
    with progress(figures_in_words, quiet=quiet) as bar:
        raw = load_raw(path, spacing=own, index=inputs.volume, trajectory=of_raw["trajectory"], matrix=matrix)
        result = reconstruct_raw(
            raw,
            method=method if chosen is None else chosen,
            slice_thickness=thickness,
            slice_profile=profile,
            noise=noise,
            maps=None if of_raw["coil_maps"] is None else load_maps(of_raw["coil_maps"]),
            n_coils=of_raw["coils"],
            n_samples=samples if uncertainty else None,
            uncertainty=uncertainty,
            seed=seed,
            progress=bar.part(name, 0.0, solved),
            **where,
        )
        bar.part("writing", solved)
        said = None if quiet else describe(result)
        written = _write(result, output, beside_result, parts)
        written += write_result_report(report, result, inputs.files, output, ())
    tell(said, written)


def _one(values: list[Any] | None, name: str) -> Any:
    """The only value of an option; None where it was not given."""
    if values and len(values) > 1:
        raise InvsrError(f"--{name.replace('_', '-')}: k-space is one file: give one value")
    return values[0] if values else None


def _write(result: Reconstruction, output: Path, beside_result: list[Path], parts: dict[str, Path]) -> list[Path]:
    """The magnitude and what belongs beside it; all paths, the magnitude's first."""
    from invsr.io.nifti import save, save_complex

    if "phase" in parts and result.phase is not None:
        save(result.phase, parts["phase"])
    if "complex" in parts:
        save_complex(result.x, result.grid, parts["complex"])
    return [*write_result(result, output, beside_result, keep_motion=False), *parts.values()]
