"""The derivative dataset: what its files say, and how they get there whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsr.cohort.jobs import RUN, Run, Target
from invsr.errors import InvsrError
from invsr.io.files import check_folder, make_folder, write_whole
from invsr.io.sidecars import DESCRIPTION, inherited
from invsr.pipeline import Reconstruction

# Where results wait until they are whole; validators pass over it.
HIDDEN = ".invsr-work"
# Folders without a slash: with one, the validator takes the folder itself for a file that it does not know.
IGNORED = ("*.html", "group.tsv", "reports", "logs")
BIDS_VERSION = "1.10.0"
# The space of each image itself, and the dataset that was reconstructed, as BIDS URIs name it.
RAW = "raw"
# Entry of a sidecar: the thickness of the slices of each scan, mm.
THICKNESS = "SourceSliceThickness"
README = """# Isotropic volumes by invsr {version}

One volume for each contrast of each session, as `*_space-orig_res-iso_desc-invsr_*.nii.gz`, in the world coordinates of
its first scan. The sidecar of a volume names the scans that it is made of (Sources), how it was made, and how well it
explains the scans (Chi2, about 1; Gain, about 1). `reports/` holds a page for each volume, `logs/` what became of each
scan, and `group.html` a table of all. What lies between thick slices was not measured: this is no image for diagnosis.
"""


def prepare_dataset(root: Path, out: Path) -> None:
    """Make the derivative dataset where there is none, with its description.

    Raises
    ------
    InvsrError
        When it cannot be written to, or is the dataset itself.
    """
    if os.path.exists(out) and os.path.samefile(root, out):
        raise InvsrError(f"{out}: is the dataset itself: name another folder, such as {out / 'derivatives' / 'invsr'}")
    check_folder(out)
    make_folder(out / HIDDEN)
    description = {
        "Name": "Isotropic volumes by invsr",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "invsr", "Version": version("invsr")}],
        "SourceDatasets": [{"URL": root.absolute().as_uri()}],
        "DatasetLinks": {RAW: root.absolute().as_uri()},
    }
    texts = {
        DESCRIPTION: json.dumps(description, indent=2) + "\n",
        "README.md": README.format(version=version("invsr")),
        ".bidsignore": "".join(f"{one}\n" for one in IGNORED),
    }
    for name, text in texts.items():
        path = out / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)


def entries_of(target: Target, result: Reconstruction, run: Run, said: Sequence[str], checksum: str) -> dict[str, Any]:
    """The sidecar of a result.

    Parameters
    ----------
    said : sequence of str
        Warnings and remarks.
    checksum : str
        SHA-256 of the volume.
    """
    sources = [f"bids:{RAW}:{source.relative}" for source in target.sources]
    spacing = "x".join(f"{value:.4g}" for value in result.grid.spacing)
    known = [value for value in result.slice_correlations if value is not None]
    return {
        "Sources": sources,
        "SpatialReference": sources[0],
        "Resolution": f"{spacing} mm, reconstructed from thick slices",
        # As its first source, whose sidecar seldom says so: BIDS requires the entry.
        "SkullStripped": inherited(target.sources[0].path, "SkullStripped") is True,
        "Description": f"Reconstructed by invsr {version('invsr')}, method {result.method}",
        "Method": str(result.method),
        "Status": result.status.value,
        # Not SliceThickness, which is a number, and would be taken for that of the result.
        THICKNESS: [scan.thickness for scan in result.problem.scans],
        "SliceSpacing": [scan.slice_spacing for scan in result.problem.scans],
        "SliceProfile": [str(scan.slice_profile) for scan in result.problem.scans],
        "Chi2": result.chi2,
        "Gain": result.gain,
        "NoiseSigma": result.sigma,
        # The scale of the first scan is its bright tissue.
        "NoiseShare": result.problem.sigma,
        "PriorShareOfDetail": result.evidence.detail,
        "SliceCorrelation": known[0] if known else None,
        "Warnings": list(said),
        RUN: run,
        "SHA256": checksum,
    }


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet, on the disk of the dataset; gone at the end."""
    room = out / HIDDEN / "staging"
    make_folder(room)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{socket.gethostname()}-{os.getpid()}-", dir=room))
    except OSError as error:
        raise InvsrError(f"{out}: no folder can be made there ({error.strerror}): free some space") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, path: Path) -> None:
    """Give a whole file its place."""
    make_folder(path.parent)
    try:
        os.replace(staged, path)
    except OSError as error:
        raise InvsrError(
            f"{path}: could not be written ({error.strerror}): free some space or change the folder"
        ) from error


def remove(path: Path) -> None:
    """Take a file away, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InvsrError(f"{path}: could not be removed ({error.strerror}): change the folder's permissions") from error


def remove_left_over(out: Path) -> None:
    """Remove what processes of this machine that were killed left behind."""
    import psutil

    for folder in (out / HIDDEN / "staging").glob(f"{socket.gethostname()}-*"):
        with suppress(ValueError):
            if not psutil.pid_exists(int(folder.name.rsplit("-", 2)[1])):
                shutil.rmtree(folder, ignore_errors=True)
