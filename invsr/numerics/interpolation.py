"""Values of volumes between their voxels, linear and cubic, with exact adjoints and derivatives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from invsr.grid import SAME_POSITION
from invsr.numerics.axes import multiply


def real_volumes(x: Tensor) -> Tensor:
    """(batch, channel, i, j, k), real or complex, as one batch of real channels."""
    parts = torch.stack([x.real, x.imag]) if x.is_complex() else x
    return parts.reshape(1, -1, *x.shape[2:])


def like_volumes(volumes: Tensor, x: Tensor) -> Tensor:
    """Undo `real_volumes`."""
    shape = (*x.shape[:2], *volumes.shape[2:])
    if x.is_complex():
        return torch.complex(*volumes.reshape(2, *shape).unbind(0))
    return volumes.reshape(shape)


# Positions are worked out this many voxels at a time, to bound memory.
SLAB = 1 << 18


class Sample(torch.autograd.Function):
    """Values (1, c, I, J, K) of volumes (1, c, i, j, k) at positions (I, J, K, 3); with a shape, the adjoint of it."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, at: Tensor, cubic: bool, shape: tuple[int, ...] | None) -> Tensor:
        ctx.save_for_backward(v, at)
        ctx.cubic, ctx.spreads = cubic, shape is not None
        if shape is not None:
            zeros = v.new_zeros(()).expand(1, v.shape[1], *shape)
            return _cubic_spread(v, at, shape) if cubic else _grid_sample_vjp(v, zeros, at, (True, False))
        if cubic:
            return _cubic_values(v, at)
        return nn.functional.grid_sample(v, at[None], mode="bilinear", padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        v, at = ctx.saved_tensors
        shape = None if ctx.spreads else tuple(v.shape[2:])
        to_v = Sample.apply(grads[0], at, ctx.cubic, shape) if ctx.needs_input_grad[0] else None
        x, y = (grads[0], v) if ctx.spreads else (v, grads[0])
        return to_v, _slope(x, at, y, ctx.cubic) if ctx.needs_input_grad[1] else None, None, None


def _slope(x: Tensor, at: Tensor, y: Tensor, cubic: bool) -> Tensor:
    """Derivative of ``<y, values of x at the positions>`` with respect to the positions."""
    if not cubic:
        return _grid_sample_vjp(y, x, at, (False, True))
    again = torch.is_grad_enabled()
    slopes = []
    with torch.enable_grad():
        for part, values in _parts(at, y):
            p = part if again else part.detach().requires_grad_()
            total = torch.zeros_like(values)
            for index, weight in _taps(p, x.shape[2:]):
                total = total + weight * x.flatten(2).index_select(2, index)
            slopes.append(torch.autograd.grad(total, p, values, create_graph=again)[0])
    return torch.cat(slopes).reshape(at.shape)


def _grid_sample_vjp(g: Tensor, x: Tensor, at: Tensor, wanted: tuple[bool, bool]) -> Tensor:
    # The backward pass of grid_sample by itself: bilinear (0), border (1), align_corners.
    to_x, to_at = torch.ops.aten.grid_sampler_3d_backward(g, x, at[None], 0, 1, True, wanted)
    return cast(Tensor, to_x if wanted[0] else to_at[0])


def _cubic_values(x: Tensor, at: Tensor) -> Tensor:
    flat, out = x.flatten(2), x.new_zeros(1, x.shape[1], at[..., 0].numel())
    for part, values in _parts(at, out):
        for index, weight in _taps(part, x.shape[2:]):
            values += weight * flat.index_select(2, index)
    return out.reshape(*x.shape[:2], *at.shape[:3])


def _cubic_spread(y: Tensor, at: Tensor, shape: tuple[int, ...]) -> Tensor:
    out = y.new_zeros(1, y.shape[1], math.prod(shape))
    for part, values in _parts(at, y):
        for index, weight in _taps(part, shape):
            out.index_add_(2, index, weight * values)
    return out.reshape(1, y.shape[1], *shape)


def _parts(at: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and values a part at a time: what fits a processor's cache, or fills a GPU."""
    size = 1 << (15 if at.device.type == "cpu" else 18)
    return zip(torch.split(at.reshape(-1, 3), size), torch.split(y.flatten(2), size, 2), strict=True)


def _taps(at: Tensor, shape: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat index and weight of each of the 64 neighbours, in a volume that `extend` has padded."""
    axes = []
    for n in (0, 1, 2):
        last = shape[n] - 3  # the outermost voxel centre; further out the edge is replicated
        p = at[:, n].clamp(0, last)
        first = p.detach().floor().clamp(max=last - 1)
        step = math.prod(shape[n + 1 :])
        index = first.long() * step
        axes.append([(index + tap * step, keys_kernel(p - first - (tap - 1))) for tap in (0, 1, 2, 3)])
    for i, a in axes[0]:
        for j, b in axes[1]:
            ij, ab = i + j, a * b
            for k, c in axes[2]:
                yield ij + k, ab * c


# One more voxel on either side, for the outer taps of the cubic kernel, on the line through the outermost two;
# so a ramp stays a ramp up to the outermost voxel centres.


def extended_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Size of what `extend` returns."""
    return tuple(max(n + 2, 4) for n in shape)


def _extension(size: int, like: Tensor) -> Tensor:
    if size == 1:
        return torch.ones(4, 1, dtype=like.dtype, device=like.device)
    matrix = torch.zeros(size + 2, size, dtype=like.dtype, device=like.device)
    matrix[1:-1] = torch.eye(size)
    matrix[0, :2] = torch.tensor([2.0, -1.0])
    matrix[-1, -2:] = torch.tensor([-1.0, 2.0])
    return matrix


def extend(x: Tensor) -> Tensor:
    """A volume with one more voxel on either side of each axis."""
    for n in (0, 1, 2):
        x = multiply(_extension(x.shape[2 + n], x), x, n)
    return x


def extend_adjoint(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Transpose of `extend`, back to `shape`."""
    for n in (0, 1, 2):
        x = multiply(_extension(shape[n], x).mT, x, n)
    return x


# Bookkeeping ----------------------------------------------------------------------------------------


def in_view(voxels: Tensor, size: Tensor, reach: float) -> Tensor:
    """Whether positions, shape (..., 3), are within `reach` voxels of the outermost centres; shape (...)."""
    return ((voxels >= -reach - SAME_POSITION) & (voxels <= size - 1 + reach + SAME_POSITION)).all(-1)


def normalised(voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Voxel indices as grid_sample takes them: -1 to 1 between the outermost centres, last axis first."""
    last = torch.tensor([max(n - 1, 1) for n in shape], dtype=voxels.dtype, device=voxels.device)
    return (voxels * (2 / last) - 1).flip(-1)


def keys_kernel(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (a = -1/2) at distances t, in voxels."""
    t = t.abs()
    near = 1 + t**2 * (1.5 * t - 2.5)
    far = 2 + t * (-4 + t * (2.5 - 0.5 * t))
    return torch.where(t < 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
