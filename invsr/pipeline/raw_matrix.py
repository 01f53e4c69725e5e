"""k-space and coil maps on other matrix sizes of the same field of view."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.noncartesian import NonCartesianData, check_trajectory
from invsr.numerics.axes import multiply
from invsr.numerics.fourier import inverse_fourier
from invsr.operators.profiles import spline_matrix
from invsr.raw import ALL_AXES, Data, KSpaceData, of_matrix

# Share of the samples from which on nothing is missing within the box that was measured.
FULL = 0.85
# Cycles by which trajectories that are the same may differ.
SAME = 1e-3
# Sums of squares below which maps of coils are left as they are.
FAINT = 1e-3


def pixels_of(raw: KSpaceData, spacing: float | Sequence[float] | None) -> Grid:
    """The grid with the matrix size along Fourier axes that comes nearest to a spacing; the field of view stays."""
    if spacing is None:
        return raw.grid
    asked = np.broadcast_to(np.asarray(spacing, float), 3)
    if not (np.isfinite(asked).all() and (asked > 0).all()):
        raise InvsrError(f"spacing {spacing} mm: every spacing must be above zero")
    shape = list(raw.grid.shape)
    for n in raw.axes:
        if shape[n] > 1:
            shape[n] = max(2, round(float(raw.grid.extent[n] / asked[n])))
    return of_matrix(raw.grid, shape)


def resized(raw: Data, grid: Grid) -> Data:
    """k-space zero-filled or cropped to a grid; intensities of the image stay, noise grows as the root of its size.

    Samples off the Cartesian grid are never cropped.

    Raises
    ------
    InvsrError
        When their trajectory does not fit into the k-space of the grid.
    """
    if grid.shape == raw.grid.shape:
        return raw
    factor = math.sqrt(grid.size / raw.grid.size)
    if isinstance(raw, NonCartesianData):
        check_trajectory(raw.trajectory, grid.shape, raw.axes, raw.name)
        return raw.with_samples(raw.samples * factor, grid=grid, calibration=None)
    samples = centred(raw.samples, grid.shape) * factor
    return raw.with_samples(samples, counts=centred(raw.counts, grid.shape), grid=grid, calibration=None)


def resampled_maps(maps: Tensor, shape: Sequence[int], axes: Sequence[int]) -> Tensor:
    """Maps of coils on another matrix size of the same field of view, by spline interpolation; their norm stays.

    Parameters
    ----------
    maps : Tensor, shape (coils, i, j, k), complex
    shape : three of int
    axes : sequence of {0, 1, 2}
        Along which the size changes.
    """
    if all(maps.shape[1 + n] == shape[n] for n in axes):
        return maps
    found, norm = maps[None], maps.abs().square().sum(0).sqrt()[None, None]
    for n in axes:
        have, wanted = maps.shape[1 + n], shape[n]
        from_middle = (torch.arange(wanted, dtype=torch.float64) - wanted // 2) * (have / wanted)
        matrix = spline_matrix(have, from_middle + have // 2)
        found, norm = (multiply(matrix.to(one), one, n) for one in (found, norm))
    # Between voxels that differ in phase, interpolation makes them too weak.
    found, least = found[0], FAINT * norm.max()
    now = found.abs().square().sum(0).sqrt()
    return found * torch.where(now > least, norm[0, 0] / now.clamp(min=least), 1.0)


def with_positions(raw: KSpaceData) -> KSpaceData:
    """The data transformed to positions along Fourier axes that were measured completely, all but one of them.

    Off the Cartesian grid, of complete stacks of spokes or spirals.
    """
    if isinstance(raw, NonCartesianData):
        return unstacked(raw)
    for n in raw.axes:
        full = bool((raw.counts == raw.counts.narrow(n, 0, 1)).all())
        if full and len(raw.axes) > 1 and raw.grid.shape[n] > 1:
            samples = inverse_fourier(raw.samples, [n])
            raw = raw.with_samples(samples, axes=tuple(m for m in raw.axes if m != n))
    return raw


def unstacked(raw: NonCartesianData) -> NonCartesianData:
    """A complete stack of spokes or spirals transformed to positions across it; other data as they are.

    Along one Fourier axis each shot stays at one whole frequency, and at every frequency the same shots were taken.
    """
    if len(raw.axes) < len(ALL_AXES):
        return raw
    for n in raw.axes:
        size, across = raw.grid.shape[n], raw.trajectory[..., n]
        level = across[0].round()
        apart = (across - level).abs().max()
        order = torch.argsort(level, stable=True)
        wanted = torch.arange(size, device=level.device).repeat_interleave(max(1, raw.n_shots // size)) - size // 2
        if size == 1 or raw.n_shots % size or apart > SAME or bool((level[order] != wanted).any()):
            continue
        others = [m for m in raw.axes if m != n]
        readout, shots = raw.trajectory.shape[0], raw.n_shots // size
        planes = raw.trajectory[:, order][..., others].reshape(readout, size, shots, 2)
        if (planes - planes[:, :1]).abs().max() > SAME:
            continue
        samples = raw.samples[..., order, 0].reshape(1, raw.n_coils, readout, size, shots)
        samples = inverse_fourier(samples.movedim(3, 4), [2]).contiguous()
        counts = raw.counts[:, :shots, :1].expand(samples.shape[2:])
        return raw.with_samples(samples, trajectory=planes[:, 0].contiguous(), axes=tuple(others), counts=counts)
    return raw


def has_holes(measured: Tensor, axes: Sequence[int] | None = None) -> bool:
    """Whether samples are missing within the box about frequency zero that reaches as far as what was measured.

    So it is where samples were skipped and with partial Fourier, not where k-space merely ends early. With `axes`,
    instead of the box, the ellipsoid along these axes is looked at, to which spokes and spirals reach.
    """
    middle = torch.tensor([n // 2 for n in measured.shape], device=measured.device)
    reach = (torch.nonzero(measured) - middle).abs().amax(0)
    box = torch.minimum(2 * reach, torch.tensor(measured.shape, device=measured.device)).clamp(min=1)
    return int(measured.sum()) < FULL * share_of_ellipsoid(axes) * int(box.prod())


def share_of_ellipsoid(axes: Sequence[int] | None) -> float:
    """Of the box around it, along two or three axes; 1 for the box itself."""
    return 1.0 if axes is None else {2: math.pi / 4, 3: math.pi / 6}[len(axes)]


def centred(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Zero-filled or cropped along the last three axes, index N // 2 on index N // 2."""
    pad: list[int] = []
    for have, wanted in zip(reversed(x.shape[-3:]), reversed(shape), strict=True):
        before = wanted // 2 - have // 2
        pad += [before, wanted - have - before]
    return functional.pad(x, pad)
