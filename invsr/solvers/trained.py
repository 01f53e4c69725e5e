"""Whole solvers with trained weights: written, checked and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invsr.errors import InvsrError
from invsr.priors.denoiser import Denoiser
from invsr.priors.networks import Network, build
from invsr.priors.pretrained import DRIVER, ROOM, describe, known, read_weights, write_weights
from invsr.solvers.steps import ADMM, HQS, PGD
from invsr.solvers.unrolled import Unrolled

UNROLLED = "unrolled"
STEPS: dict[str, Any] = {"hqs": HQS, "admm": ADMM, "pgd": PGD}


def unrolled_of(networks: list[Network], step: str = "hqs", n_steps: int = 5, save_memory: bool = False) -> Unrolled:
    """Denoising networks, one or one for each step, as an unrolled solver.

    Raises
    ------
    InvsrError
        When there is no such step, or the numbers do not fit.
    """
    if step not in STEPS:
        raise InvsrError(f"step {step!r} cannot be unrolled: use one of {', '.join(STEPS)}")
    # Trained as they are: random symmetries would be noise in what is trained, and background is part of the volume.
    priors = [Denoiser(network, symmetries=False, crop=False) for network in networks]
    return Unrolled(STEPS[step](), priors, n_steps, save_memory=save_memory)


def save_solver(solver: Unrolled, path: str | Path, description: dict[str, Any]) -> None:
    """Write a trained solver, half precision, with what is needed to build it again.

    Raises
    ------
    InvsrError
        When the file cannot be written; nothing is left of it then.
    """
    priors: list[Any] = list(solver.priors)
    names = {kind: name for name, kind in STEPS.items()}
    driver = {
        "kind": UNROLLED, "step": names[type(solver.step)], "n_steps": solver.n_steps, "priors": len(priors),
    }  # fmt: skip
    write_weights(solver.state_dict(), path, describe(priors[0].network) | {DRIVER: driver} | description)


def load_solver(name: str | Path, kind: str = UNROLLED) -> tuple[Unrolled, dict[str, Any]]:
    """A solver with its trained weights, and its description.

    Parameters
    ----------
    name : str or path
        A model of the package (`invsr.priors.pretrained.models`), or a weights file from `invsr train`.
    kind : {"unrolled"}

    Raises
    ------
    InvsrError
        When there is no such model or file, it is damaged, or it holds something else.
    """

    def make(about: dict[str, Any]) -> Unrolled:
        driver = about.get(DRIVER, {"kind": "denoiser"})
        if driver["kind"] != kind:
            raise InvsrError(f"{name}: holds a {driver['kind']}, not weights for method {kind}")
        networks = [build(about["architecture"], about["config"]) for _ in range(driver["priors"])]
        return unrolled_of(networks, driver["step"], driver["n_steps"])

    if str(name).endswith(".safetensors"):
        return read_weights(name, make)
    entry = known(str(name), kind)
    return read_weights(ROOM / entry["file"], make, entry["sha256"])
