"""Trajectories through k-space, in cycles per field of view, for simulations; and how dense their samples lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators.nonuniform import NonUniformKSpace

# Turn from one spoke to the next: 111.25 degrees, and the means that do the same for directions in space.
GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
GOLDEN_MEANS = (0.4656, 0.6823)


def radial(n_spokes: int, n_readout: int, matrix: int | Sequence[int]) -> Tensor:
    """Spokes through the middle of k-space at golden angles, shape (n_readout, n_spokes, 2), float32.

    Sample ``n_readout // 2`` of each lies at frequency zero, and the whole from ``-matrix / 2`` on, in equal steps.

    Parameters
    ----------
    n_spokes, n_readout : int
        ``2 * matrix`` samples for the usual twofold readout oversampling.
    matrix : int or two
        Voxels of the image along both axes.

    References
    ----------
    Winkelmann, Schaeffter, Koehler, Eggers, Doessel (2007), IEEE Trans. Med. Imaging 26, 68-76.

    Examples
    --------
    >>> k = radial(n_spokes=3, n_readout=8, matrix=4)
    >>> k[:, 0].tolist()[:5]
    [[-2.0, -0.0], [-1.5, -0.0], [-1.0, -0.0], [-0.5, -0.0], [0.0, 0.0]]
    """
    sizes = _sizes(matrix, 2, n_spokes, n_readout)
    angle = GOLDEN_ANGLE * torch.arange(n_spokes, dtype=torch.float64)
    return _spokes(torch.stack([angle.cos(), angle.sin()], -1), n_readout, sizes)


def kooshball(n_spokes: int, n_readout: int, matrix: int | Sequence[int]) -> Tensor:
    """Three-dimensional spokes by golden means, shape (n_readout, n_spokes, 3), float32; as `radial`.

    Parameters
    ----------
    n_spokes, n_readout : int
    matrix : int or three

    References
    ----------
    Chan, Ramsay, Cunningham, Plewes (2009), Magn. Reson. Med. 61, 354-363.
    """
    sizes = _sizes(matrix, 3, n_spokes, n_readout)
    n = torch.arange(n_spokes, dtype=torch.float64)
    height, angle = (n * GOLDEN_MEANS[0]) % 1, 2 * math.pi * n * GOLDEN_MEANS[1]
    ring = (1 - height**2).sqrt()
    return _spokes(torch.stack([ring * angle.cos(), ring * angle.sin(), height], -1), n_readout, sizes)


def spiral(n_shots: int, n_readout: int, matrix: int | Sequence[int], turns: float | None = None) -> Tensor:
    """Archimedean spirals from the middle to the edge at about constant speed, shape (n_readout, n_shots, 2), float32.

    Parameters
    ----------
    n_shots, n_readout : int
    matrix : int or two
        Voxels of the image along both axes.
    turns : float, optional
        Turns of each shot; by default as many as bring neighbouring turns of all shots one cycle apart.

    References
    ----------
    Meyer, Hu, Nishimura, Macovski (1992), Magn. Reson. Med. 28, 202-213.
    """
    sizes = _sizes(matrix, 2, n_shots, n_readout)
    turns = max(sizes) / 2 / n_shots if turns is None else turns
    if not turns > 0:
        raise InvsrError(f"a spiral of {turns} turns: give a number above zero")
    radius = torch.linspace(0, 1, n_readout, dtype=torch.float64).sqrt()[:, None]
    angle = 2 * math.pi * (turns * radius + torch.arange(n_shots) / n_shots)
    half = torch.tensor(sizes, dtype=torch.float64) / 2
    return (torch.stack([radius * angle.cos(), radius * angle.sin()], -1) * half).float()


def density_weights(trajectory: Tensor, shape: Sequence[int], n_iter: int = 10) -> Tensor:
    """Area of k-space that each sample stands for, in cells of one cycle per field of view, shape (readout, shots).

    The iteration is ``w <- w / |A T A* w|``, A the operator on twice the field of view and T a triangle there, whose
    transform is nowhere below zero. Given as data, ``A* w y`` grids; the roots are weights of `NonUniformKSpace`.

    Parameters
    ----------
    trajectory : Tensor, shape (readout, shots, d), real
        Cycles per field of view.
    shape : d of int
        Voxels of the image along the d axes.
    n_iter : int

    Raises
    ------
    InvsrError
        When shapes do not fit, or the trajectory leaves k-space.

    References
    ----------
    Pipe, Menon (1999), Magn. Reson. Med. 41, 179-186.
    """
    sizes = [int(n) for n in shape]
    if len(sizes) not in (2, 3):
        raise InvsrError(f"density of a trajectory on a matrix of {tuple(sizes)}: give two or three sizes")
    wide = Grid([2 * n for n in sizes] + [1] * (3 - len(sizes)), np.eye(4))
    operator = NonUniformKSpace(wide, 2 * trajectory.detach(), axes=range(len(sizes)))
    weights = torch.ones(1, 1, *operator.range.shape, dtype=trajectory.dtype, device=trajectory.device)
    triangle = torch.ones((), dtype=trajectory.dtype, device=trajectory.device)
    for n in sizes:
        away = (torch.arange(2 * n, device=trajectory.device) - n).abs()
        triangle = triangle[..., None] * (1 - away / n).to(triangle)
    triangle = triangle.reshape(wide.shape)
    with torch.no_grad():
        for _ in range(n_iter):
            weights = weights / operator(triangle * operator.adjoint(weights)).abs().clamp(min=1e-6)
    # Twice the field of view: 2^d samples to a cell.
    found: Tensor = weights[0, 0, ..., 0] / 2 ** len(sizes)
    return found


def _spokes(directions: Tensor, n_readout: int, sizes: Sequence[int]) -> Tensor:
    along = (torch.arange(n_readout, dtype=torch.float64) - n_readout // 2) / n_readout
    steps = torch.tensor(sizes, dtype=torch.float64)
    return (along[:, None, None] * directions * steps).float()


def _sizes(matrix: int | Sequence[int], axes: int, shots: int, readout: int) -> list[int]:
    sizes = [int(n) for n in np.broadcast_to(np.asarray(matrix), axes)]
    if min(shots, readout, *sizes) < 1:
        raise InvsrError(f"a trajectory of {shots} shots of {readout} samples, matrix {sizes}: all must be above zero")
    return sizes
