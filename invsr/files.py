"""Text files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from invsr.errors import InvsrError


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
