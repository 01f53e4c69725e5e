"""The trained models that come with the package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from invsr.errors import InvsrError
from invsr.models.weights import DRIVER, read_description

# Weights, model cards, and `models.json`, which lists the models and the SHA-256 of their files.
ROOM = Path(__file__).parent / "files"
DEFAULT = "mri-denoiser"
# Prefix of deepinv's denoisers, before the name of their class: "deepinv:DRUNet".
DEEPINV = "deepinv:"
# Kind of the networks that know how wrong a solver is, and the ending of their names after that of the solver.
DEVIATION, ENDING = "deviation", "-deviation"


def models(kind: str | None = None) -> dict[str, dict[str, Any]]:
    """The models of the package: from name to file, kind, sha256, purpose, parameters and noise range.

    Parameters
    ----------
    kind : {"denoiser", "unrolled", "deq", "deviation"}, optional
        Only these.

    Examples
    --------
    >>> "mri-denoiser" in models()
    True
    """
    found: dict[str, dict[str, Any]] = json.loads((ROOM / "models.json").read_text(encoding="utf-8"))
    return {name: entry for name, entry in found.items() if kind in (None, entry["kind"])}


def card(name: str) -> str:
    """The card of a model: training data, licence, noise range, figures and limits.

    Raises
    ------
    InvsrError
        When there is no such model.
    """
    known(name)
    return (ROOM / f"{name}.md").read_text(encoding="utf-8")


def weights_of(name: str, kind: str | None = None) -> tuple[Path, str]:
    """The weights file of a model of the package, and its SHA-256.

    Raises
    ------
    InvsrError
        As `known`.
    """
    entry = known(name, kind)
    return ROOM / entry["file"], entry["sha256"]


def holds_solver(name: str | Path) -> bool:
    """Whether a model of the package, or a weights file, is a trained solver rather than a denoiser."""
    if not str(name).endswith(".safetensors"):
        return models().get(str(name), {"kind": "denoiser"})["kind"] not in ("denoiser", DEVIATION)
    if not os.path.isfile(name):
        return False
    try:
        about = read_description(Path(name))
    except (OSError, KeyError, TypeError, ValueError):
        return False  # `read_weights` says what is wrong with it
    return DRIVER in about


def known(name: str, kind: str | None = None) -> dict[str, Any]:
    """The entry of a model of the package.

    Raises
    ------
    InvsrError
        When there is none, or not of this kind.
    """
    there = models(kind)
    if name not in there:
        others = f", or {DEEPINV}CLASS for one of deepinv's" if kind == "denoiser" else ""
        raise InvsrError(f"no {kind or 'model'} {name!r}: use one of {', '.join(there)}, a .safetensors file{others}")
    return there[name]
