"""Fourier sums at any frequencies, by the package finufft: ``y[m] = sum_n x[n] exp(-i p[m] n)``, and its adjoint.

Indices n count from ``-(N // 2)`` along each axis. Both sums are differentiable in the values and in the points, as
often as asked for. They are computed on the CPU; tensors of another device are brought there and back.

References
----------
Barnett, Magland, af Klinteberg (2019), SIAM J. Sci. Comput. 41, C479-C504 (FINUFFT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError

INSTALL = 'pip install "invsr[raw]"'
# Relative error of the sums, next to rounding.
TOLERANCE = {torch.float32: 3e-7, torch.float64: 1e-14}


def sums_at(x: Tensor, points: Tensor) -> Tensor:
    """``y[m] = sum_n x[n] exp(-i p[m] n)``, shape (batch, m).

    Parameters
    ----------
    x : Tensor, shape (batch, *sizes), complex
        One to three axes.
    points : Tensor, shape (m, axes), real, of x's precision
        Radian per index.
    """
    found: Tensor = _At.apply(x, points)
    return found


def sums_from(y: Tensor, points: Tensor, sizes: Sequence[int]) -> Tensor:
    """``x[n] = sum_m y[m] exp(i p[m] n)``, the adjoint of `sums_at`, shape (batch, *sizes).

    Parameters
    ----------
    y : Tensor, shape (batch, m), complex
    points : Tensor, shape (m, axes), real, of y's precision
    sizes : sequence of int
    """
    found: Tensor = _From.apply(y, points, tuple(sizes))
    return found


class _At(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(x, points)
        return _run(2, x, points, x.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, points = ctx.saved_tensors
        (g,) = grads
        back = sums_from(g, points, x.shape[1:]) if ctx.needs_input_grad[0] else None
        return back, _slopes(g, x, points) if ctx.needs_input_grad[1] else None


class _From(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, points: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(y, points)
        return _run(1, y, points, sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, points = ctx.saved_tensors
        (g,) = grads
        back = sums_at(g, points) if ctx.needs_input_grad[0] else None
        # <g, A* y> = <A g, y>: the derivative of A g, with y in the place of its gradient.
        return back, _slopes(y, g, points) if ctx.needs_input_grad[1] else None, None


def _slopes(g: Tensor, x: Tensor, points: Tensor) -> Tensor:
    """Derivative of ``Re <g, y>`` in the points, as ``dy/dp_d`` is the sum of ``-i n_d x``; shape (m, axes)."""
    found = []
    for d, size in enumerate(x.shape[1:]):
        along = torch.arange(size, dtype=x.real.dtype, device=x.device) - size // 2
        along = along.reshape([-1 if d == n else 1 for n in range(x.ndim - 1)])
        found.append((g.conj() * sums_at(-1j * along * x, points)).real.sum(0))
    return torch.stack(found, -1)


def _run(kind: int, values: Tensor, points: Tensor, sizes: Sequence[int]) -> Tensor:
    """The sum of type 1 (from points) or 2 (at points)."""
    try:
        import finufft
    except ImportError:
        raise InvsrError(f"k-space off a Cartesian grid takes the package finufft: {INSTALL}") from None
    batch, real = len(values), values.real.dtype
    shape = (batch, len(points)) if kind == 2 else (batch, *sizes)
    if not batch or not len(points):
        return torch.zeros(shape, dtype=values.dtype, device=values.device)
    if not bool(points.detach().isfinite().all()):  # which finufft would read beyond its memory for
        raise InvsrError("a trajectory through k-space is NaN or infinite: repair it, or learn it by smaller steps")
    at = [p.contiguous().numpy() for p in points.detach().to("cpu", real).unbind(-1)]
    given = values.detach().cpu().resolve_conj().contiguous().numpy()
    plan = finufft.Plan(
        kind,
        tuple(sizes),
        batch,
        TOLERANCE[real],
        1 if kind == 1 else -1,
        dtype=given.dtype.name,
        nthreads=torch.get_num_threads(),
    )
    plan.setpts(*at)
    found = torch.from_numpy(plan.execute(given if batch > 1 else given[0]))
    return found.reshape(shape).to(values.device)
