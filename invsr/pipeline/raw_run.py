"""From k-space to a volume in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.noncartesian import NonCartesianData
from invsr.numerics.iteration import ProgressCallback, whole
from invsr.pipeline.choice import AUTO, KSPACE_MODEL, method_of
from invsr.pipeline.methods import Cubic, Method, Unrolled
from invsr.pipeline.raw_problem import build_raw_problem
from invsr.pipeline.reconstruction import Reconstruction
from invsr.pipeline.repetitions import Repetitions
from invsr.pipeline.run import find_device, solve_problem
from invsr.priors.base import Prior
from invsr.raw import RawData
from invsr.solvers.steps import Step


def raw_method_of(method: str | Method, options: Mapping[str, Any], seed: int = 0) -> Method | None:
    """As `invsr.pipeline.choice.method_of`, the unrolled network being the one for k-space by default.

    Raises
    ------
    InvsrError
        As there, and for methods that take images.
    """
    if method == Unrolled.name and options.get("model") is None:
        options = dict(options) | {"model": KSPACE_MODEL}
    chosen = method_of(method, options, seed)
    if isinstance(chosen, Cubic):
        raise InvsrError("method cubic interpolates images, and this is k-space: use tikhonov, tv, pnp or unrolled")
    return chosen


def reconstruct_raw(
    raw: RawData | NonCartesianData,
    *,
    method: str | Method = AUTO,
    spacing: float | Sequence[float] | None = None,
    slice_thickness: float | None = None,
    slice_profile: str | Path | None = None,
    noise: float | None = None,
    maps: Tensor | None = None,
    n_coils: int | None = None,
    lam: float | None = None,
    huber: float | None = None,
    solver: Step | str | None = None,
    denoiser: Prior | str | Path | None = None,
    model: str | Path | None = None,
    max_iter: int | None = None,
    n_samples: int | None = None,
    uncertainty: str | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: float | None = None,
    progress: ProgressCallback | None = None,
) -> Reconstruction:
    """Reconstruct a complex volume from k-space: undersampled, truncated, of thick slices, by one coil or several.

    Parameters
    ----------
    raw : RawData or NonCartesianData
        What `invsr.load_raw` reads.
    method : Method or {"auto", "unrolled", "pnp", "posterior", "tv", "tikhonov"}
        As in `invsr.reconstruct`.
    spacing, slice_thickness, slice_profile, noise, maps, n_coils
        As in `invsr.pipeline.raw_problem.build_raw_problem`.
    lam, huber, solver, denoiser, model, max_iter, n_samples, uncertainty, seed, device, memory, progress
        As in `invsr.reconstruct`.

    Returns
    -------
    Reconstruction
        Its `x` is complex, `volume` the magnitude and `phase` the phase.

    Raises
    ------
    InvsrError
        When the data or an option cannot be used; the message names the file, the reason and the remedy.

    Examples
    --------
    >>> from invsr.testing.kspace import simulate_kspace
    >>> from invsr.testing.phantoms import shepp_logan
    >>> from invsr.volume import Volume
    >>> raw, maps, _ = simulate_kspace(Volume(*shepp_logan((24, 24, 24), 8.0)), n_coils=4)
    >>> reconstruct_raw(raw, method="tv", maps=maps, noise=0.01, max_iter=5).volume.grid.shape
    (24, 24, 24)
    """
    repetitions, n_samples = Repetitions.of(uncertainty, n_samples)
    options = {"lam": lam, "huber": huber, "solver": solver, "denoiser": denoiser, "model": model}
    chosen = raw_method_of(method, options | {"max_iter": max_iter, "n_samples": n_samples}, seed)
    repetitions.require(chosen)
    where = find_device(device)
    with torch.no_grad(), whole(progress) as tell:
        problem = build_raw_problem(
            raw.to(where),
            spacing=spacing,
            slice_thickness=slice_thickness,
            slice_profile=slice_profile,
            noise=noise,
            maps=None if maps is None else maps.to(where),
            n_coils=n_coils,
        )
        return solve_problem(problem, chosen, repetitions=repetitions, seed=seed, memory=memory, progress=tell)
