"""Measurements that are kept from one process to the next, in the user's cache folder."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from invsr.errors import InvsrError
from invsr.io.bounds import parse_json, read_text
from invsr.io.files import make_folder, write_whole

FILE = "engines.json"


@dataclass(frozen=True)
class Timing:
    """Milliseconds by name, and when they were measured."""

    milliseconds: Mapping[str, float]
    when: str


def now(milliseconds: Mapping[str, float]) -> Timing:
    """A measurement that was made just now."""
    return Timing(milliseconds, datetime.now().isoformat(" ", "minutes"))


def path() -> Path:
    """The file that measurements are kept in.

    Raises
    ------
    RuntimeError
        When the user has no home folder.
    """
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "invsr" / FILE


def kept(key: str) -> Timing | None:
    """The measurement that was kept under a key; None where there is none, or the file is damaged."""
    entry = _entries().get(key)
    if not isinstance(entry, dict) or not isinstance(entry.get("measured"), str):
        return None
    times = entry.get("milliseconds")
    if not isinstance(times, dict) or not times or not all(map(_is_time, times.values())):
        return None
    return Timing(times, entry["measured"])


def keep(key: str, timing: Timing) -> None:
    """Keep a measurement; where the folder cannot be written, the next process measures again."""
    times = {name: round(value, 3) for name, value in timing.milliseconds.items()}
    entries = {**_entries(), key: {"milliseconds": times, "measured": timing.when}}
    with suppress(InvsrError, OSError, RuntimeError):
        make_folder(path().parent)
        write_whole(path(), json.dumps(entries, indent=1) + "\n")


def _entries() -> dict[str, object]:
    try:
        found = parse_json(read_text(path()))
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
