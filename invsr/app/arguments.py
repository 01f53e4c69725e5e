"""What words on the command line mean: numbers, lists after one option, the names of files beside the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invsr.errors import InvsrError

if TYPE_CHECKING:  # imported when it is used: it brings PyTorch
    from invsr.grid import Grid
    from invsr.volume import Volume

# Options that take several values after one flag, as in `--slice-thickness 3 3 3.3`.
NUMERIC = ("--slice-thickness", "--noise", "--patch", "--channels")
LABELS = ("--participant-label", "--session-label", "--suffix")
SEVERAL = (*NUMERIC, *LABELS, "--slice-profile", "--mask", "--contrast")
FLAGS = (
    *("--quiet", "--json", "--adapt", "--contrasts", "--self-supervised", "--help"),
    *("--no-report", "--dashboard", "--dry-run", "--phase", "--complex"),
)


def repeat_options(arguments: list[str]) -> list[str]:
    """``--mask A B`` as ``--mask A --mask B``, for the options that take several values.

    Numbers after an option that takes numbers always belong to it; names after the others do once a
    scan has been named, because before that they could be the scans.
    """
    out: list[str] = []
    option, names = "", 0
    for n, word in enumerate(arguments):
        before = arguments[n - 1] if n else ""
        if word.startswith("-") and not _is_number(word):
            option = word if word in SEVERAL else ""
        elif before.startswith("-") and before not in FLAGS and "=" not in before and not _is_number(before):
            pass  # the value of the option before it
        elif option and (_is_number(word) or word == "auto" if option in NUMERIC else names > 1):
            out.append(option)
        else:
            names += 1  # the command itself, then the scans
            option = ""
        out.append(word)
    return out


def parsed_spacing(text: str, option: str = "--spacing") -> list[float]:
    """Millimetres along three axes."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 3) or not all(_is_number(part) for part in parts):
        raise InvsrError(f"{option} {text}: give millimetres as 1.0 or 0.8x0.8x1")
    return [float(part) for part in parts] * (3 // len(parts))


def parsed_matrix(text: str, option: str) -> list[int]:
    """Voxels along two or three axes."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise InvsrError(f"{option} {text}: give voxels as 64x64, or 64x64x32 for a three-dimensional trajectory")
    return [int(part) for part in parts]


def parsed_weight(text: str | None) -> float | None:
    """A regularisation parameter; None for "auto", and where it was not given."""
    if text is None or text == "auto":
        return None
    if not _is_number(text) or not 0 < float(text) < math.inf:
        raise InvsrError(f"--lam {text}: give auto or a finite number above zero")
    return float(text)


def parsed_thickness(texts: list[str] | None) -> list[float | str] | None:
    """Millimetres or "auto" for each; None where none was given."""
    for text in texts or []:
        if text != "auto" and not _is_number(text):
            raise InvsrError(f"--slice-thickness {text}: give millimetres, or auto")
    return [text if text == "auto" else float(text) for text in texts] if texts else None


def axis_number(text: str, option: str = "--axis") -> int:
    """0, 1 or 2 for i, j or k."""
    axes = {"i": 0, "j": 1, "k": 2, "0": 0, "1": 1, "2": 2}
    if text not in axes:
        raise InvsrError(f"{option} {text}: use i, j or k")
    return axes[text]


def motion_of(transforms: Path | None, level: str) -> Any:
    """Motion from a file, or the level at which it is to be estimated.

    Raises
    ------
    InvsrError
        When both are asked for.
    """
    if transforms is None:
        return level
    if level != "none":
        raise InvsrError(f"--transforms and --motion {level}: motion is either given or estimated")
    from invsr.motion import load_motion

    return load_motion(transforms)


def beside(output: Path, what: str) -> Path:
    """``OUT_what.nii.gz`` for ``OUT.nii.gz``."""
    ending = next((one for one in (".nii.gz", ".nii") if output.name.endswith(one)), "")
    return output.with_name(f"{output.name.removesuffix(ending)}_{what}{ending}")


def moved_to(output: Path) -> Path:
    """``OUT_motion.json`` for ``OUT.nii.gz``."""
    path = beside(output, "motion")
    return path.with_name(path.name.split(".nii")[0] + ".json")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def grid_of(path: Path | None, geometry: str | None) -> Grid | None:
    """The grid of a file's first volume, by the geometry that the scans are read with; None without a file."""
    from invsr.io.mgh import ENDINGS as MGH_ENDINGS
    from invsr.io.nifti import load
    from invsr.io.nrrd import ENDINGS as NRRD_ENDINGS

    if path is None:
        return None
    # Files of one geometry leave nothing to choose, and the scans beside them may need the option.
    only_one = path.name.lower().endswith((*MGH_ENDINGS, *NRRD_ENDINGS))
    return load(path, 0, geometry=None if only_one else geometry).grid


@dataclass(frozen=True)
class Inputs:
    """The files of a command that reads scans, and what is said of them.

    Attributes
    ----------
    scans, masks : list of Path
    volume : int or None
        Number of the volume of a 4-D file.
    geometry, slice_axis : str or None
    acquired : dict
        How the scans were acquired: as in `invsr.pipeline.preparation.scans_of`.
    """

    scans: list[Path]
    masks: list[Path]
    volume: int | None
    geometry: str | None
    slice_axis: str | None
    acquired: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """Scans, then masks."""
        return [*self.scans, *self.masks]

    def load(self) -> tuple[list[Volume], dict[str, Any]]:
        """The volumes of the scans, and what the pipeline is to be told of them."""
        from invsr.io.nifti import load

        masks = [load(path, 0, geometry=self.geometry) for path in self.masks]
        axis = None if self.slice_axis is None else axis_number(self.slice_axis, "--slice-axis")
        volumes = [load(path, self.volume, geometry=self.geometry) for path in self.scans]
        return volumes, self.acquired | {"masks": masks or None, "slice_axis": axis}
