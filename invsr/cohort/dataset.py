"""Which scans of a BIDS dataset are asked for."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invsr.cohort.names import IMAGES, LONG, Name
from invsr.errors import InvsrError
from invsr.io.bounds import parse_json, read_text
from invsr.io.sidecars import DESCRIPTION
from invsr.io.warn import warn

# Suffixes of images whose intensities are a contrast; maps and phases are none.
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "inplaneT1", "inplaneT2")
ANATOMY = "anat"
INSTALL = "pip install 'invsr[cohort]'"


@dataclass(frozen=True)
class Source:
    """A scan of the dataset.

    Attributes
    ----------
    path : Path
    relative : str
        Its path in the dataset, with slashes.
    name : Name
    """

    path: Path
    relative: str
    name: Name

    @property
    def folder(self) -> str:
        """The name of the folder that it lies in, such as "anat"."""
        return self.path.parent.name


@dataclass(frozen=True)
class Selection:
    """What is asked for; None is all.

    Attributes
    ----------
    participants, sessions : sequence of str, optional
        Labels, with or without ``sub-`` and ``ses-``.
    suffixes : sequence of str
    filters : mapping, optional
        Queries by name, each a mapping from entities to a value, several, or None (without it), as fMRIPrep's filter
        files: a scan is taken that fits one of them.
    """

    participants: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    suffixes: Sequence[str] = SUFFIXES
    filters: Mapping[str, Mapping[str, Any]] | None = None

    def takes(self, name: Name, folder: str) -> bool:
        """Whether a scan in a folder ("anat") is asked for."""
        if name.suffix not in self.suffixes or name.get("part") not in (None, "mag"):
            return False
        if self.sessions is not None and name.get("ses") not in _labels(self.sessions, "ses"):
            return False
        if self.filters is None:
            return folder == ANATOMY
        return any(_fits(query, name, folder) for query in self.filters.values())


def find_scans(root: Path, selection: Selection) -> list[Source]:
    """The scans of a dataset that are asked for, by path.

    Raises
    ------
    InvsrError
        When the folder is no BIDS dataset, a participant or a session is not in it, or no scan is found.
    """
    if not root.is_dir():
        raise InvsrError(f"{root}: is no folder: name the BIDS dataset")
    _require_description(root / DESCRIPTION)
    root = root.resolve()  # as ancpbids names what it finds, where the path has ".." in it
    labels = sorted(one.name.removeprefix("sub-") for one in root.glob("sub-*") if one.is_dir())
    wanted = None if selection.participants is None else _labels(selection.participants, "sub")
    for label in sorted((wanted or set()) - set(labels)):
        raise InvsrError(f"{root}: has no participant {label}: use {_some(labels) or 'a dataset with folders sub-*'}")
    images = []
    for relative in _images(root):
        top, *folders, file = relative.split("/")
        name = Name.of(file)
        if name is None or not folders or not top.startswith("sub-"):
            continue
        if top == f"sub-{name.get('sub')}":
            images.append(Source(root / relative, relative, name))
        elif selection.takes(name, folders[-1]) and (wanted is None or top.removeprefix("sub-") in wanted):
            warn(f"{root / relative}: left out: its name does not begin as its folder's ({top}): rename it, or move it")
    sessions = sorted({one.name.get("ses") or "" for one in images} - {""})
    for label in sorted(_labels(selection.sessions or (), "ses") - set(sessions)):
        raise InvsrError(f"{root}: has no session {label}: use {_some(sessions) or 'a dataset with folders ses-*'}")
    found = [
        one
        for one in images
        if (wanted is None or one.name.get("sub") in wanted) and selection.takes(one.name, one.folder)
    ]
    if not found:
        raise InvsrError(
            f"{root}: no scan that is asked for ({', '.join(selection.suffixes)}) is in it: check labels, --suffix "
            "and filters"
        )
    _warn_of_words_without_a_scan(root, selection, images)
    return sorted(found, key=lambda one: one.relative)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """The queries of a filter file.

    Raises
    ------
    InvsrError
        When it cannot be read, or is not what it is to be.
    """
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise InvsrError(f"{path}: cannot be read as JSON ({error}): repair the filter file") from error
    queries = found.values() if isinstance(found, dict) else [None]
    if not found or not all(isinstance(query, dict) for query in queries):
        example = json.dumps({"flair": {"suffix": "FLAIR", "acquisition": "axial"}})
        raise InvsrError(f"{path}: is no filter file: write queries by name, as {example}")
    return dict(found)


def _require_description(path: Path) -> None:
    """Raise unless a file describes a BIDS dataset."""
    if not path.is_file():
        raise InvsrError(f"{path.parent}: has no {path.name}: name the root of a BIDS dataset, or give it one")
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise InvsrError(f"{path}: cannot be read as JSON ({error}): repair it") from error
    if not isinstance(found, dict) or not isinstance(found.get("BIDSVersion", ""), str):
        example = json.dumps({"Name": "...", "BIDSVersion": "1.10.0"})
        raise InvsrError(f"{path}: is no description of a BIDS dataset: write an object such as {example}")


def _images(root: Path) -> list[str]:
    """Paths of the images in the dataset, without those in its derivatives."""
    try:
        import ancpbids
    except ImportError:
        raise InvsrError(f"ancpbids, which finds scans in a BIDS dataset, is not installed: {INSTALL}") from None
    # Its cache is a pickle in the dataset, which could hold anything. A damaged description, of the dataset or of any
    # derivative in it, would end it: nothing in them is needed.
    left_out = ["derivatives", DESCRIPTION]
    for loop in _loops(root):
        warn(f"{root}: the link {loop} leads to a folder that it lies in: it is not followed")
        left_out.append(glob.escape(loop))
    dataset = ancpbids.load_dataset(str(root), ancpbids.DatasetOptions(ignore=left_out, ignore_pickle_file=True))
    found: list[Any] = dataset.query(scope="raw", extension=list(IMAGES))
    return [Path(one.get_absolute_path()).relative_to(root).as_posix() for one in found]


def _loops(root: Path) -> list[str]:
    """Links to folders that they lie in, relative to the dataset: followed, they come to no end."""
    found = []
    for folder, inside, _ in os.walk(root, followlinks=True):
        links = [name for name in inside if os.path.islink(os.path.join(folder, name))]
        above = {os.path.realpath(str(one)) for one in (folder, *Path(folder).parents)} if links else set[str]()
        loops = [name for name in links if os.path.realpath(os.path.join(folder, name)) in above]
        inside[:] = [name for name in inside if name not in (*loops, "derivatives")]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in loops]
    return sorted(found)


def _warn_of_words_without_a_scan(root: Path, selection: Selection, images: Sequence[Source]) -> None:
    """A suffix that is misspelt, or a query that nothing fits, would leave scans out without a word."""
    there = {one.name.suffix for one in images}
    for suffix in () if tuple(selection.suffixes) == SUFFIXES else selection.suffixes:
        if suffix not in there:
            warn(f"{root}: has no image with the suffix {suffix}: check --suffix")
    for label, query in (selection.filters or {}).items():
        if not any(_fits(query, one.name, one.folder) for one in images):
            warn(
                f"{root}: no image fits the query {label!r} of the filter file: check its entities and values, which "
                'are text as in file names ("01", not 1)'
            )


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")


def _labels(labels: Sequence[str], key: str) -> set[str]:
    return {one.removeprefix(f"{key}-") for one in labels}


def _fits(query: Mapping[str, Any], name: Name, folder: str) -> bool:
    facts = {**dict(name.entities), "suffix": name.suffix, "datatype": folder}
    for key, wanted in {"datatype": ANATOMY, **query}.items():
        value = facts.get(LONG.get(key, key))
        choices = wanted if isinstance(wanted, list) else [wanted]
        if not any(value is None if one is None else value is not None and one in ("*", value) for one in choices):
            return False
    return True
