"""Linear maps of tensors as scipy's linear operators on vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from invsr.numerics.vectors import Tensors, from_vectors, map_parts, parts, to_vectors

Map: TypeAlias = Callable[[Tensors], Tensors]


def scipy_operator(forward: Map, adjoint: Map, like: Tensors) -> Any:
    """A `scipy.sparse.linalg.LinearOperator` of a linear map and its adjoint.

    Parameters
    ----------
    forward, adjoint : callable
        Functions of tensors (batch, channel, i, j, k) or of tuples of them.
    like : Tensor or tuple of Tensor
        An input of `forward`, batch size 1: its shape, dtype and device are those of every input. Where it is real,
        complex results are written as pairs of real numbers, and the real part of complex adjoints is taken.
    """
    from scipy.sparse.linalg import LinearOperator

    pairs = not parts(like)[0].is_complex()
    with torch.no_grad():
        image = forward(like)

    def apply(
        function: Callable[[Tensors], Tensors], rows: npt.NDArray[Any], form: Tensors, to_real: bool
    ) -> npt.NDArray[Any]:
        given = torch.as_tensor(np.ascontiguousarray(rows.T)).to(parts(like)[0])
        with torch.no_grad():
            found = function(from_vectors(given, form))
        if to_real:
            found = map_parts(lambda part: part.real, found)
        return to_vectors(found, pairs).cpu().numpy().T

    shape = (to_vectors(image, pairs).shape[1], to_vectors(like, pairs).shape[1])
    return LinearOperator(
        dtype=torch.zeros((), dtype=parts(like)[0].dtype).numpy().dtype,
        shape=shape,
        matvec=lambda x: apply(forward, x.reshape(-1, 1), like, False)[:, 0],
        rmatvec=lambda y: apply(adjoint, y.reshape(-1, 1), image, pairs)[:, 0],
        matmat=lambda x: apply(forward, x, like, False),
        rmatmat=lambda y: apply(adjoint, y, image, pairs),
    )
