"""Warnings about files."""

from __future__ import annotations

import warnings

from invsr.errors import InvsrWarning


def warn(message: str) -> None:
    """Warn about the file that the caller reads."""
    warnings.warn(message, InvsrWarning, stacklevel=4)
