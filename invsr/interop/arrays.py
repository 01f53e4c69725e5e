"""Operators whose arithmetic another library does on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invsr.operators.base import LinearOperator

Array = npt.NDArray[Any]


class ArrayOperator(LinearOperator):
    """An operator of two functions of arrays; differentiable in the volume, on the CPU.

    A subclass writes `multiply` and `multiply_adjoint`, from one array (channel, i, j, k) to another.
    """

    def multiply(self, x: Array) -> Array:
        """A x, of an array (channel, *domain.shape)."""
        raise TypeError(f"{type(self).__name__} does not define multiply(x)")

    def multiply_adjoint(self, y: Array) -> Array:
        """A* y, of an array (channel, *range.shape)."""
        raise TypeError(f"{type(self).__name__} does not define multiply_adjoint(y)")

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self, False)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = _Product.apply(y, self, True)
        return x


class _Product(torch.autograd.Function):
    """A x, or A* x, whose backward pass is the other one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: ArrayOperator, adjoint: bool) -> Tensor:
        ctx.operator, ctx.adjoint, ctx.is_complex = operator, adjoint, x.is_complex()
        function = operator.multiply_adjoint if adjoint else operator.multiply
        found = torch.from_numpy(np.stack([function(one) for one in x.detach().cpu().numpy()]))
        return found.to(x.device, x.dtype.to_complex() if found.is_complex() else x.real.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        slope = _Product.apply(grads[0], ctx.operator, not ctx.adjoint)
        return (slope if ctx.is_complex else slope.real), None, None
