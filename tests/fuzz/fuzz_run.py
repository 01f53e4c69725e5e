"""Run the command line on one fuzz case as a user would, and say what it must never do."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from invsr.app import command_line

# A case may compute so long, s of all threads, whatever else the machine does, and wait so long, s.
LONGEST, PATIENCE = 20.0, 300.0
# It may take so much memory beyond what was ever taken, bytes.
MOST_MEMORY = 2**30
# What a line on standard error begins with.
LINE = re.compile(r"invsr: (warning|note|error): \S")
# What no user should read.
INTERNAL = re.compile(r"Traceback|object at 0x|<class |[a-z]Error\(|site-packages|\.py\b")
# A volume may reach beyond the range of all data by so many times its width.
MOST_BEYOND = 10.0


@dataclass(frozen=True)
class Case:
    """Files in a folder, and the words after `invsr`."""

    words: tuple[str, ...]
    files: tuple[Any, ...] = ()
    # Names that already exist where the command is to write; they may be replaced, and only by a whole file.
    old: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a run did."""

    code: Any = 0
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


# What nibabel raises from damaged files.
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error),
    *(nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError),
)


class Hang(BaseException):
    """A case that took too long."""


def run(case: Case, folder: Path) -> Outcome:
    """Write the files, run the command in `folder`, and check everything that must hold."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for one in case.files:
        one.write(folder)
    for name in case.old:
        (folder / name).write_bytes(b"old")
    before = _snapshot(folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Outcome()
    start = time.process_time()
    with _at_home(folder), _as_user(found, case.words):
        try:
            with _limited():
                command_line.main()
        except SystemExit as end:
            found.code = end.code or 0
        except Hang:
            found.code = "hang"
            found.problems.append(f"hang: {traceback.format_exc().splitlines()[-12:]}")
        except Exception as error:  # whatever it is, the command must not end with it
            found.code = "traceback"
            where = traceback.extract_tb(error.__traceback__)[-1]
            inner = [one for one in traceback.extract_tb(error.__traceback__) if "/invsr/" in one.filename][-1]
            found.problems.append(
                f"traceback: {type(error).__name__}: {str(error)[:200]} at {Path(where.filename).name}:{where.lineno}, "
                f"from {Path(inner.filename).name}:{inner.lineno} {inner.name}"
            )
    found.seconds = time.process_time() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    if found.seconds > LONGEST:
        found.problems.append(f"hang: {found.seconds:.0f} s")
    if grown > MOST_MEMORY:
        found.problems.append(f"memory: {grown / 2**30:.1f} GiB more")
    found.problems += _of_words(found) + _of_files(case, found, folder, before)
    if found.code == 0:
        found.problems += _of_results(case, found, folder)
    return found


@contextmanager
def _as_user(found: Outcome, words: tuple[str, ...]) -> Iterator[None]:
    """Standard streams, warnings and logging as a Python started from a shell has them."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    saved = sys.stdout, sys.stderr, sys.argv
    handlers, logging.root.handlers = logging.root.handlers, []
    own = [one for one in logging.getLogger("nibabel.global").handlers if isinstance(one, logging.StreamHandler)]
    streams = [handler.stream for handler in own]
    try:
        sys.stdout, sys.stderr, sys.argv = out, err, ["invsr", *words]
        for handler in own:
            handler.setStream(err)
        with warnings.catch_warnings():
            warnings.resetwarnings()
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        sys.stdout, sys.stderr, sys.argv = saved
        logging.root.handlers = handlers
        for handler, stream in zip(own, streams, strict=True):
            handler.setStream(stream)
        found.out, found.err = (one.buffer.getvalue().decode() for one in (out, err))


@contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, LONGEST), signal.SIGALRM: (signal.ITIMER_REAL, PATIENCE)}
    before = {name: signal.signal(name, stop) for name in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for name, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(name, before[name])


def _snapshot(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _of_words(found: Outcome) -> list[str]:
    lines = found.err.splitlines()
    errors = [line for line in lines if line.startswith("invsr: error: ")]
    problems = [f"raw line: {line[:200]}" for line in lines if not LINE.match(line)]
    problems += [f"internals shown: {line[:300]}" for line in lines if INTERNAL.search(line)]
    if found.code == 0 and errors:
        problems.append("an error, and exit code 0")
    if found.code not in (0, "hang", "traceback") and len(errors) != 1:
        problems.append(f"{len(errors)} lines of error for exit code {found.code}: {found.err[-300:]}")
    return problems


def _of_files(case: Case, found: Outcome, folder: Path, before: dict[str, str]) -> list[str]:
    after = _snapshot(folder)
    changed = {name for name in after if before.get(name) != after[name]}
    problems = [f"gone: {name}" for name in before if name not in after]
    inputs = {one.name for one in case.files}
    problems += [f"input changed: {name}" for name in changed & inputs]
    if found.code != 0:
        problems += [f"left over or changed after an error: {name}" for name in sorted(changed)]
    problems += [f"temporary left: {name}" for name in after if Path(name).name.startswith((".invsr", "tmp"))]
    return problems


def _of_results(case: Case, found: Outcome, folder: Path) -> list[str]:
    command = next(iter(case.words), "")
    problems = []
    inputs = {one.name for one in case.files}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name in inputs:
            continue
        if path.name.lower().endswith((".nii", ".nii.gz")):
            problems += _of_volume(case, path, folder, own=command in ("reconstruct", "simulate"))
        elif path.suffix == ".json":
            problems += _of_json(name, path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            if not all(bool(value.isfinite().all()) for value in load_file(path).values()):
                problems.append(f"{name}: weights that are not finite")
        elif path.suffix == ".tfm" and re.search(r"nan|inf", path.read_text(), re.IGNORECASE):
            problems.append(f"{name}: not finite")
    if "--json" in case.words and "--help" not in case.words:
        problems += _of_json("standard output", found.out)
    return problems


def _of_json(name: str, text: str) -> list[str]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return [f"{name}: {error}"]
    return []


def _of_volume(case: Case, path: Path, folder: Path, own: bool) -> list[str]:
    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj, dtype=np.float64)
    except UNREADABLE as error:
        return [f"{path.name}: cannot be loaded: {error}"]
    if not np.isfinite(values).all():
        return [f"{path.name}: {(~np.isfinite(values)).sum()} of {values.size} voxels are not finite"]
    if not np.isfinite(image.affine).all():
        return [f"{path.name}: the affine is not finite"]
    if not own or "_std" in path.name or "_sample" in path.name:
        return []
    low, high = _range_of_inputs(case, folder)
    reach = MOST_BEYOND * (high - low) * (1 + 8 * _noise(case))
    weighted = "--lam" in case.words or "--noise" in case.words
    if weighted and np.ptp(values) <= 1e-6 * (high - low):
        return [f"{path.name}: constant, {values.max():.4g}, from data {low:.4g} to {high:.4g}"]
    if values.size and not low - reach <= values.min() <= values.max() <= high + reach:
        return [f"{path.name}: {values.min():.4g} to {values.max():.4g} from data {low:.4g} to {high:.4g}"]
    return []


def _range_of_inputs(case: Case, folder: Path) -> tuple[float, float]:
    found = [0.0]
    for one in case.files:
        if one.name in case.words and one.name.endswith((".nii", ".nii.gz")):
            try:
                values = np.asarray(nib.load(folder / one.name).dataobj, dtype=np.float64)
            except UNREADABLE:  # such a file has no range
                continue
            found += values[np.isfinite(values)].ravel().tolist()
    return min(found), max(found)


def _noise(case: Case) -> float:
    words = case.words
    if words[0] != "simulate" or "--noise" not in words:
        return 0.0
    return abs(float(words[words.index("--noise") + 1]))
