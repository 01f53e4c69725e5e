"""Equivariant bootstrap: how wrong a reconstruction method is, seen where the truth is known, its own result moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from invsr.numerics.linear import white_noise
from invsr.operators.base import Data, LinearOperator
from invsr.solvers.residuals import as_tuple, like_data
from invsr.uncertainty.deviation import along, interval_deviation, require_samples, require_sigma

# Anatomy is moved by up to so many voxels along each axis, and at most by this share of it.
SHIFT, MOST_SHARE = 4, 0.125
# Axes of fewer voxels keep their places: of anatomy that is turned into them nothing would be left.
LEAST_SIDE = 16
# The result stands for the truth, and lacks the detail that the method smooths away: its errors are smaller. Found on
# stroke_* and brain_FLAIR_1mm_ms_k with slices of 2, 4 and 6 voxels (benchmarks/quality/calibration.py), so that 68 %
# of the voxels lie within one deviation.
WIDENING = 1.6


def equivariant_bootstrap(
    run: Callable[[Data], Tensor],
    operator: LinearOperator,
    x: Tensor,
    y: Data,
    sigma: float,
    *,
    n_samples: int = 8,
    seed: int = 0,
) -> Tensor:
    """Standard deviation of a method's error, per voxel.

    The result x is turned, flipped and shifted at random (T), measured as the truth was, with new noise, and
    reconstructed again; what T^-1 brings back differs from x by the method's error for such anatomy:

    .. code-block:: text

        e_b = T_b^-1 run(A T_b x + sigma n_b) - x

    Turning brings the detail in the slices' planes, which is known, into the direction across them, which is not.
    Without T the bootstrap would be blind to whatever A does not see. The deviation of the errors is widened
    (`WIDENING`): x is smoother than the truth.

    Parameters
    ----------
    run : callable
        ``run(y)``: the method's volume for data like y.
    operator : LinearOperator
    x : Tensor, shape (1, 1, i, j, k)
        The method's volume for the data.
    y : Tensor (or tuple of them for a stack)
        The data; only their shapes matter.
    sigma : float
        Their noise.
    n_samples : int
        How often; at least 2.
    seed : int

    Raises
    ------
    InvsrError
        When the number of samples is out of range, or sigma is not finite and above zero.

    References
    ----------
    Tachella & Pereyra (2024), Equivariant bootstrapping for uncertainty quantification in imaging inverse problems,
    AISTATS.
    """
    require_samples(n_samples)
    require_sigma(sigma)
    generator = torch.Generator().manual_seed(seed)
    spacing = operator.domain.spacing
    turns = bool(spacing.max() < 1.1 * spacing.min())
    squares, seen = torch.zeros_like(x.real), torch.zeros_like(x.real)
    for _ in range(n_samples):
        move = Move.draw(generator, x.shape[2:], turns)
        clean = as_tuple(operator(move(x, x.shape[2:])))
        noisy = [one + sigma * white_noise(one, generator) for one in clean]
        found = run(like_data(tuple(noisy), y))
        inside = move.back(move(torch.ones_like(x.real), x.shape[2:]), x.shape[2:])
        squares += inside * along(move.back(found, x.shape[2:]) - x, x).square()
        seen += inside
    return WIDENING * interval_deviation(squares, seen, n_samples)


class Move:
    """A permutation of the axes, flips, and a shift by whole voxels; what leaves the volume is lost."""

    def __init__(self, order: Sequence[int], flips: Sequence[int], shift: Sequence[int]) -> None:
        self.order, self.flips, self.shift = list(order), list(flips), list(shift)

    @classmethod
    def draw(cls, generator: torch.Generator, shape: Sequence[int], turns: bool) -> Move:
        """At random, for volumes of a shape; without `turns` the axes keep their places."""
        order = [0, 1, 2]
        if turns:
            wide = [n for n in order if shape[n] >= LEAST_SIDE]
            for n, taken in zip(wide, torch.randperm(len(wide), generator=generator).tolist(), strict=True):
                order[n] = wide[taken]
        flips = [axis for axis in range(3) if int(torch.randint(2, (), generator=generator))]
        most = [min(SHIFT, int(MOST_SHARE * side)) for side in shape]
        shift = [int(torch.randint(-far, far + 1, (), generator=generator)) for far in most]
        return cls(order, flips, shift)

    def __call__(self, v: Tensor, shape: Sequence[int]) -> Tensor:
        """Moved, on a grid of a shape, about its centre."""
        turned = v.flip([2 + n for n in self.flips]).permute(0, 1, *[2 + n for n in self.order])
        return _placed(turned, shape, self.shift)

    def back(self, v: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse, onto the grid of the shape that was moved."""
        turned = _placed(v, [shape[n] for n in self.order], [-n for n in self.shift])
        return turned.permute(0, 1, *[2 + self.order.index(n) for n in range(3)]).flip([2 + n for n in self.flips])


def _placed(v: Tensor, shape: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Cropped and padded with zeros about the centre to a shape, shifted."""
    for axis, (side, by) in enumerate(zip(shape, shift, strict=True), start=2):
        have = v.shape[axis]
        # Where index 0 of v comes to lie: differences of odd size round alike there and back.
        first = (side - have) // 2 + by if side >= have else -((have - side) // 2) + by
        out = v.new_zeros((*v.shape[:axis], side, *v.shape[axis + 1 :]))
        low, high = max(0, first), min(side, first + have)
        if low < high:
            out.narrow(axis, low, high - low).copy_(v.narrow(axis, low - first, high - low))
        v = out
    return v
