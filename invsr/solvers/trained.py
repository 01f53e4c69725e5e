"""Whole solvers with trained weights: written, checked and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from invsr.errors import InvsrError
from invsr.models.architectures import build
from invsr.models.networks import Network
from invsr.models.registry import weights_of
from invsr.models.weights import DRIVER, describe, read_weights, require_kind, write_weights
from invsr.priors.denoiser import Denoiser
from invsr.solvers.equilibrium import JACOBIAN_FREE, Equilibrium
from invsr.solvers.steps import ADMM, HQS, PGD
from invsr.solvers.unrolled import Unrolled

UNROLLED, DEQ = "unrolled", "deq"
TRAINABLE_STEPS: dict[str, Any] = {"hqs": HQS, "admm": ADMM, "pgd": PGD}
# Of a trained equilibrium: relative residual at which it counts as found (benchmarks/quality/noise_level.py).
FIXED_POINT_RTOL = 5e-3
# Steps after the fixed point of equilibria that are trained.
ENDING = 2
# Of a solver in a file: what is made before the weights are seen to fit.
MOST_STEPS = 100


def unrolled_of(networks: list[Network], step: str = "hqs", n_steps: int = 5, save_memory: bool = False) -> Unrolled:
    """Denoising networks, one or one for each step, as an unrolled solver.

    Raises
    ------
    InvsrError
        When there is no such step, or the numbers do not fit.
    """
    if step not in TRAINABLE_STEPS:
        raise InvsrError(f"step {step!r} cannot be trained: use one of {', '.join(TRAINABLE_STEPS)}")
    return Unrolled(
        TRAINABLE_STEPS[step](), [_prior(network) for network in networks], n_steps, save_memory=save_memory
    )


def equilibrium_of(network: Network, step: str = "hqs", max_iter: int = 30, n_ending: int = ENDING) -> Equilibrium:
    """A denoising network as an equilibrium solver, with Jacobian-free gradients.

    Raises
    ------
    InvsrError
        When there is no such step.
    """
    if step not in TRAINABLE_STEPS:
        raise InvsrError(f"step {step!r} cannot be trained: use one of {', '.join(TRAINABLE_STEPS)}")
    return Equilibrium(
        TRAINABLE_STEPS[step](),
        _prior(network),
        backward=JACOBIAN_FREE,
        rtol=FIXED_POINT_RTOL,
        max_iter=max_iter,
        n_ending=n_ending,
    )


def _prior(network: Network) -> Denoiser:
    # As it is: random symmetries would be noise in what is trained, and background is part of the volume.
    return Denoiser(network, symmetries=False, crop=False)


def save_solver(solver: Unrolled | Equilibrium, path: str | Path, description: dict[str, Any]) -> None:
    """Write a trained solver, half precision, with what is needed to build it again.

    Raises
    ------
    InvsrError
        When the file cannot be written; nothing is left of it then.
    """
    step = {kind: name for name, kind in TRAINABLE_STEPS.items()}[type(solver.step)]
    driver: dict[str, Any]
    first: Any
    if isinstance(solver, Unrolled):
        first, n_priors = solver.priors[0], len(solver.priors)
        driver = {"kind": UNROLLED, "step": step, "n_steps": solver.n_steps, "priors": n_priors}
    else:
        first = solver.prior
        driver = {"kind": DEQ, "step": step, "max_iter": solver.max_iter, "n_ending": solver.n_ending}
    write_weights(solver.state_dict(), path, describe(first.network) | {DRIVER: driver} | description)


def load_solver(name: str | Path, kind: str | None = UNROLLED) -> tuple[Unrolled | Equilibrium, dict[str, Any]]:
    """A solver with its trained weights, and its description.

    Parameters
    ----------
    name : str or path
        A model of the package (`invsr.models.registry.models`), or a weights file from `invsr train`.
    kind : {"unrolled", "deq"} or None
        What it has to be; None where either will do.

    Raises
    ------
    InvsrError
        When there is no such model or file, it is damaged, or it holds something else.
    """

    def make(about: dict[str, Any]) -> Unrolled | Equilibrium:
        require_kind(about, *((UNROLLED, DEQ) if kind is None else (kind,)))
        driver = about[DRIVER]
        if driver["kind"] == DEQ:
            network, n_ending = build(about["architecture"], about["config"]), driver.get("n_ending", 0)
            if not 0 <= n_ending <= MOST_STEPS:
                raise InvsrError(f"{n_ending} steps after the fixed point: at most {MOST_STEPS}")
            return equilibrium_of(network, driver["step"], driver["max_iter"], n_ending)
        n_steps, n_networks = driver["n_steps"], driver["priors"]
        if not 1 <= n_steps <= MOST_STEPS or n_networks not in (1, n_steps):
            raise InvsrError(
                f"{n_steps} steps with {n_networks} networks: at most {MOST_STEPS}, and one or one for each"
            )
        networks = [build(about["architecture"], about["config"]) for _ in range(n_networks)]
        return unrolled_of(networks, driver["step"], n_steps)

    if str(name).endswith(".safetensors"):
        return read_weights(name, make)
    path, sha256 = weights_of(str(name), kind)
    return read_weights(path, make, sha256)
