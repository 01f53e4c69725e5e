"""Tiny instances of every operator, for `test_battery`: an operator without an entry here fails the suite."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from small_grids import COARSE, SMALL, THICK, TINY, VOLUME, grid, noise, reoriented, rotated, shifted
from torch import Tensor, nn

from invsr.grid import Grid
from invsr.operators import (
    Affine,
    AxisProfile,
    Contrasts,
    Diagonal,
    Displacement,
    Identity,
    KSpaceCrop,
    KSpaceFilter,
    KSpaceMask,
    LinearOperator,
    NonUniformKSpace,
    Resample,
    Rigid,
    Separable,
    Slices,
    Stack,
    acquisition,
)
from invsr.operators.kspace_crop import zero_fill
from invsr.operators.kspace_weights import apodisation, partial_fourier
from invsr.operators.profiles import profile_samples


class Case(NamedTuple):
    """A factory, and what of the battery makes sense for what it builds."""

    build: Callable[[], LinearOperator]
    #: The unknown is complex.
    complex_domain: bool = False
    #: `solve` exists; not so where the domain is a tuple of grids.
    solves: bool = True
    #: `measured_coordinates` keeps everything that the operator can produce; not so where samples at the edge see the
    #: volume by less than a half, nor for an adjoint, whose range is no data.
    keeps_range: bool = True
    #: Channels that the unknown has at least: one for each contrast.
    channels: int = 1


def profile_file() -> Path:
    """A lopsided profile, mm and amplitude."""
    # A name for each process: workers that write one file would read each other's half.
    path = Path(tempfile.gettempdir()) / f"invsr_test_profile_{os.getpid()}.txt"
    atexit.register(path.unlink, missing_ok=True)
    np.savetxt(path, [[-2.0, 0.0], [-0.5, 1.0], [1.0, 0.8], [2.5, 0.0]])
    return path


def _matrices(like: Grid, shape: Sequence[int], is_complex: bool = False) -> list[Tensor]:
    dtype = torch.complex128 if is_complex else torch.float64
    return [noise(m, n, seed=m + n, dtype=dtype) / n for m, n in zip(shape, like.shape, strict=True)]


def _sampling(scan: Grid, **options: Any) -> Case:
    return Case(lambda: acquisition(scan, reference=VOLUME, **options))


def _separable() -> Separable:
    first, last = noise(2, 3), noise(5, 1) @ noise(1, 4, seed=1)  # the last of rank one
    return Separable(
        grid((4, 3, 6)), grid((2, 6, 5)), (first, None, last), (1, 2, 0), ("neumann", "neumann", "periodic")
    )


def _learnable_separable() -> Separable:
    a, _, c = _matrices(SMALL, (2, 5, 3))
    return Separable(SMALL, grid((2, 5, 3)), (nn.Parameter(a), None, nn.Parameter(c)))


def _chain() -> LinearOperator:
    first = acquisition(reoriented(THICK, (2, 0, 1), (1,)), reference=VOLUME)
    second = KSpaceCrop(first.range, (4, 3, 6))
    return second @ first


def _rigid(
    g: Grid, interpolation: str = "linear", motion: Sequence[float] = (0.11, -0.07, 0.05, 0.31, -0.23, 0.17)
) -> Resample:
    return Resample(g, g, Rigid(motion, g.centre), interpolation)


def _affine(interpolation: str) -> Resample:
    matrix = torch.eye(3, dtype=torch.float64) + 0.05 * noise(3, 3)
    centre = torch.from_numpy(TINY.centre)
    shift = centre - matrix @ centre + torch.tensor([0.21, -0.13, 0.08])
    return Resample(TINY, TINY, Affine(torch.cat([matrix, shift[:, None]], 1)), interpolation)


def _displaced(interpolation: str) -> Resample:
    knots = TINY.coarsen((3, 3, 3))
    return Resample(TINY, TINY, Displacement(knots, 0.2 * noise(3, *knots.shape)), interpolation)


def _coils(g: Grid, n: int = 3) -> Tensor:
    return noise(n, *g.shape, dtype=torch.complex128)


def _mask(g: Grid) -> Tensor:
    return (noise(*g.shape, seed=3) > -0.3).double() * apodisation(g.shape)


def _trajectory(g: Grid, axes: Sequence[int], readout: int = 9, shots: int = 4) -> Tensor:
    sizes = torch.tensor([g.shape[n] for n in axes], dtype=torch.float64)
    drawn = torch.rand(readout, shots, len(axes), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    return 0.98 * (drawn - 0.5) * sizes


def _some_zeros(g: Grid) -> Tensor:
    return (noise(*g.shape, seed=5) > -0.5) * noise(*g.shape, seed=6)


def _oblique() -> LinearOperator:
    scan = rotated(grid((3, 4, 2), (1.1, 1.0, 2.3), VOLUME.centre - np.array([1.0, 1.5, 1.0])), 30, (3, 1, 1))
    return acquisition(scan, reference=VOLUME)


def _slices(scan: Grid, **options: Any) -> LinearOperator:
    n = scan.shape[scan.through_plane]
    motion = torch.cat([0.1 * noise(n, 3, seed=1), 0.3 * noise(n, 3, seed=2)], 1)
    return acquisition(scan, reference=TINY, motion=motion, **options)


def _stack(*members: LinearOperator) -> Stack:
    return Stack(list(members), weights=[1.0, 0.4, 2.0][: len(members)])


def _orthogonal_stack() -> Stack:
    scans = [VOLUME.coarsen((1.0, 0.9, 2.2)), reoriented(VOLUME.coarsen((2.0, 0.9, 1.1)), (1, 2, 0), (2,))]
    return _stack(*[acquisition(scan, reference=VOLUME) for scan in scans])


def _moving_stack() -> Stack:
    scans = [acquisition(SMALL.coarsen(s), reference=SMALL) for s in ((1.0, 0.9, 2.2), (2.0, 0.9, 1.1))]
    return _stack(scans[0], scans[1] @ _rigid(SMALL))


def _contrasts(grid: Grid) -> Contrasts:
    return Contrasts([acquisition(grid.coarsen(s), reference=grid) for s in ((1.0, 0.9, 2.2), (2.0, 0.9, 1.1))])


def _stacked_contrasts() -> Contrasts:
    return Contrasts([_orthogonal_stack(), acquisition(VOLUME.coarsen((1.0, 0.9, 2.2)), reference=VOLUME)])


def _moving_contrasts() -> Contrasts:
    fixed, other = (acquisition(SMALL.coarsen(s), reference=SMALL) for s in ((1.0, 0.9, 2.2), (2.0, 0.9, 1.1)))
    return Contrasts([fixed, other @ _rigid(SMALL)])


CASES: dict[str, Case] = {
    "separable, permuted, rank-deficient": Case(_separable),
    "separable, learnable matrices": Case(_learnable_separable),
    "separable, complex": Case(
        lambda: Separable(SMALL, grid((2, 3, 6)), (*_matrices(SMALL, (2, 3, 6), True)[:2], None)), complex_domain=True
    ),
    "separable, complex matrices on real volumes": Case(
        lambda: Separable(SMALL, grid((2, 3, 6)), (*_matrices(SMALL, (2, 3, 6), True)[:2], None))
    ),
    "chain": Case(_chain),
    "identity": Case(lambda: Identity(SMALL)),
    # Sampling
    "sampling, gaussian": _sampling(THICK),
    "sampling, boxcar": _sampling(THICK, slice_profile="boxcar"),
    "sampling, sinc": _sampling(THICK, slice_profile="sinc"),
    "sampling, slr": _sampling(THICK, slice_profile="slr"),
    "sampling, profile from a file": Case(lambda: acquisition(THICK, reference=VOLUME, slice_profile=profile_file())),
    "sampling, gap": _sampling(THICK, slice_thickness=1.3),
    "sampling, overlap": _sampling(THICK, slice_thickness=3.7),
    "sampling, in-plane k-space": _sampling(COARSE),
    "sampling, in-plane gaussian": _sampling(COARSE, in_plane="gaussian"),
    "sampling, in-plane points": _sampling(COARSE, in_plane="none"),
    "sampling, k-space with the field of view": _sampling(VOLUME.refine((2.5, 1.8, 2.2))),
    "sampling, ratios that are not whole": _sampling(VOLUME.refine((1.37, 1.21, 2.9))),
    "sampling, ratios that are not whole, points": _sampling(VOLUME.refine((1.37, 1.21, 2.9)), in_plane="none"),
    "sampling, permuted and flipped": _sampling(reoriented(COARSE, (2, 0, 1), (0, 2))),
    "sampling, finer than the volume": _sampling(VOLUME.refine((0.5, 0.9, 2.2)), in_plane="none"),
    "sampling, singleton axes": _sampling(shifted(VOLUME.coarsen((1.0, 5.4, 8.8)), (0, 0, 0.3))),
    "sampling, partly outside": _sampling(shifted(THICK, (0, 0, 4.4))),
    # Pointwise and compositions
    "diagonal": Case(lambda: Diagonal(SMALL, noise(*SMALL.shape).clamp(min=0))),
    "diagonal on complex volumes": Case(lambda: Diagonal(SMALL, noise(*SMALL.shape).abs()), complex_domain=True),
    "scaled identity": Case(lambda: -0.3 * Identity(SMALL)),
    "scaled sampling": Case(lambda: 0.3 * acquisition(THICK, reference=VOLUME)),
    "composition": Case(_oblique),
    "composition to k-space": Case(
        lambda: KSpaceMask(THICK, _mask(THICK), real=True) @ acquisition(THICK, reference=VOLUME)
    ),
    "sum": Case(
        lambda: acquisition(THICK, reference=VOLUME) + acquisition(THICK, reference=VOLUME, slice_thickness=4.0)
    ),
    "adjoint": Case(lambda: acquisition(THICK, reference=VOLUME).H, keeps_range=False),
    "adjoint of k-space samples": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL)).H, complex_domain=True, keeps_range=False
    ),
    # Motion
    "resample": Case(lambda: Resample(TINY, rotated(shifted(TINY, (0.3, 0.1, -0.2)), 10))),
    "resample, nowhere": Case(lambda: Resample(TINY, shifted(TINY, (100, 0, 0)))),
    "resample, rigid, linear": Case(lambda: _rigid(TINY)),
    "resample, rigid, cubic": Case(lambda: _rigid(TINY, "cubic")),
    "resample, affine, linear": Case(lambda: _affine("linear")),
    "resample, affine, cubic": Case(lambda: _affine("cubic")),
    "resample, displacement, linear": Case(lambda: _displaced("linear")),
    "resample, displacement, cubic": Case(lambda: _displaced("cubic")),
    "resample, complex volumes": Case(lambda: _rigid(TINY), complex_domain=True),
    "moved scan": Case(lambda: acquisition(THICK, reference=VOLUME) @ _rigid(VOLUME), keeps_range=False),
    "moved scan, one motion": Case(
        lambda: acquisition(TINY.coarsen((1, 0.9, 2.2)), reference=TINY, motion=[0.05, -0.1, 0.02, 0.2, 0.1, -0.1])
    ),
    "slices": Case(lambda: _slices(TINY.coarsen((1, 0.9, 2.2)))),
    "slices, permuted": Case(
        lambda: Slices(
            TINY,
            reoriented(TINY.coarsen((1, 1.8, 1.1)), (1, 2, 0), (0,)),
            AxisProfile(*profile_samples("boxcar"), 1.8),
            0.1 * noise(2, 6),
            through_plane=0,
        )
    ),
    "slices, oblique, profile from a file": Case(
        lambda: _slices(rotated(TINY.coarsen((1, 0.9, 2.2)), 15), slice_profile=profile_file())
    ),
    "slices, points": Case(lambda: _slices(TINY.coarsen((1, 0.9, 2.2)), slice_profile="none")),
    "slices, large pixels": Case(lambda: _slices(TINY.coarsen((1.5, 1.8, 2.2)), in_plane="gaussian")),
    "slices, complex volumes": Case(lambda: _slices(TINY.coarsen((1, 0.9, 2.2))), complex_domain=True),
    # Algebra
    "transpose": Case(lambda: KSpaceCrop(SMALL, (3, 3, 4)).T, complex_domain=True),
    "difference": Case(lambda: acquisition(THICK, reference=VOLUME) - 0.5 * acquisition(THICK, reference=VOLUME)),
    "negative, divided": Case(lambda: -acquisition(THICK, reference=VOLUME) / 2),
    "weights per sample": Case(lambda: acquisition(THICK, reference=VOLUME) * noise(*THICK.shape).abs().add(0.5)),
    "weights per sample of k-space": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL)) * _some_zeros(SMALL), complex_domain=True
    ),
    "learnable weights per sample": Case(lambda: Identity(SMALL) * nn.Parameter(noise(*SMALL.shape).abs() + 0.5)),
    "learnable factor": Case(lambda: acquisition(THICK, reference=VOLUME) * nn.Parameter(torch.tensor(-0.8).double())),
    "learnable factor before k-space": Case(
        lambda: KSpaceCrop(SMALL, (3, 3, 4)) @ (Identity(SMALL) * nn.Parameter(torch.tensor([1.3]).double()))
    ),
    "scaled k-space mask": Case(lambda: -2 * KSpaceMask(SMALL, _mask(SMALL)), complex_domain=True),
    "scaled stack": Case(lambda: _orthogonal_stack() / -2),
    "transpose of a stack": Case(lambda: _orthogonal_stack().T, solves=False),
    "gram of a stack": Case(lambda: _orthogonal_stack().H @ _orthogonal_stack(), keeps_range=False),
    # k-space
    "k-space crop": Case(lambda: KSpaceCrop(VOLUME, (4, 3, 8))),
    "k-space crop, complex volumes": Case(lambda: KSpaceCrop(VOLUME, (4, 3, 8)), complex_domain=True),
    "zero filling": Case(lambda: zero_fill(SMALL, (6, 7, 6))),
    "zero filling, complex volumes": Case(lambda: zero_fill(SMALL, (6, 7, 6)), complex_domain=True),
    "k-space mask": Case(lambda: KSpaceMask(SMALL, _mask(SMALL)), complex_domain=True),
    "k-space mask, real volumes": Case(lambda: KSpaceMask(SMALL, _mask(SMALL), real=True)),
    "k-space mask, coils": Case(lambda: KSpaceMask(SMALL, _mask(SMALL), _coils(SMALL)), complex_domain=True),
    "k-space mask, coils, real volumes": Case(lambda: KSpaceMask(SMALL, _mask(SMALL), _coils(SMALL), real=True)),
    "k-space mask along two axes": Case(lambda: KSpaceMask(SMALL, _mask(SMALL), axes=(0, 1)), complex_domain=True),
    "k-space mask along two axes, the same for all slices": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL)[..., :1].expand(SMALL.shape), axes=(0, 1)), complex_domain=True
    ),
    "k-space mask along one axis, coils": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL)[:1].expand(SMALL.shape), _coils(SMALL), axes=(1,)), complex_domain=True
    ),
    "k-space mask along two axes, coils, real volumes": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL), _coils(SMALL), real=True, axes=(1, 2))
    ),
    "k-space mask along two axes, real volumes": Case(
        lambda: KSpaceMask(SMALL, _mask(SMALL)[:, :, :1].expand(SMALL.shape), real=True, axes=(0, 1))
    ),
    # Off the Cartesian grid
    "non-uniform k-space": Case(
        lambda: NonUniformKSpace(SMALL, _trajectory(SMALL, (0, 1, 2), 11, 7)), complex_domain=True
    ),
    "non-uniform k-space, learnable trajectory": Case(
        lambda: NonUniformKSpace(TINY, nn.Parameter(_trajectory(TINY, (0, 1, 2)))), complex_domain=True
    ),
    "non-uniform k-space along two axes, coils and weights": Case(
        lambda: NonUniformKSpace(
            SMALL, _trajectory(SMALL, (0, 1)), _coils(SMALL), _some_zeros(grid((9, 4, 1)))[..., 0], axes=(0, 1)
        ),
        complex_domain=True,
    ),
    "non-uniform k-space along two axes out of order, learnable trajectory, coils and weights": Case(
        lambda: NonUniformKSpace(
            TINY,
            nn.Parameter(_trajectory(TINY, (2, 0))),
            nn.Parameter(torch.view_as_real(_coils(TINY, 2)).clone()),
            nn.Parameter(noise(9, 4).abs()),
            axes=(2, 0),
        ),
        complex_domain=True,
    ),
    "non-uniform k-space of slices": Case(
        lambda: NonUniformKSpace(THICK, _trajectory(THICK, (0, 1)), axes=(0, 1)) @ acquisition(THICK, reference=VOLUME),
        complex_domain=True,
    ),
    "k-space filter": Case(
        lambda: KSpaceFilter(SMALL, partial_fourier(SMALL.shape, 0.7, 2) * apodisation(SMALL.shape))
    ),
    "k-space filter, complex volumes": Case(
        lambda: KSpaceFilter(SMALL, partial_fourier(SMALL.shape, 0.7, 2)), complex_domain=True
    ),
    # Stacks
    "stack of orthogonal scans": Case(_orthogonal_stack),
    "stack of moving scans": Case(_moving_stack, keeps_range=False),
    "stack with an oblique scan": Case(lambda: _stack(acquisition(THICK, reference=VOLUME), _oblique())),
    "stack of k-space samples": Case(
        lambda: _stack(KSpaceMask(SMALL, _mask(SMALL), real=True), KSpaceMask(SMALL, _mask(SMALL), real=True))
    ),
    "adjoint of a stack": Case(lambda: _orthogonal_stack().H, solves=False),
    # Contrasts
    "contrasts": Case(lambda: _contrasts(VOLUME), channels=2),
    "contrasts, one from several stacks": Case(_stacked_contrasts, channels=2),
    "contrasts, one moved": Case(_moving_contrasts, keeps_range=False, channels=2),
}
