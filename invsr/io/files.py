"""Text files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from invsr.errors import InvsrError

OUTPUT_ENDINGS = (".nii.gz", ".nii")


def check_writable(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> None:
    """Raise unless a file could be written here: worth knowing before a long computation. Leaves nothing behind.

    Raises
    ------
    InvsrError
        When the name has none of the endings, the folder is missing or not writable, or the path is taken by
        something other than a writable file.
    """
    _create_beside(path, endings).unlink()


def _create_beside(path: str | os.PathLike[str], endings: Sequence[str] = OUTPUT_ENDINGS) -> Path:
    """An empty new file in the folder of `path`, with its ending."""
    path = Path(path)
    ending = next((e for e in endings if path.name.lower().endswith(e)), None)
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
        # Not by `tempfile`, whose files are private to their owner: this one is to become the output.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        reason = error.strerror or error
        raise InvsrError(f"{path}: the folder is not writable ({reason}): choose another folder") from error
    return temporary


def write_whole(path: Path, text: str) -> None:
    """Write beside the path, then rename: an older file stays until the new one is complete.

    Raises
    ------
    InvsrError
        When it cannot be written; nothing is left behind then.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvsrError(f"{path}: cannot be written ({error.strerror}): choose another folder") from None
