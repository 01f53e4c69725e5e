"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from invsr.errors import InvsrError

OUTPUT_ENDINGS = (".nii.gz", ".nii")
# A file that is being written; one that has not changed for so long (s) is left over from a process that was killed.
PART = re.compile(r"\.invsr-[0-9a-f]{16}(\.\w+)*")
LEFT_OVER = 86400


def check_writable(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> None:
    """Raise unless a file can be written at `path`; call it before a long computation. It leaves nothing behind.

    Raises
    ------
    InvsrError
        When the name has none of the endings, the folder is missing or not writable, or the path is taken by
        something other than a writable file.
    """
    with _part_of(Path(path), endings):
        pass


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it, where there is none.

    Raises
    ------
    InvsrError
        When it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if isinstance(error, FileExistsError) else error.strerror
        raise InvsrError(f"{path}: no folder can be made there ({reason}): choose another") from error


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise unless a folder is there, or can be made, and files in it. It leaves nothing behind.

    Raises
    ------
    InvsrError
        As `make_folder` and `check_writable`.
    """
    path = Path(path)
    missing = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    try:
        make_folder(path)
        check_writable(path / ".invsr", ("",))
    finally:
        for one in missing:
            if os.path.isdir(one):  # `Path.is_dir` raises where a name is too long
                one.rmdir()


@contextmanager
def whole_file(path: str | os.PathLike[str], endings: Sequence[str] = ()) -> Iterator[Path]:
    """A new file to write to, which takes the place of `path` at the end of the block.

    Until then an older file of that name stays as it is; after an error it still does, and the new one is removed. A
    process that is killed leaves the new one, hidden, as ``.invsr-*``; it is removed by the first output that is
    written into the folder a day later or more.

    Parameters
    ----------
    path : path
    endings : sequence of str, optional
        Endings that the name may have; by default any.

    Raises
    ------
    InvsrError
        When `check_writable` raises it, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "notes.txt")
    ...     with whole_file(path) as part:
    ...         _ = part.write_text("all of it")
    ...     path.read_text()
    'all of it'
    """
    path = Path(path)
    with _part_of(path, endings) as part:
        try:
            yield part
            with open(part, "rb+") as file:
                os.fsync(file)  # network disks report that they are full only here
            os.replace(part, path)
        except OSError as error:
            reason = error.strerror or error
            remedy = "free some space or change the folder"
            raise InvsrError(f"{path}: could not be written ({reason}): {remedy}") from error


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8), whole or not at all.

    Raises
    ------
    InvsrError
        As `whole_file`.
    """
    with whole_file(path) as part:
        # File names may hold bytes that are no text.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256(path: str | os.PathLike[str]) -> str:
    """The checksum of a file.

    Raises
    ------
    InvsrError
        When it cannot be read.
    """
    try:
        found = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(2**20):
                found.update(block)
        return found.hexdigest()
    except OSError as error:
        raise InvsrError(f"{path}: cannot be read ({error.strerror}): check the path and permissions") from error


@contextmanager
def _part_of(path: Path, endings: Sequence[str]) -> Iterator[Path]:
    """An empty new file in the folder of `path`, with the ending of `path`; gone at the end of the block."""
    ending = next((e for e in endings or [path.suffix] if path.name.lower().endswith(e.lower())), None)
    if ending is None:
        raise InvsrError(f"{path}: an output file must end in {' or '.join(reversed(endings))}: rename it")
    part = path.parent / f".invsr-{secrets.token_hex(8)}{ending}"
    try:  # from before the file is made: a signal may arrive at any moment
        try:
            _require_free(path)
            _remove_left_over(path.parent)
            # Files of `tempfile` are private to their owner; this one becomes the output.
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            reason = error.strerror or error
            raise InvsrError(f"{path}: the folder is not writable ({reason}): choose another folder") from error
        yield part
    finally:
        try:
            _remove(part)
        except KeyboardInterrupt:  # it arrived just before
            _remove(part)
            raise


def _remove(part: Path) -> None:
    with suppress(OSError):
        part.unlink(missing_ok=True)


def _require_free(path: Path) -> None:
    """Raise unless `path` is in a folder and not taken by something other than a writable file."""
    if not path.parent.is_dir():
        raise InvsrError(f"{path}: the folder {path.parent} does not exist: create it first")
    if path.exists() and not path.is_file():
        raise InvsrError(f"{path}: is not a regular file: choose another name for the output")
    if path.exists() and not os.access(path, os.W_OK):
        raise InvsrError(f"{path}: exists and is write-protected: choose another name for the output")


def _remove_left_over(folder: Path) -> None:
    """Remove what processes that were killed left in the folder; a part that another one is writing is younger."""
    for entry in os.scandir(folder):
        if PART.fullmatch(entry.name):
            with suppress(OSError):  # another process removes it as well
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_OVER:
                    os.unlink(entry)
