"""From scans to one isotropic volume in one call: what the command line and the tutorials use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models import engines
from invsr.motion import NONE, PACKAGES, SLICE, STACK, Motion
from invsr.numerics.iteration import ProgressCallback, Steps, split, whole
from invsr.operators.base import Data, LinearOperator
from invsr.pipeline.checks import require_plausible
from invsr.pipeline.choice import AUTO, choose_method, method_of
from invsr.pipeline.grids import choose_grid
from invsr.pipeline.memory import Budget, needed_memory, require_memory
from invsr.pipeline.methods import Cubic, Method
from invsr.pipeline.moved import estimate_motion, require_level, with_packages_noted
from invsr.pipeline.preparation import question_copies, scans_of
from invsr.pipeline.problem import InverseProblem, build_problem
from invsr.pipeline.reconstruction import Reconstruction
from invsr.pipeline.repetitions import BOOTSTRAP, PREDICTED, REPLICAS, Repetitions
from invsr.pipeline.scan import Scan
from invsr.priors.base import Prior
from invsr.solvers.residuals import chi2, gain
from invsr.solvers.solution import Solution
from invsr.solvers.steps import Step
from invsr.uncertainty.bootstrap import equivariant_bootstrap
from invsr.uncertainty.replicas import noise_replicas
from invsr.volume import Volume

# Share of the time that the estimate of motion takes.
ESTIMATING = {STACK: 0.3, PACKAGES: 0.2, SLICE: 0.6}


def reconstruct(
    scans: Volume | Scan | Sequence[Volume | Scan],
    *,
    method: str | Method = AUTO,
    spacing: float | Sequence[float] | None = None,
    reference: Grid | None = None,
    slice_thickness: float | str | Sequence[float | str] | None = None,
    slice_profile: str | Path | Sequence[str | Path] | None = None,
    in_plane: str | None = None,
    noise: float | Sequence[float] | None = None,
    noise_model: str | None = None,
    masks: Volume | Sequence[Volume] | None = None,
    slice_axis: int | Sequence[int] | None = None,
    zero_filling: str = "auto",
    faults: str = "auto",
    motion: str | Motion = NONE,
    lam: float | None = None,
    huber: float | None = None,
    solver: Step | str | None = None,
    denoiser: Prior | str | Path | None = None,
    adapt: bool | None = None,
    model: str | Path | None = None,
    max_iter: int | None = None,
    n_samples: int | None = None,
    uncertainty: str | None = None,
    seed: int = 0,
    device: str = "auto",
    memory: float | None = None,
    progress: ProgressCallback | None = None,
) -> Reconstruction:
    """Reconstruct one isotropic volume from one thick-slice scan, or from several of the same anatomy.

    Parameters
    ----------
    scans : Volume, Scan, or sequence of them
    method : Method or {"auto", "unrolled", "deq", "pnp", "posterior", "tv", "tikhonov", "cubic"}
        A method object (`invsr.methods`), or its name, to which the options `lam` to `n_samples` belong: one that the
        method does not use is an error. By default the method that they imply, else `invsr.pipeline.choice`'s:
        "unrolled" for thick slices of one scan or several, "pnp" for hardly thick ones, "tv" elsewhere, and where
        slices of several scans moved one by one.
    spacing : float or three, mm, optional
        Voxel spacing of the result, along the first scan's axes and over all fields of view, or all masks; by default
        isotropic at the first scan's finest spacing that was measured.
    reference : Grid, optional
        The result's grid itself.
    slice_thickness : float, "auto", or one per scan, mm, optional
        "auto" estimates it from the data. By default the scan's sidecar, else its slice spacing, unless its slices are
        seen to be samples.
    slice_profile : {"gaussian", "boxcar", "sinc", "slr"}, path, or one per scan, optional
        Gaussian by default.
    in_plane : {"kspace", "gaussian", "none"}, optional
        What a target finer than the pixels assumes; "kspace" (truncation) by default.
    noise : float or one per scan, in the scan's intensity units, optional
        Standard deviation; estimated by default.
    noise_model : {"gaussian", "rician", "huber", "l1"}, optional
        The likelihood, Gaussian by default; the last two forgive outliers.
    masks : Volume or one per scan, optional
        Data outside (where 0) are not used.
    slice_axis : {0, 1, 2} or one per scan, optional
        The array axis across the slices; by default what the file says, else that of the largest voxels.
    zero_filling : {"auto", "keep"}
        Pixels that the scanner interpolated by filling k-space with zeros: taken back to the matrix that was measured
        where the data show it, or kept as they are.
    faults : {"auto", "keep"}
        Negative intensities, spiked voxels, empty slices, and interleaved packages of slices that shine or lie
        differently: corrected where they are certain, with a remark, or kept as they are.
    motion : {"none", "stack", "slice", "packages"} or Motion
        Several scans stay where their headers say, move rigidly as a whole, or slice by slice, which is estimated
        (`invsr.motion`); of one scan, the packages of slices that were acquired by turns move against each other. Or
        motion that is known.
    lam : float, optional
        Regularisation parameter of "tikhonov", "tv" and "pnp", for data scaled to a peak of 1.
    huber : float, optional
        With "tv": slopes (of the peak per mm) below which Huber's function smooths.
    solver : Step or {"hqs", "admm", "pgd", "red"}, optional
        With "pnp": the step that is iterated.
    denoiser : Prior, name or path, optional
        With "pnp" and "posterior": what `invsr.priors.pretrained` takes.
    adapt : bool, optional
        With "pnp" and "posterior": train the denoiser further on the first scan's own in-plane detail first.
    model : name or path, optional
        With "unrolled" and "deq": trained weights, of the package or from `invsr train`.
    max_iter : int, optional
        With "tikhonov", "tv" and "pnp": largest number of iterations.
    n_samples : int, optional
        With "posterior" the number of samples; with `uncertainty` the number of repetitions.
    uncertainty : {"predicted", "bootstrap", "replicas"}, optional
        State a standard deviation per voxel (`invsr.uncertainty`): of the error, by a network that knows the method's
        errors or by `n_samples` more reconstructions; or of the noise alone, by as many. Method "posterior" states the
        first of its own.
    seed : int
        For whatever is drawn at random.
    device : "auto", "cpu", "cuda", ...
    memory : float, GB, optional
        What the process may hold on the device in all: networks then take large volumes a few planes at a time, or in
        tiles. By default they are given a share of what is free.
    progress : callable, optional
        Called with (share, figures): how much of the work is done, from 0 to 1 and never less than before, and the
        last step's entry of the history, which is empty where something smaller than a step was done.

    Returns
    -------
    Reconstruction
        In the first scan's intensity units.

    Raises
    ------
    InvsrError
        When an input cannot be used; the message names the file, the reason and the remedy.
    """
    repetitions, n_samples = Repetitions.of(uncertainty, n_samples)
    options = {"lam": lam, "huber": huber, "solver": solver, "denoiser": denoiser, "adapt": adapt, "model": model}
    chosen = method_of(method, options | {"max_iter": max_iter, "n_samples": n_samples}, seed)
    require_level(motion)
    repetitions.require(chosen)
    where = find_device(device)
    acquired = scans_of(
        scans,
        slice_thickness=slice_thickness,
        slice_profile=slice_profile,
        in_plane=in_plane,
        noise=noise,
        noise_model=noise_model,
        masks=masks,
        slice_axis=slice_axis,
        zero_filling=zero_filling,
        faults=faults,
    )
    acquired = [scan.to(where) for scan in acquired]
    question_copies(acquired)
    grid = choose_grid(acquired, spacing, reference)
    least = needed_memory(Cubic.volumes_in_memory, grid, [scan.grid for scan in acquired], motion != NONE)
    require_memory("even cubic interpolation", least, grid, Budget.on(where, memory))
    with torch.no_grad(), whole(progress) as tell:
        share = ESTIMATING.get(motion, 0.0) if isinstance(motion, str) else 0.0
        estimating, solving = split(tell, share)
        if len(acquired) == 1 and motion == NONE and faults == AUTO:
            acquired = [with_packages_noted(acquired[0], grid)]
        moved = estimate_motion(acquired, grid, motion, estimating)
        problem = build_problem(acquired, grid, moved)
        return solve_problem(problem, chosen, repetitions=repetitions, seed=seed, memory=memory, progress=solving)


def solve(
    operator: LinearOperator,
    y: Data,
    *,
    sigma: float | None = None,
    method: str | Method = "tv",
    seed: int = 0,
    memory: float | None = None,
    progress: ProgressCallback | None = None,
    **options: object,
) -> Reconstruction:
    """Solve ``y = A x + n`` for any operator: deblurring, denoising, inpainting, k-space, an operator of one's own.

    Parameters
    ----------
    operator : LinearOperator
    y : Tensor, shape (1, channel, *operator.range.shape), or tuple of them for a stack
        Data, in any intensity units.
    sigma : float, optional
        Standard deviation of the noise of y, taken as 0.05 % of the peak at least; estimated from real data by default.
    method : Method or name
        As in `reconstruct`, and so are its `options`, `seed`, `memory` and `progress`.

    Examples
    --------
    >>> grid = Grid.from_spacing((16, 16, 16), 1.0)
    >>> from invsr.operators import Identity
    >>> noisy = torch.ones(1, 1, 16, 16, 16) + 0.1 * torch.randn(1, 1, 16, 16, 16)
    >>> solve(Identity(grid), noisy, sigma=0.1, method="tv", max_iter=10).x.shape
    torch.Size([1, 1, 16, 16, 16])
    """
    chosen = method_of(method, options, seed)
    with torch.no_grad(), whole(progress) as tell:
        return solve_problem(InverseProblem.of(operator, y, sigma), chosen, seed=seed, memory=memory, progress=tell)


def solve_problem(
    problem: InverseProblem,
    method: Method | None = None,
    *,
    repetitions: Repetitions | None = None,
    seed: int = 0,
    memory: float | None = None,
    progress: ProgressCallback | None = None,
) -> Reconstruction:
    """Solve a problem by a method, or by the one that suits it, and again as often as is asked for."""
    repetitions = repetitions or Repetitions()
    budget = Budget.on(problem.device, memory)
    method = choose_method(problem, seed, budget) if method is None else method
    repetitions.require(method, problem)
    require_memory(str(method), method.memory(problem), problem.domain, budget)
    method = method.within(problem, budget.comfortable)
    spare = budget.comfortable - method.memory(problem)
    runs, networks = Steps(progress), engines.record()
    with engines.allowing(spare), runs.step(left=1 + repetitions.count) as inner:
        solution = method.solve(problem, inner)
    require_plausible(solution, problem, method)
    if solution.chi2 is None:
        solution = _judged(solution, problem)
    left = iter(range(repetitions.count, 0, -1))

    def again(data: Data) -> Tensor:
        """The method's volume for other data."""
        with engines.allowing(spare), runs.step(next(left)) as inner:
            return method.solve(problem.with_data(data), inner).x

    std, noise = solution.std, None
    if repetitions.kind == PREDICTED:
        std = method.predicted_deviation(problem, solution.x)
    about = (again, problem.operator, solution.x, problem.y, problem.sigma)
    if repetitions.kind == BOOTSTRAP:
        std = equivariant_bootstrap(*about, n_samples=repetitions.count, seed=seed)
    elif repetitions.kind == REPLICAS:
        noise = noise_replicas(*about, n_samples=repetitions.count, seed=seed)
    scale = problem.scale
    return Reconstruction(
        problem.shown(solution.x),
        problem,
        method,
        solution,
        std=None if std is None else problem.masked(std * scale),
        noise=None if noise is None else problem.masked(noise * scale),
        samples=None if solution.samples is None else problem.shown(solution.samples),
        seed=seed,
        networks=networks,
    )


