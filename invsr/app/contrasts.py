"""`invsr reconstruct --contrasts`: several contrasts of one head, a file for each in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invsr.app.arguments import Inputs, grid_of, motion_of
from invsr.app.outputs import figures_in_words, finish, motion_lines, require_distinct, tell
from invsr.app.progress import progress
from invsr.errors import InvsrError

# Heavy modules are imported inside the functions: `invsr --help` answers at once.

# Where the results lie.
COMMON, OWN = GRIDS = ("common", "own")
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".nhdr")


def run_contrasts(
    inputs: Inputs,
    folder: Path,
    names: list[str] | None,
    method: str,
    how: dict[str, Any],
    unused: dict[str, Any],
    where: dict[str, Any],
    *,
    motion: str | None,
    transforms: Path | None,
    own: bool,
    report: Path | None,
    quiet: bool,
) -> None:
    """Reconstruct, write and tell.

    Parameters
    ----------
    names : list of str or None
        The contrast of each scan.
    how, unused : dict
        Options of the method, and those that several contrasts have no use for.
    where : dict
        Spacing, reference, device and memory.
    own : bool
        Whether each contrast is written on its own scan's grid.
    """
    scans = inputs.scans
    if own and where["reference"] is not None:
        raise InvsrError("--reference: with --contrast-grid own each contrast has a grid of its own: leave one out")
    for option, value in unused.items():
        if value is not None:
            raise InvsrError(f"--{option}: several contrasts have no use for it, leave it out")
    from invsr.io.files import check_folder, check_writable, make_folder
    from invsr.motion import motion_files, save_motion
    from invsr.pipeline.contrasts import members_of, motion_of_scans, reconstruct_contrasts
    from invsr.pipeline.joint import together_of
    from invsr.pipeline.own_grid import on_own_grid

    chosen = together_of(method, how)
    outputs = outputs_of(scans, folder, names, members_of(names, len(scans)))
    check_folder(folder)
    for output in outputs if folder.is_dir() else []:
        check_writable(output)
    moved = folder / "motion.json"
    require_distinct(scans, [*inputs.masks, where["reference"]], [*outputs, *motion_files(moved, len(scans))])
    if report is not None:
        check_folder(report)
    given = motion_of(transforms, motion or ("stack" if transforms is None else "none"))
    with progress(figures_in_words, quiet=quiet) as bar:
        volumes, acquired = inputs.load()
        results = reconstruct_contrasts(
            volumes,
            names,
            method=chosen,
            motion=given,
            progress=bar.part("contrasts", 0.0, 0.95),
            **acquired,
            **where | {"reference": grid_of(where["reference"], inputs.geometry)},
        )
        motion_found = motion_of_scans(results, names)
        if own:
            results = [on_own_grid(one, where["spacing"]) for one in results]
        bar.part("writing", 0.95)
        make_folder(folder)
        told = []
        for result, output in zip(results, outputs, strict=True):
            into = None if report is None else report / output.name.split(".")[0]
            others = [one for one in results if one is not result and one.grid == result.grid]
            told.append(finish(result, output, [], into, inputs.files, False, quiet, others))
        written = save_motion(motion_found, moved) if given != "none" else []
    for said, paths in told:
        tell(said, paths)
    if written and not quiet:
        tell((motion_lines(motion_found), []), written)


def outputs_of(
    scans: Sequence[Path], folder: Path, names: Sequence[str] | None, members: Sequence[Sequence[int]]
) -> list[Path]:
    """A file for each contrast, called as the contrast, or as its first scan.

    Raises
    ------
    InvsrError
        When two have one name, or the folder is a file's name.
    """
    if folder.name.endswith(ENDINGS):
        raise InvsrError(f"--output {folder}: several contrasts are written into a folder: name one")
    stems = [_stem(scans[numbers[0]]) if names is None else names[numbers[0]] for numbers in members]
    for n, stem in enumerate(stems):
        if stem in stems[:n]:
            raise InvsrError(
                f"{scans[members[n][0]]}: another scan has the same name, and so would the results: name the contrasts "
                "(--contrast NAME for each scan)"
            )
        if not stem or stem in (".", "..") or "/" in stem or "\0" in stem:
            raise InvsrError(f"--contrast {stem!r}: give a word that a file may be called by")
    return [folder / f"{stem}.nii.gz" for stem in stems]


def _stem(path: Path) -> str:
    ending = next((one for one in ENDINGS if path.name.lower().endswith(one)), "")
    return path.name[: len(path.name) - len(ending)]
