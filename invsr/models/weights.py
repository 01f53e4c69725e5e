"""Weights files: writing, checking and reading."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.io.bounds import parse_json, require_memory
from invsr.io.files import whole_file
from invsr.models.architectures import build
from invsr.models.networks import Network

# Key under which the description of a trained solver says which solver it is and how its steps go.
DRIVER = "driver"
# What weights are, by their kind, and how they are used.
USES = {
    "denoiser": "a denoiser: use it with --denoiser",
    "unrolled": "an unrolled solver: use it with --method unrolled --model",
    "deq": "an equilibrium solver: use it with --method deq --model",
    "deviation": "a network for error bars: --uncertainty predicted finds it beside the weights of its solver",
}
# Bytes of the header: about 100 for each tensor.
LARGEST_HEADER = 2**22
# What PyTorch raises from pickled files that are damaged, or hold something else.
DAMAGES = (
    *(OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError),
    *(AttributeError, ArithmeticError, AssertionError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
Module = TypeVar("Module", bound=nn.Module)


class OtherKindError(InvsrError):
    """Sound weights of another kind than the one that is needed."""


def save_weights(network: Network, path: str | Path, description: dict[str, Any]) -> None:
    """Write the weights of a network in half precision, with the configuration to build it from.

    Parameters
    ----------
    network : Network
    path : path
    description : dict
        Stored with the weights, as JSON.

    Raises
    ------
    InvsrError
        As `invsr.io.files.whole_file`.
    """
    write_weights(network.state_dict(), path, describe(network) | description)


def load_weights(path: str | Path, sha256: str | None = None) -> tuple[Network, dict[str, Any]]:
    """The network in a weights file, and its description.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        Checksum that the file must have.

    Raises
    ------
    InvsrError
        When the file is missing or damaged, does not match the checksum, or holds no denoiser of invsr.
    """

    def make(about: dict[str, Any]) -> Network:
        require_kind(about, "denoiser")
        return build(about["architecture"], about["config"])

    return read_weights(path, make, sha256)


def require_kind(about: dict[str, Any], *kinds: str) -> None:
    """Check what a weights file holds, by its description.

    Raises
    ------
    OtherKindError
        When it is none of `kinds`.
    """
    is_deviation = about["architecture"] == "DeviationNetwork"
    kind = about[DRIVER]["kind"] if DRIVER in about else "deviation" if is_deviation else "denoiser"
    if kind not in kinds:
        raise OtherKindError(f"holds {USES[kind]}")


def describe(network: Network) -> dict[str, Any]:
    """Architecture and configuration of a network, from which `build` makes it again."""
    return {"architecture": type(network).__name__, "config": network.config}


def write_weights(tensors: Mapping[str, Tensor], path: str | Path, about: dict[str, Any]) -> None:
    """Write tensors in half precision, with a description.

    Raises
    ------
    InvsrError
        As `invsr.io.files.whole_file`.
    """
    from safetensors.torch import save

    halves = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    with whole_file(path) as part:
        part.write_bytes(save(halves, {"invsr": json.dumps(about)}))


def read_weights(
    path: str | Path, make: Callable[[dict[str, Any]], Module], sha256: str | None = None
) -> tuple[Module, dict[str, Any]]:
    """A module built by `make` from the description in a weights file, with its weights; and the description.

    Raises
    ------
    InvsrError
        As `load_weights`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe might never end
        raise InvsrError(f"{path}: cannot be read as weights (not a regular file): name a .safetensors file")
    try:
        stamp = path.stat()
        if sha256 is None:
            # Half precision, as read, then apart, then as float32, then in the network.
            require_memory(path, "weights", 6 * stamp.st_size)
            content, found = path.read_bytes(), ""
        else:
            content, found = _kept(path, stamp.st_mtime_ns, stamp.st_size)
    except OSError as error:
        raise InvsrError(f"{path}: cannot be read as weights ({error.strerror})") from None
    if sha256 is not None and found != sha256:
        raise InvsrError(
            f"{path}: SHA-256 {found[:12]}... is not {sha256[:12]}... as published: "
            "the file is damaged or was changed: install invsr again"
        )
    try:
        about = read_description(path)
        tensors = {name: value.float() for name, value in load(content).items()}
        with torch.device("meta"):  # which takes no memory
            _require_shapes(make(about), tensors)
        module = make(about)
        module.load_state_dict(tensors)
    except OtherKindError as error:
        raise InvsrError(f"{path}: {error}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvsrError(f"{path}: is not a weights file of invsr, or a damaged one ({reason})") from None
    module.eval().requires_grad_(False)
    return module, about


@lru_cache(maxsize=8)
def _kept(path: Path, *_: int) -> tuple[bytes, str]:
    """What a file of the package holds, and its SHA-256, once for a process; it is small. Its stamp makes it new."""
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def _require_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise where a network would be far larger than the weights for it; smaller differences appear on loading them."""
    wanted, held = (sum(one.numel() for one in each.values()) for each in (module.state_dict(), tensors))
    if wanted > 2 * held:
        raise ValueError(f"a network of {wanted} weights, the file has {held}")


def read_description(path: Path) -> dict[str, Any]:
    """What a weights file says of itself: a safetensors header is its length in 8 bytes, little-endian, then JSON.

    Raises
    ------
    OSError, ValueError, KeyError
        When the file cannot be read, or was not written by invsr.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = parse_json(file.read(length))
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise ValueError("no description")
    about = parse_json(header["__metadata__"]["invsr"])
    if not isinstance(about, dict):
        raise ValueError("no description")
    return about
