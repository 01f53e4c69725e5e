"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from invsr.errors import InvsrError

OUTPUT_ENDINGS = (".nii.gz", ".nii")


def check_writable(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> None:
    """Raise unless a file can be written at `path`; call it before a long computation. It leaves nothing behind.

    Raises
    ------
    InvsrError
        When the name has none of the endings, the folder is missing or not writable, or the path is taken by
        something other than a writable file.
    """
    _create_beside(Path(path), endings).unlink()


@contextmanager
def whole_file(path: str | os.PathLike[str], endings: Sequence[str] = ()) -> Iterator[Path]:
    """A new file to write to, which takes the place of `path` at the end of the block.

    Until then an older file of that name stays as it is; after an error it still does, and the new one is removed.

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
    temporary = _create_beside(path, endings)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file)  # network disks report that they are full only here
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InvsrError(f"{path}: could not be written ({reason}): free some space or change the folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8), whole or not at all.

    Raises
    ------
    InvsrError
        As `whole_file`.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _create_beside(path: Path, endings: Sequence[str]) -> Path:
    """An empty new file in the folder of `path`, with the ending of `path`."""
    ending = next((e for e in endings or [path.suffix] if path.name.lower().endswith(e.lower())), None)
    if ending is None:
        raise InvsrError(f"{path}: an output file must end in {' or '.join(reversed(endings))}: rename it")
    temporary = path.parent / f".invsr-{secrets.token_hex(8)}{ending}"
    try:
        if not path.parent.is_dir():
            raise InvsrError(f"{path}: the folder {path.parent} does not exist: create it first")
        if path.exists() and not path.is_file():
            raise InvsrError(f"{path}: is not a regular file: choose another name for the output")
        if path.exists() and not os.access(path, os.W_OK):
            raise InvsrError(f"{path}: exists and is write-protected: choose another name for the output")
        # Files of `tempfile` are private to their owner; this one becomes the output.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        reason = error.strerror or error
        raise InvsrError(f"{path}: the folder is not writable ({reason}): choose another folder") from error
    return temporary
