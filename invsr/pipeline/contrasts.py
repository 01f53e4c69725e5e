"""Several contrasts of one head, reconstructed together: one volume for each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.motion import NONE, STACK, Motion, ScanMotion
from invsr.motion.align import composed
from invsr.motion.contrasts import Alignment, align_contrasts
from invsr.numerics.iteration import ProgressCallback, Steps, split, whole
from invsr.operators.transforms import rigid_matrices
from invsr.pipeline.grids import choose_grid
from invsr.pipeline.joint import JointTV, JointUnrolled, Together
from invsr.pipeline.memory import Budget, require_memory
from invsr.pipeline.moved import estimate_motion
from invsr.pipeline.preparation import as_coarse_as, mask_of_each, per_scan, question_copies, scans_of
from invsr.pipeline.problem import InverseProblem, build_problem
from invsr.pipeline.reconstruction import Reconstruction
from invsr.pipeline.run import find_device
from invsr.pipeline.scan import Scan
from invsr.solvers.plug_and_play import smooth_guess
from invsr.volume import Volume

Array = npt.NDArray[np.float64]
# Of what is said of an acquisition, what holds for all scans.
ONE_FOR_ALL = ("zero_filling", "faults")
# Motion between contrasts below this share of a voxel, RMS over the volume, is left alone: resampling costs more.
LEAST_MOTION = 0.25
# Gradients of aligned contrasts of one head have a mean squared cosine above this: stroke_* with each other 0.24, heads
# of different people 0.10 to 0.12 (crops of 96, 4 mm slices), but for two that share a template and a brain mask, 0.22.
LEAST_ALIKE = 0.15
# Share of the time that registration takes.
REGISTERING = 0.3
# Side of the voxels, mm, at the finest, that contrasts are registered at.
REGISTRATION_SPACING = 1.0


def reconstruct_contrasts(
    scans: Sequence[Volume | Scan],
    contrasts: Sequence[str] | None = None,
    *,
    method: Together | None = None,
    spacing: float | Sequence[float] | None = None,
    reference: Grid | None = None,
    motion: str | Motion = STACK,
    device: str = "auto",
    memory: float | None = None,
    progress: ProgressCallback | None = None,
    **acquired: Any,
) -> list[Reconstruction]:
    """Reconstruct several contrasts of one head together: what one scan lacks, scans of other contrasts show.

    Parameters
    ----------
    scans : sequence of Volume or Scan
        Thick-slice scans, at least two.
    contrasts : sequence of str, optional
        The contrast of each scan; scans with the same word are stacks of one contrast. By default each is its own.
    method : invsr.pipeline.JointUnrolled or invsr.pipeline.JointTV, optional
        By default the first, where it was trained for what is asked and the memory allows it, else the second.
    spacing, reference
        As of `invsr.reconstruct`, for the grid that all contrasts share.
    motion : {"stack", "none"} or Motion
        Whether contrasts are registered to the first one, and scans of one contrast to each other, each as a whole, or
        lie where their headers say; or the motion of all scans in their order (`motion_of_scans` of an earlier run).
    device, memory, progress
        As of `invsr.reconstruct`.
    **acquired
        What `invsr.reconstruct` takes of how scans were acquired (`slice_thickness`, `slice_profile`, `in_plane`,
        `noise`, `noise_model`, `masks`, `slice_axis`, `zero_filling`, `faults`).

    Returns
    -------
    list of Reconstruction
        One for each contrast, in the order in which they first appear, in intensity units of its first scan.

    Raises
    ------
    InvsrError
        When there are fewer than two contrasts, or as `invsr.reconstruct`.
    """
    if isinstance(motion, str) and motion not in (NONE, STACK):
        raise InvsrError(f"motion {motion!r} of several contrasts: use {NONE} or {STACK}, each scan as a whole")
    if isinstance(method, str):
        raise InvsrError(f"method {method!r} of several contrasts: give invsr.pipeline.JointTV() or JointUnrolled()")
    members = members_of(contrasts, len(scans))
    told = _of_each({key: value for key, value in acquired.items() if key not in ONE_FOR_ALL}, len(scans))
    alike = {key: value for key, value in acquired.items() if key in ONE_FOR_ALL}
    groups = [
        ([scans[n] for n in group], alike | {key: [values[n] for n in group] for key, values in told.items()})
        for group in members
    ]
    if len(groups) < 2:
        raise InvsrError("one contrast: leave contrasts out, and its scans are reconstructed into one volume")
    where = find_device(device)
    with torch.no_grad(), whole(progress) as tell:
        found = [[scan.to(where) for scan in scans_of(group, **how)] for group, how in groups]
        together = [scan for group in found for scan in group]
        question_copies(together)
        grid = choose_grid(together, spacing, reference)
        registering, solving = split(tell, REGISTERING if motion == STACK else 0.0)
        if isinstance(motion, str):
            moved = _registered(found, grid, motion, registering)
        else:
            moved = _given(motion, found, members)
        # What oblique scans resolve beyond the grid would count as misfit, and weights would follow it.
        moved = [one or _oblique(group, grid) for group, one in zip(found, moved, strict=True)]
        finest = float(grid.spacing.min())
        found = [
            group
            if one is None
            else [_at_grid(scan, part, grid, finest) for scan, part in zip(group, one.scans, strict=True)]
            for group, one in zip(found, moved, strict=True)
        ]
        problems = [build_problem(group, grid, one) for group, one in zip(found, moved, strict=True)]
        budget = Budget.on(where, memory)
        method = best_together(problems, budget) if method is None else method
        method = method.within_together(problems, budget.comfortable)
        require_memory(f"{method} of {len(problems)} contrasts", method.memory_together(problems), grid, budget)
        solutions = method.solve_together(problems, solving)
    return [
        Reconstruction(problem.shown(solution.x), problem, method, solution)
        for problem, solution in zip(problems, solutions, strict=True)
    ]


def _oblique(group: Sequence[Scan], grid: Grid) -> Motion | None:
    """No motion, in words that keep the scans' own grids, where a scan lies obliquely to the grid."""
    return _still(group, grid) if any(scan.grid.axes_in(grid) is None for scan in group) else None


