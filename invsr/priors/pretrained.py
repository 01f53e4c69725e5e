"""Weights files: written, checked and read back; the denoisers that come with the package, and deepinv's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from invsr.errors import InvsrError
from invsr.priors.denoiser import Denoiser
from invsr.priors.networks import Network, build

# Weights, their cards and `models.json`, which says what there is and what each file's SHA-256 is.
ROOM = Path(__file__).parent / "weights"
DEFAULT = "mri-denoiser"
# How deepinv's denoisers are named here, before their class: "deepinv:DRUNet".
DEEPINV = "deepinv:"


def models() -> dict[str, dict[str, Any]]:
    """What comes with the package: name to file, sha256, what it is for, parameters, noise range.

    Examples
    --------
    >>> "mri-denoiser" in models()
    True
    """
    found: dict[str, dict[str, Any]] = json.loads((ROOM / "models.json").read_text(encoding="utf-8"))
    return found


def card(name: str) -> str:
    """A model's card: data, licence, noise range, figures, limits.

    Raises
    ------
    InvsrError
        When there is no such model.
    """
    _known(name)
    return (ROOM / f"{name}.md").read_text(encoding="utf-8")


def pretrained(name: str | Path = DEFAULT, **options: Any) -> Denoiser:
    """A denoiser with its weights, ready to be a prior.

    Parameters
    ----------
    name : str or path
        A model of the package (`models`), a weights file from `invsr train`, or ``"deepinv:CLASS"`` for a denoiser
        of deepinv with the weights that it downloads (``"deepinv:CLASS=FILE"``: with weights from a file).
    **options
        Of `Denoiser`.

    Raises
    ------
    InvsrError
        When there is no such model or file, it is damaged, or deepinv cannot provide it.

    Examples
    --------
    >>> pretrained("mri-denoiser-fast").dim
    3
    """
    text = str(name)
    if text.startswith(DEEPINV):
        return _deepinv(text.removeprefix(DEEPINV), **options)
    if text.endswith(".safetensors"):
        network, _ = load_weights(text)
        return Denoiser(network, name=Path(text).stem, **options)
    entry = _known(text)
    path = ROOM / entry["file"]
    network, _ = load_weights(path, entry["sha256"])
    return Denoiser(network, name=text, **options)


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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    about = {"architecture": type(network).__name__, "config": network.config, **description}
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        save_file(tensors, beside, {"invsr": json.dumps(about)})
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        raise InvsrError(f"{path}: cannot be written ({error})") from None
    finally:
        beside.unlink(missing_ok=True)


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
        network = build(about["architecture"], about["config"])
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvsrError(f"{path}: is not a weights file of invsr, or a damaged one ({reason})") from None
    return network.eval().requires_grad_(False), about


def _metadata(content: bytes) -> dict[str, str]:
    """The header of a safetensors file: its length in 8 bytes, little-endian, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return found


def _known(name: str) -> dict[str, Any]:
    there = models()
    if name not in there:
        raise InvsrError(
            f"no denoiser {name!r}: use one of {', '.join(there)}, a .safetensors file, "
            f"or {DEEPINV}CLASS for one of deepinv's"
        )
    return there[name]


def _deepinv(name: str, **options: Any) -> Denoiser:
    kind, _, file = name.partition("=")
    try:
        import deepinv
    except ImportError:
        raise InvsrError(
            f'{DEEPINV}{name}: deepinv is not installed: pip install "invsr[deepinv]", or use {DEFAULT}'
        ) from None
    made = getattr(deepinv.models, kind, None)
    if not callable(made):
        raise InvsrError(f"{DEEPINV}{name}: deepinv.models has no {kind}: it has DRUNet, GSDRUNet, DnCNN, RAM")
    channels: dict[str, Any] = {} if kind == "RAM" else {"in_channels": 1, "out_channels": 1}
    weights: Any = file or (True if kind == "RAM" else "download")
    try:
        network = made(pretrained=weights, **channels).eval()
    # No connection, a wrong file, a class that needs more packages: each raises something else.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvsrError(
            f"{DEEPINV}{name}: its weights cannot be had ({reason}): connect to the internet, give a file as "
            f"{DEEPINV}{kind}=FILE, or use {DEFAULT}, which comes with the package"
        ) from None
    network.requires_grad_(False)

    def denoise(x: torch.Tensor, sigma: Any) -> torch.Tensor:
        out: torch.Tensor = network(x, sigma=sigma)
        return out

    prior = Denoiser(denoise, dim=2, name=f"{DEEPINV}{kind}", bfloat16=False, **options)
    prior.add_module("deepinv", network)  # moves with the prior to its device
    return prior
