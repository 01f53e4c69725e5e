"""Denoisers with their weights: those that come with the package, from a file, and deepinv's."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

import torch

from invsr.errors import InvsrError
from invsr.models.registry import DEEPINV, DEFAULT, weights_of
from invsr.models.weights import DAMAGES, load_weights
from invsr.priors.denoiser import Denoiser

# What deepinv raises, too: where a connection breaks, and from classes that need more packages.
UNAVAILABLE = (*DAMAGES, http.client.HTTPException, ImportError)


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
    network, _ = load_weights(*weights_of(text, "denoiser"))
    return Denoiser(network, name=text, **options)


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
        if file:  # deepinv unpickles what it holds, whatever that is; tensors alone pass this
            torch.load(file, map_location="cpu", weights_only=True)
        network = made(pretrained=weights, **channels).eval()
    except UNAVAILABLE as error:
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
