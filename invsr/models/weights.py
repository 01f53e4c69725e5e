"""Weights files: written, checked and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.models.architectures import build
from invsr.models.networks import Network

# What a description has of a whole solver: which, and how its steps go.
DRIVER = "driver"
Module = TypeVar("Module", bound=nn.Module)


def save_weights(network: Network, path: str | Path, description: dict[str, Any]) -> None:
    """Write a network's weights, half precision, with what is needed to build it again.

    Parameters
    ----------
    network : Network
    path : path
    description : dict
        Kept with the weights; JSON.

    Raises
    ------
    InvsrError
        When the file cannot be written; nothing is left of it then.
    """
    write_weights(network.state_dict(), path, describe(network) | description)


def load_weights(path: str | Path, sha256: str | None = None) -> tuple[Network, dict[str, Any]]:
    """The network in a weights file, and its description.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        What the file's checksum has to be.

    Raises
    ------
    InvsrError
        When the file is missing, damaged, not the one that the checksum belongs to, or not made by invsr.
    """

    def make(about: dict[str, Any]) -> Network:
        if DRIVER in about:
            raise ValueError(f"it belongs to a whole solver: use it with --method {about[DRIVER]['kind']}")
        return build(about["architecture"], about["config"])

    return read_weights(path, make, sha256)


def describe(network: Network) -> dict[str, Any]:
    """What `build` needs to make a network again."""
    return {"architecture": type(network).__name__, "config": network.config}


def write_weights(tensors: Mapping[str, Tensor], path: str | Path, about: dict[str, Any]) -> None:
    """Write tensors in half precision, with a description.

    Raises
    ------
    InvsrError
        When the file cannot be written; nothing is left of it then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    halves = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        save_file(halves, beside, {"invsr": json.dumps(about)})
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise InvsrError(f"{path}: cannot be written ({error})") from None
    finally:
        beside.unlink(missing_ok=True)


def read_weights(
    path: str | Path, make: Callable[[dict[str, Any]], Module], sha256: str | None = None
) -> tuple[Module, dict[str, Any]]:
    """The module that `make` builds from the description in a weights file, with the weights in it; and that.

    Raises
    ------
    InvsrError
        As `load_weights`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvsrError(f"{path}: cannot be read as weights ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise InvsrError(
            f"{path}: SHA-256 {found[:12]}... is not {sha256[:12]}... as published: "
            "the file is damaged or was changed: install invsr again"
        )
    try:
        tensors = {name: value.float() for name, value in load(content).items()}
        about = json.loads(_metadata(content)["invsr"])
        module = make(about)
        module.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvsrError(f"{path}: is not a weights file of invsr, or a damaged one ({reason})") from None
    module.eval().requires_grad_(False)
    return module, about


def _metadata(content: bytes) -> dict[str, str]:
    """The header of a safetensors file: its length in 8 bytes, little-endian, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found
