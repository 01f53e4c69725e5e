"""From scans to one isotropic volume in one call: what the command line and the tutorials use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.registry import DEFAULT as DEFAULT_DENOISER
from invsr.motion import LEVELS, NONE, SLICE, STACK, Motion
from invsr.numerics.iteration import ProgressCallback
from invsr.pipeline.memory import require_memory
from invsr.pipeline.methods import AUTO, METHODS, Slices, Task, best
from invsr.pipeline.problem import find_motion, prepare, target_grid
from invsr.priors.base import Prior
from invsr.solvers.solution import Solution
from invsr.solvers.steps import ADMM, HQS, PGD, RED, Step
from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.volume import Volume, require_signal

STEPS: dict[str, Callable[[], Step]] = {"hqs": HQS, "admm": ADMM, "pgd": PGD, "red": RED}
T = TypeVar("T")


def reconstruct(
    scans: Volume | Sequence[Volume],
    *,
    method: str = AUTO,
    spacing: float | Sequence[float] | None = None,
    reference: Grid | None = None,
    slice_thickness: float | Sequence[float] | None = None,
    slice_profile: str | Path | Sequence[str | Path] = "gaussian",
    in_plane: str = "kspace",
    noise: float | Sequence[float] | None = None,
    noise_model: str = "gaussian",
    lam: float | None = None,
    huber: float = 0.0,
    solver: str | None = None,
    denoiser: Prior | str | Path = DEFAULT_DENOISER,
    adapt: bool = False,
    model: str | Path | None = None,
    n_samples: int = 8,
    uncertainty: str | None = None,
    seed: int = 0,
    masks: Volume | Sequence[Volume] | None = None,
    motion: str | Motion = NONE,
    max_iter: int = 60,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Solution:
    """Reconstruct one isotropic volume from one thick-slice scan, or from several of the same anatomy.

    Parameters
    ----------
    scans : Volume or sequence of Volume
    method : {"auto", "unrolled", "deq", "pnp", "posterior", "tv", "tikhonov", "cubic"}
        By default "unrolled" for one scan that its network was trained for, "pnp" for several whose axes are parallel
        to the target's and that did not move, "tv" elsewhere, and where `lam`, `huber`, masks or another `noise_model`
        ask for it.
    spacing : float or three, mm, optional
        Of the result, along the first scan's axes and over all fields of view, or all masks; by default isotropic at
        the first scan's finest spacing.
    reference : Grid, optional
        The result's grid itself.
    slice_thickness : float or one per scan, mm, optional
        By default the scan's sidecar, else its slice spacing.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr"}, path, or one per scan
    in_plane : {"kspace", "gaussian", "none"}
    noise : float or one per scan, in the scan's intensity units, optional
        Standard deviation; estimated by default.
    noise_model : {"gaussian", "rician", "huber", "l1"}
        The likelihood; the last two forgive outliers.
    lam : float, optional
        Weight of the prior for data scaled to a peak of 1; by default chosen so that chi2 is about 1, and with method
        "pnp" in proportion to the noise variance.
    huber : float
        With method "tv": slopes (of the peak per mm) below which Huber's function smooths.
    solver : {"hqs", "admm", "pgd", "red"}, optional
        With method "pnp": the step that is iterated; by default "admm", and "hqs", which then descends, with denoisers
        that have a cost (gradient steps).
    denoiser : Prior, name or path
        With method "pnp": what `invsr.priors.pretrained` takes.
    adapt : bool
        With method "pnp": train the denoiser further on the first scan's own in-plane detail, for about a minute
        (`invsr.training.adapt`).
    model : name or path, optional
        With methods "unrolled" and "deq": trained weights, of the package or from `invsr train`.
    n_samples : int
        Draws of method "posterior", or repetitions of the bootstrap.
    uncertainty : {"bootstrap"}, optional
        State a standard deviation per voxel (`invsr.uncertainty.equivariant_bootstrap`): takes `n_samples` more
        reconstructions.
        Method "posterior" states one of its own.
    seed : int
        Of what a method draws at random (a denoiser's symmetries).
    masks : Volume or one per scan, optional
        Data outside (where 0) are not used.
    motion : {"none", "stack", "slice"} or Motion
        Of several scans: stay where their headers say, move rigidly as a whole, or slice by slice, estimated
        (`invsr.motion`); or motion that is known.
    max_iter : int
    device : "auto", "cpu", "cuda", ...
    progress : callable, optional
        Called with (iteration, limit, history entry).

    Returns
    -------
    Solution
        In the first scan's intensity units; with several scans, `motion` tells their motion and gains.

    Raises
    ------
    InvsrError
        When an input cannot be used; the message names the file, the reason and the remedy.
    """
    scans = [scans] if isinstance(scans, Volume) else list(scans)
    if method not in (AUTO, *METHODS):
        raise InvsrError(f"unknown method {method!r}: use one of {AUTO}, {', '.join(METHODS)}")
    if adapt and method not in ("pnp", "posterior"):
        raise InvsrError(f"adaptation is of the denoiser of method pnp, and {method} has none: leave it out")
    if uncertainty not in (None, "bootstrap"):
        raise InvsrError(f"unknown uncertainty {uncertainty!r}: use bootstrap, or leave it out")
    if uncertainty and method == "posterior":
        raise InvsrError("method posterior states its own uncertainty: leave the bootstrap out")
    if (uncertainty or method == "posterior") and n_samples < 2:
        raise InvsrError(f"samples is {n_samples}: a spread takes at least 2")
    if solver is not None and solver not in STEPS:
        raise InvsrError(f"unknown solver {solver!r}: use one of {', '.join(STEPS)}")
    if not scans:
        raise InvsrError("no scan given: name at least one NIfTI file")
    for scan in scans:
        require_signal(scan)
        if scan.grid.shape[scan.grid.through_plane] < 2 and reference is None and len(scans) == 1:
            raise InvsrError(f"{scan.name}: has a single slice: at least two are needed to resolve between them")
    if isinstance(motion, str) and motion not in LEVELS:
        raise InvsrError(f"unknown motion {motion!r}: use one of {', '.join(LEVELS)}")
    where = _device(device)
    scans = [scan.to(where) for scan in scans]
    inside = _masks(masks, scans)
    target = reference or target_grid(scans, spacing, inside)
    require_memory(target, [scan.grid for scan in scans], method, where, moving=motion != NONE)
    thicknesses = _per_scan(slice_thickness, scans, "slice thickness")
    with torch.no_grad():
        problem = prepare(
            scans,
            target,
            slice_thickness=thicknesses,
            slice_profile=_per_scan(slice_profile, scans, "slice profile"),
            in_plane=in_plane,
            noise=_per_scan(noise, scans, "noise"),
            noise_model=noise_model,
            masks=inside,
            motion=motion,
            progress=progress,
        )
        x0 = problem.guess(problem.y)
    slices, step = _slices(scans[0], target, thicknesses[0]), STEPS[solver]() if solver else None
    task = Task(
        problem.operator, problem.y, problem.sigma, problem.likelihoods, x0, lam, huber, max_iter, progress, step,
        denoiser, adapt, seed, slices, model, n_samples,
    )  # fmt: skip
    if method == AUTO:
        method = best(task)

    def again(data: Any) -> Tensor:
        """The method's volume for other data."""
        return METHODS[method](replace(task, y=data, x0=problem.guess(data), progress=None)).x

    with torch.no_grad():
        solution = METHODS[method](task)
        std = solution.std
        if uncertainty:
            std = equivariant_bootstrap(
                again, problem.operator, solution.x, problem.y, problem.sigma, n_samples=n_samples, seed=seed
            )
        prediction = problem.operator(solution.x)
    return replace(
        solution,
        method=method,
        x=solution.x * problem.scale * (problem.seen() if masks is not None and len(scans) > 1 else 1.0),
        sigma=problem.sigma * problem.scale,
        std=None if std is None else std * problem.scale,
        samples=None if solution.samples is None else solution.samples * problem.scale,
        motion=problem.motion,
        problem=problem,
        prediction=prediction,
    )


def register(
    scans: Sequence[Volume],
    *,
    motion: str = STACK,
    spacing: float | Sequence[float] | None = None,
    slice_thickness: float | Sequence[float] | None = None,
    slice_profile: str | Path | Sequence[str | Path] = "gaussian",
    masks: Volume | Sequence[Volume] | None = None,
    progress: ProgressCallback | None = None,
) -> Motion:
    """Find how several scans of one anatomy moved, without reconstructing it; arguments as of `reconstruct`.

    Raises
    ------
    InvsrError
        When there are fewer than two scans, or as `reconstruct`.
    """
    scans = list(scans)
    if motion not in (STACK, SLICE):
        raise InvsrError(f"unknown motion {motion!r}: use {STACK} or {SLICE}")
    if len(scans) < 2:
        raise InvsrError(f"{len(scans)} scan: motion is found between scans, give at least two")
    for scan in scans:
        require_signal(scan)
    inside = _masks(masks, scans)
    with torch.no_grad():
        return find_motion(
            scans,
            target_grid(scans, spacing, inside),
            slice_thickness=_per_scan(slice_thickness, scans, "slice thickness"),
            slice_profile=_per_scan(slice_profile, scans, "slice profile"),
            masks=inside,
            motion=motion,
            progress=progress,
        )


def _slices(scan: Volume, target: Grid, thickness: float | None) -> Slices:
    across = scan.grid.through_plane
    between = float(scan.grid.spacing[across])
    width = thickness or scan.slice_thickness or between
    axis = int(np.abs(scan.grid.directions[:, across] @ target.directions).argmax())
    voxel = float(target.spacing[axis])
    return Slices(axis, width / voxel, (between - width) / voxel)


def _per_scan(value: Any, scans: Sequence[Volume], what: str) -> list[Any]:
    if value is None or isinstance(value, float | int | str | Path | Volume):
        return [value] * len(scans)
    values = list(value)
    if len(values) == 1:
        values = values * len(scans)
    if len(values) != len(scans):
        raise InvsrError(f"{len(values)} values of {what} for {len(scans)} scans: give one, or one for each scan")
    return values


def _masks(masks: Volume | Sequence[Volume] | None, scans: Sequence[Volume]) -> list[Tensor | None]:
    if masks is None:
        return [None] * len(scans)
    found = [masks] if isinstance(masks, Volume) else list(masks)
    if len(found) != len(scans):
        raise InvsrError(f"{len(found)} masks for {len(scans)} scans: give one for each scan, in the same order")
    out: list[Tensor | None] = []
    for mask, scan in zip(found, scans, strict=True):
        if mask.grid != scan.grid:
            raise InvsrError(
                f"{mask.name}: the mask lies on {mask.grid} but {scan.name} on {scan.grid}: resample it onto the scan"
            )
        inside = mask.data.to(scan.data.device) != 0
        if not bool(inside.any()):
            raise InvsrError(f"{mask.name}: the mask is empty: every voxel is 0")
        out.append(inside)
    return out


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvsrError(f"device {name!r} cannot be used ({reason}): try --device cpu") from None
    return device
