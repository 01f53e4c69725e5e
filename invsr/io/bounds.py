"""Sizes that are checked before memory is taken: files may be damaged, or made to do harm."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from invsr.errors import InvsrError
from invsr.numerics import memory

# Bytes of a text file: sidecars with a copy of the DICOM header have up to some 100 kB.
LARGEST_TEXT = 2**24
# Gzip's method shortens at most so many times.
DEFLATE = 1032


def read_text(path: Path) -> str:
    """A text file, UTF-8, of which no more is read than a text file can have.

    Raises
    ------
    OSError, ValueError
        When it cannot be read, is longer, or is not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"longer than {LARGEST_TEXT} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str | bytes) -> Any:
    """What JSON says.

    Raises
    ------
    ValueError
        When it is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def require_bytes(path: Path, image: str, needed: int) -> None:
    """Raise where a file cannot hold the voxels of its header.

    Raises
    ------
    InvsrError, OSError
    """
    factor = {".gz": DEFLATE, ".mgz": DEFLATE, ".nii": 1, ".img": 1, ".mgh": 1}.get(Path(image).suffix.lower())
    held = os.path.getsize(image)
    if factor is not None and needed > factor * held:
        raise InvsrError(
            f"{path}: is damaged or cut short (the header is of {needed} bytes, the file holds {held}): copy or export "
            "it again"
        )


def require_memory(path: Path, what: str, needed: int) -> None:
    """Raise where reading a file would take more memory than is free; `what` is what it holds.

    Raises
    ------
    InvsrError
    """
    free = memory.free_memory(torch.device("cpu"))
    if needed > free:
        raise InvsrError(
            f"{path}: holds {what}: reading takes {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are "
            "free: crop it, or close other programs"
        )