def _at_grid(scan: Scan, moved: ScanMotion, grid: Grid, spacing: float) -> Scan:
    """The scan, its pixels no finer than the grid's voxels where it lies obliquely."""
    along = moved.still and scan.grid.axes_in(grid) is not None
    return scan if along else as_coarse_as(scan, spacing)


def best_together(problems: Sequence[InverseProblem], budget: Budget) -> Together:
    """The best method for the contrasts that the benchmarks show, and that fits into the memory."""
    network = JointUnrolled()
    suits = all(one.is_gaussian for one in problems) and not network.objections_together(problems)
    if suits and network.memory_together(problems) <= budget.available:
        return network
    return JointTV()


def members_of(contrasts: Sequence[str] | None, count: int) -> list[list[int]]:
    """The numbers of each contrast's scans, contrasts in the order in which they first appear."""
    names = [str(n) for n in range(count)] if contrasts is None else list(contrasts)
    if len(names) != count:
        raise InvsrError(f"{len(names)} contrasts named for {count} scans: give one for each scan")
    return [[n for n, other in enumerate(names) if other == name] for name in dict.fromkeys(names)]


def motion_of_scans(results: Sequence[Reconstruction], contrasts: Sequence[str] | None = None) -> Motion:
    """The motion of all scans, in the order in which they were given to `reconstruct_contrasts`."""
    parts: dict[int, ScanMotion] = {}
    centre = results[0].grid.centre
    count = sum(len(one.problem.scans) for one in results)
    for one, members in zip(results, members_of(contrasts, count), strict=True):
        moved = one.motion or _still(one.problem.scans, one.grid)
        parts |= dict(zip(members, moved.scans, strict=True))
    return Motion(centre, tuple(parts[n] for n in sorted(parts)))