def _judged(solution: Solution, problem: InverseProblem) -> Solution:
    """The solution with chi2 and gain."""
    prediction = problem.operator(solution.x)
    misfit = chi2(problem.operator, problem.likelihoods, problem.y, prediction)
    return replace(solution, sigma=problem.sigma, chi2=misfit, gain=gain(problem.likelihoods, problem.y, prediction))


def register(
    scans: Sequence[Volume | Scan],
    *,
    motion: str = STACK,
    spacing: float | Sequence[float] | None = None,
    slice_thickness: float | str | Sequence[float | str] | None = None,
    slice_profile: str | Path | Sequence[str | Path] | None = None,
    masks: Volume | Sequence[Volume] | None = None,
    slice_axis: int | Sequence[int] | None = None,
    zero_filling: str = "auto",
    faults: str = "auto",
    progress: ProgressCallback | None = None,
) -> Motion:
    """Find how several scans of one anatomy moved, without reconstructing it; arguments as of `reconstruct`.

    Raises
    ------
    InvsrError
        When there are fewer than two scans, or as `reconstruct`.
    """
    if motion not in (STACK, SLICE):
        raise InvsrError(f"unknown motion {motion!r}: use {STACK} or {SLICE}")
    acquired = scans_of(
        scans,
        slice_thickness=slice_thickness,
        slice_profile=slice_profile,
        masks=masks,
        slice_axis=slice_axis,
        zero_filling=zero_filling,
        faults=faults,
    )
    if len(acquired) < 2:
        raise InvsrError(f"{len(acquired)} scan: motion is found between scans, give at least two")
    with torch.no_grad(), whole(progress) as tell:
        found = estimate_motion(acquired, choose_grid(acquired, spacing), motion, tell)
    assert found is not None  # there are at least two scans
    return found


def find_device(name: str) -> torch.device:
    """A device by its name; "auto" is a GPU where there is one.

    Raises
    ------
    InvsrError
        When it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # "meta" has tensors, and no numbers in them
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvsrError(f"device {name!r} cannot be used ({reason}): try --device cpu") from None
    return device
