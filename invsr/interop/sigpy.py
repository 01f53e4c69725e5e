"""sigpy both ways: invsr operators as `sigpy.linop.Linop`, and sigpy's linear operators as invsr operators.

sigpy's arrays have no batch: (i, j, k), or (channel, i, j, k) where there are several channels or coils. The data of a
stack are one vector, one scan after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sigpy
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.interop.arrays import Array, ArrayOperator
from invsr.numerics.vectors import Tensors, device_of, from_vectors, map_parts, parts, to_vectors
from invsr.operators.base import LinearOperator


def to_sigpy(operator: LinearOperator, channels: int = 1) -> OperatorLinop:
    """A `sigpy.linop.Linop` of an operator, for sigpy's apps and algorithms.

    Parameters
    ----------
    operator : LinearOperator
        On the CPU; shared, not copied.
    channels : int
        Channels of the volume.

    Examples
    --------
    >>> from invsr.operators import acquisition
    >>> A = to_sigpy(acquisition(Grid.from_spacing((4, 5, 3), (1, 1, 2))))
    >>> A.ishape, A.oshape
    ([4, 5, 6], [4, 5, 3])
    """
    domain = operator.domain
    grids = domain if isinstance(domain, tuple) else (domain,)
    zeros = tuple(torch.zeros((1, channels, *grid.shape), device=device_of(operator)) for grid in grids)
    like: Tensors = zeros if isinstance(domain, tuple) else zeros[0]
    with torch.no_grad():
        return OperatorLinop(operator, like, map_parts(lambda part: part.real, operator(like)))


def from_sigpy(linop: Any, domain: Grid, range: Grid | None = None) -> SigpyOperator:
    """An invsr operator of a `sigpy.linop.Linop`; sigpy has no geometry, so the grids are given here.

    Parameters
    ----------
    linop : sigpy.linop.Linop
        From (i, j, k) or (channel, i, j, k) to the same, on the CPU.
    domain : Grid
    range : Grid, optional
        Grid of the data; `domain` by default.

    Raises
    ------
    InvsrError
        When the shapes are not those of the grids.

    Examples
    --------
    >>> grid = Grid.from_spacing((4, 4, 4), 1.0)
    >>> A = from_sigpy(sigpy.linop.FFT((4, 4, 4)), grid)
    >>> A(torch.ones(1, 1, 4, 4, 4))[0, 0, 2, 2, 2]
    tensor(8.+0.j)
    """
    return SigpyOperator(linop, domain, range)


class OperatorLinop(sigpy.linop.Linop):  # type: ignore[misc]  # sigpy has no types
    """An operator for sigpy, made by `to_sigpy`."""

    def __init__(self, operator: LinearOperator, like: Tensors, image: Tensors) -> None:
        self.operator, self.like, self.image = operator, like, image
        super().__init__(_shape(image), _shape(like), repr_str=type(operator).__name__)

    def _apply(self, input: Array) -> Array:
        row = torch.from_numpy(np.ascontiguousarray(input)).reshape(1, -1).to(parts(self.like)[0].device)
        with torch.no_grad():
            found = to_vectors(self.operator(from_vectors(row, self.like)), pairs=False)[0]
        return np.asarray(found.resolve_conj().cpu().numpy().reshape(self.oshape))

    def _adjoint_linop(self) -> OperatorLinop:
        return OperatorLinop(self.operator.H, self.image, self.like)


class SigpyOperator(ArrayOperator):
    """sigpy's linear operator as one of invsr, made by `from_sigpy`."""

    def __init__(self, linop: Any, domain: Grid, range: Grid | None = None) -> None:
        super().__init__(domain, domain if range is None else range)
        for shape, grid, end in ((linop.ishape, domain, "domain"), (linop.oshape, self.range, "range")):
            if len(shape) not in (3, 4) or tuple(shape[-3:]) != grid.shape:
                raise InvsrError(
                    f"sigpy's {type(linop).__name__} with shape {tuple(shape)} does not fit the {end} {grid}: "
                    f"its shape must be {grid.shape} or (channel, {', '.join(map(str, grid.shape))})"
                )
        self.linop = linop
        self.complex_range = bool(np.iscomplexobj(linop(np.zeros(linop.ishape, np.float32))))

    def measured_coordinates(self, r: torch.Tensor) -> torch.Tensor:
        # What samples see is tried with one channel: of volumes of several, all samples count.
        return r.flatten(1) if len(self.linop.ishape) == 4 else super().measured_coordinates(r)

    def multiply(self, x: Array) -> Array:
        return self._product(self.linop, x)

    def multiply_adjoint(self, y: Array) -> Array:
        return self._product(self.linop.H, y)

    def _product(self, linop: Any, x: Array) -> Array:
        if len(linop.ishape) == 3 and len(linop.oshape) == 3:
            return np.stack([linop(one) for one in x])
        channels = linop.ishape[0] if len(linop.ishape) == 4 else 1
        if len(x) != channels:
            raise InvsrError(f"sigpy's {type(linop).__name__} takes {channels} channels, not {len(x)}")
        return np.asarray(linop(x.reshape(linop.ishape)).reshape(-1, *linop.oshape[-3:]))


def _shape(form: Tensors) -> list[int]:
    if isinstance(form, tuple):
        return [to_vectors(form).shape[1]]
    return list(form.shape[2:] if form.shape[1] == 1 else form.shape[1:])