def _of_each(acquired: dict[str, Any], count: int) -> dict[str, list[Any]]:
    """What is said of each scan, as lists."""
    masks = acquired.get("masks")
    found = {key: per_scan(value, count, key.replace("_", " ")) for key, value in acquired.items() if key != "masks"}
    return found if masks is None else found | {"masks": mask_of_each(masks, count)}


def _registered(
    groups: Sequence[Sequence[Scan]], grid: Grid, motion: str, progress: ProgressCallback | None
) -> list[Motion | None]:
    """The motion of each contrast's scans: against each other, and of all of them against the first contrast."""
    steps = Steps(progress)
    moved = [estimate_motion(group, grid, motion if len(group) > 1 else NONE) for group in groups]
    if motion == NONE:
        return moved
    smooth: list[tuple[Tensor, Grid]] = []
    for n, (group, one) in enumerate(zip(groups, moved, strict=True)):
        # Each on a grid of its own, where its slices lie along an axis.
        finest = max(REGISTRATION_SPACING, float(group[0].grid.spacing.min()))
        own = choose_grid(group, finest)
        with steps.step(2 * len(groups) - n):
            problem = build_problem(group, own, one)
            smooth.append((smooth_guess(problem.operator, problem.y), own))
    for n, group in enumerate(groups[1:], start=1):
        with steps.step(len(groups) - n):
            found = align_contrasts(*smooth[0], *smooth[n], grid.centre)
        moved[n] = _with(moved[n], found, group, grid)
    return moved


def _with(moved: Motion | None, found: Alignment, scans: Sequence[Scan], grid: Grid) -> Motion | None:
    """The motion of a contrast's scans followed by that against the first contrast, where it is one."""
    name = scans[0].name
    if found.after < LEAST_ALIKE:
        warnings.warn(
            f"{name}: its edges do not lie where those of the first contrast do (mean squared cosine of gradients "
            f"{found.after:.2f}, not {LEAST_ALIKE:g} or more): another person, or hardly any overlap?",
            InvsrWarning,
            stacklevel=2,
        )
    if found.after <= found.before or _distance(found.motion, grid) < LEAST_MOTION * float(grid.spacing.min()):
        return moved
    # The motion of a contrast's scans is about the middle of the same grid.
    own = _still(scans, grid) if moved is None else moved
    outer = torch.from_numpy(found.motion)[None]
    after = (replace(one, motion=composed(outer, torch.from_numpy(one.motion)).numpy()) for one in own.scans)
    return Motion(own.centre, tuple(after))


def _still(scans: Sequence[Scan], grid: Grid) -> Motion:
    slices = [scan.grid.shape[scan.through_plane] for scan in scans]
    none = [(np.zeros((n, 6)), np.ones(n)) for n in slices]
    pairs = zip(scans, none, strict=True)
    return Motion(grid.centre, tuple(ScanMotion(scan.name, scan.grid, *one) for scan, one in pairs))


def _distance(motion: Array, grid: Grid) -> float:
    """How far the motion takes points of the middle half of a field of view, RMS, mm."""
    matrix = rigid_matrices(torch.from_numpy(motion), torch.from_numpy(grid.centre)).numpy()
    points = grid.centre + (grid.corners() - grid.centre) / 2
    return float(np.sqrt(((points @ matrix[:3, :3].T + matrix[:3, 3] - points) ** 2).sum(1).mean()))


def _given(motion: Motion, groups: Sequence[Sequence[Scan]], members: Sequence[Sequence[int]]) -> list[Motion | None]:
    """The motion of each contrast's scans, from that of all."""
    places = [n for numbers in members for n in numbers]
    by_place = dict(zip(places, (scan for group in groups for scan in group), strict=True))
    ordered = [by_place[n] for n in sorted(places)]
    motion.fitting([scan.name for scan in ordered], [scan.grid for scan in ordered])
    found: list[Motion | None] = []
    for numbers in members:
        own = Motion(motion.centre, tuple(motion.scans[n] for n in numbers))
        found.append(None if len(numbers) == 1 and own.scans[0].still else own)
    return found
