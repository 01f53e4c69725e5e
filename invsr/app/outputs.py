"""What the command line writes and says of a reconstruction."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invsr.app.arguments import beside, moved_to
from invsr.errors import InvsrError

if TYPE_CHECKING:
    from invsr.motion import Motion
    from invsr.pipeline import Reconstruction

# Heavy modules are imported inside the functions: `invsr --help` answers at once.


def prepare_outputs(output: Path, n_samples: int, uncertainty: str | None, report: Path | None) -> list[Path]:
    """Raise unless all outputs can be written, before the work.

    The paths beside the result: of the standard deviation or the noise, then of samples.
    """
    from invsr.io.files import check_folder, check_writable

    check_writable(output)
    found = [beside(output, "noise" if uncertainty == "replicas" else "std")] if n_samples or uncertainty else []
    found += [beside(output, f"sample-{n + 1}") for n in range(n_samples)]
    for path in found:
        check_writable(path)
    if report is not None:
        check_folder(report)
    return found


def require_distinct(scans: list[Path], others: list[Path | None], outputs: list[Path]) -> None:
    """Raise where an output would overwrite an input, or a scan is given twice."""
    for output in outputs:
        if any(path is not None and _same_file(path, output) for path in (*scans, *others)):
            raise InvsrError(
                f"{output}: is one of the inputs, which would be overwritten: choose another name for the output"
            )
    for n, path in enumerate(scans):
        if any(_same_file(path, other) for other in scans[:n]):
            raise InvsrError(f"{path}: is given twice: leave one out, or name the other scan")


def _same_file(a: Path, b: Path) -> bool:
    # `Path.exists` raises where a name is too long.
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


def write_result(result: Reconstruction, output: Path, beside_result: list[Path], keep_motion: bool) -> list[Path]:
    """The result and what belongs beside it; all paths, the result's first."""
    from invsr.io.nifti import save
    from invsr.motion import save_motion

    maps = [one for one in (result.std_volume, result.noise_volume) if one is not None]
    extra = [*maps, *result.sample_volumes]
    for path, one in zip(beside_result, extra, strict=True):
        save(one, path)
    written = [output, *beside_result]
    if keep_motion and result.motion is not None:
        written += save_motion(result.motion, moved_to(output))
    result.save(output)
    return written


def write_result_report(
    folder: Path | None, result: Reconstruction, inputs: list[Path], output: Path, others: Sequence[Reconstruction]
) -> list[Path]:
    """The report of a result, with the checksums of its inputs; the paths of its files; none without a folder."""
    if folder is None:
        return []
    from invsr.report import write_report

    names = [path.name for path in inputs]
    # Files of one name in several folders keep their folders.
    roles = {path.name if names.count(path.name) == 1 else str(path): path for path in inputs}
    roles["the result"] = output
    command = shlex.join(["invsr", *sys.argv[1:]])  # as `python -m invsr`, whose name would be __main__.py, too
    return write_report(folder, result, command=command, files=roles, others=others)


def describe(result: Reconstruction) -> tuple[list[str], list[str]]:
    """What was done and how well it fits, and remarks; ask before anything is written, because it is computed."""
    from invsr.pipeline.slice_check import EXPECTED as SLICE_CORRELATION

    lines = [*motion_lines(result.motion), f"{result.method}: {result.problem.grids[0]} -> {result.grid}"]
    if result.samples is not None:
        lines.append(f"{len(result.samples)} samples")
    elif result.history:
        lines.append(f"lambda {result.lam:.4g}, {len(result.history)} iterations, {result.status.value}")
    lines.append(f"noise sigma {result.sigma:.4g}, chi2 {result.chi2:.3f} per measured voxel, gain {result.gain:.4f}")
    known = [value for value in result.slice_correlations if value is not None]
    if known:
        low, high = SLICE_CORRELATION
        each = ", ".join(f"{value:+.2f}" for value in known)
        lines.append(f"residuals of neighbouring slices correlate by {each} (usual: {low:g} to {high:g})")
    return lines, result.remarks() if result.history else result.notes


def finish(
    result: Reconstruction,
    output: Path,
    beside_result: list[Path],
    report: Path | None,
    inputs: list[Path],
    keep_motion: bool,
    quiet: bool,
    others: Sequence[Reconstruction] = (),
) -> tuple[tuple[list[str], list[str]] | None, list[Path]]:
    """What `describe` finds, None where `quiet`, and the paths of all that is written of a result and of its report."""
    said = None if quiet else describe(result)
    written = write_result(result, output, beside_result, keep_motion)
    return said, written + write_result_report(report, result, inputs, output, others)


def tell(said: tuple[list[str], list[str]] | None, written: list[Path]) -> None:
    """Print what `describe` found, and what was written; remarks go to standard error, None is silence."""
    if said is None:
        return
    lines, remarks = said
    for line in lines:
        print(line)
    for line in remarks:
        print(f"invsr: note: {line}", file=sys.stderr)
    print(f"wrote {', '.join(map(str, written))}")


def motion_lines(motion: Motion | None) -> list[str]:
    """One line for each scan: how far it moved, its gain, the slices that are left out."""
    lines = []
    for one in () if motion is None else motion.scans:
        turned, shifted = (float((part**2).sum(1).mean() ** 0.5) for part in (one.motion[:, :3], one.motion[:, 3:]))
        left_out = f", slices left out: {', '.join(map(str, one.rejected))}" if one.rejected else ""
        degrees = turned * 57.29578
        lines.append(f"{one.name}: moved {shifted:.2f} mm, {degrees:.2f} degrees RMS, gain {one.gain:.3f}{left_out}")
    return lines


def figures_in_words(figures: dict[str, float]) -> str:
    """The figures of a step, for the progress bar."""
    if "motion_mm" in figures:
        return f"motion  up to {figures['motion_mm']:.1f} mm, {figures['rejected']:.0f} slices left out"
    if "loss" in figures:
        return f"adapting  loss {figures['loss']:.3f}"
    return f"chi2 {figures['chi2']:.2f}" if "chi2" in figures else f"change {figures['change']:.2g}"
