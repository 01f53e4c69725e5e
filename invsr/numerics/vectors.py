"""Volumes and data (one tensor or a tuple of them, real or complex) as vectors of numbers, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

# A tensor (batch, channel, i, j, k), or a tuple of such tensors (the data of a stack). The union of both types would
# have to be told apart at every use.
Tensors: TypeAlias = Any


def parts(x: Tensors) -> tuple[Tensor, ...]:
    """The tensors of `x`, one or several."""
    return x if isinstance(x, tuple) else (x,)


def device_of(module: nn.Module) -> torch.device:
    """Where the numbers of a module are; the CPU where it has none."""
    held = next(itertools.chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if held is None else held.device


def map_parts(function: Callable[[Tensor], Tensor], x: Tensors) -> Tensors:
    """`function` of a tensor, or of each tensor of a tuple."""
    return tuple(map(function, x)) if isinstance(x, tuple) else function(x)


def to_vectors(x: Tensors, pairs: bool = True) -> Tensor:
    """One row of numbers for each entry of the batch, shape (batch, n).

    Complex tensors become real and imaginary parts side by side, or stay complex without `pairs`.
    """
    return torch.cat([(_as_pairs(part) if pairs else part).flatten(1) for part in parts(x)], 1)


def from_vectors(rows: Tensor, like: Tensors) -> Tensors:
    """The reverse of `to_vectors`: rows (batch, n) in the form of `like`, whose batch may have another size."""
    pairs = not rows.is_complex()
    whole = [_as_pairs(part) if pairs else part for part in parts(like)]
    pieces = torch.split(rows, [part[0].numel() for part in whole], 1)
    found = []
    for piece, form, part in zip(pieces, whole, parts(like), strict=True):
        piece = piece.reshape(len(rows), *form.shape[1:])
        found.append(torch.view_as_complex(piece.contiguous()) if pairs and part.is_complex() else piece)
    return tuple(found) if isinstance(like, tuple) else found[0]


def random_in_form_of(like: Tensors, seed: int, batch: int | None = None) -> Tensors:
    """Normal random numbers in the form of `like`, the same for a seed on every device."""
    rows = to_vectors(like)
    shape = (len(rows) if batch is None else batch, rows.shape[1])
    drawn = torch.randn(shape, dtype=rows.dtype, generator=torch.Generator().manual_seed(seed))
    return from_vectors(drawn.to(rows.device), like)


def dense_matrix(function: Callable[[Tensors], Tensors], like: Tensors) -> Tensor:
    """The real matrix of a linear function, column by column; `like` is an input of batch size 1."""
    rows = to_vectors(like)
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return to_vectors(function(from_vectors(eye, like))).T


def in_single_precision(x: Tensors) -> Tensors:
    """`x` in float32 or complex64."""
    return map_parts(lambda part: part.to(torch.complex64 if part.is_complex() else torch.float32), x)


def norm(x: Tensors) -> float:
    """Euclidean norm, in float64."""
    return math.hypot(*(float(part.detach().to(torch.complex128).norm()) for part in parts(x)))


def dot(a: Tensors, b: Tensors) -> float:
    """Real part of <a, b>, in float64."""
    return float((to_vectors(a).detach().double() * to_vectors(b).detach().double()).sum())


def difference(a: Tensors, b: Tensors) -> float:
    """``||a - b|| / max(||a||, ||b||)``; infinite where shapes differ or something is not finite."""
    if [part.shape for part in parts(a)] != [part.shape for part in parts(b)]:
        return math.inf
    size = max(norm(a), norm(b))
    rest = math.hypot(*(norm(p.detach() - q.detach()) for p, q in zip(parts(a), parts(b), strict=True)))
    if not math.isfinite(size + rest):
        return math.inf
    return rest / size if size else 0.0


def _as_pairs(x: Tensor) -> Tensor:
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
