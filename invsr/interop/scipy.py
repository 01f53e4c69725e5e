"""scipy both ways: invsr operators as `scipy.sparse.linalg.LinearOperator`, and matrices as invsr operators.

scipy knows vectors only: a volume is flattened, last axis first; the data of a stack are the scans' samples, one scan
after the other. Complex data of a real volume are pairs of real numbers, real part first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.interop.arrays import Array, ArrayOperator
from invsr.operators.base import LinearOperator


def to_scipy(operator: LinearOperator, dtype: torch.dtype = torch.float64, channels: int = 1) -> Any:
    """A `scipy.sparse.linalg.LinearOperator` of an operator, for scipy's solvers; also ``operator.to_scipy()``.

    Parameters
    ----------
    operator : LinearOperator
        On the CPU; shared, not copied.
    dtype : torch.dtype
        Type of the volume, real or complex.
    channels : int
        Channels of the volume.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator, shape (samples, voxels)

    Examples
    --------
    >>> from scipy.sparse.linalg import lsqr
    >>> from invsr.operators import acquisition
    >>> A = acquisition(Grid.from_spacing((4, 5, 3), (1, 1, 2)))
    >>> L = to_scipy(A)
    >>> L.shape
    (60, 120)
    >>> x = lsqr(L, np.ones(60))[0].reshape(A.domain.shape)
    """
    return operator.to_scipy(dtype, channels)


def from_scipy(matrix: Any, domain: Grid, range: Grid | None = None) -> ScipyOperator:
    """An invsr operator of a matrix or a `scipy.sparse.linalg.LinearOperator`; the grids say where its vectors lie.

    Parameters
    ----------
    matrix : array, sparse matrix or scipy.sparse.linalg.LinearOperator, shape (range.size, domain.size)
        With an adjoint (`rmatvec`). Each channel of a volume is multiplied separately.
    domain : Grid
    range : Grid, optional
        Grid of the data; `domain` by default.

    Raises
    ------
    InvsrError
        When the shape is not that of the grids, or there is no adjoint.

    Examples
    --------
    >>> grid = Grid.from_spacing((2, 2, 2), 1.0)
    >>> A = from_scipy(3 * np.eye(8), grid)
    >>> A(torch.ones(1, 1, 2, 2, 2))[0, 0, 0, 0].tolist()
    [3.0, 3.0]
    """
    return ScipyOperator(matrix, domain, range)


class ScipyOperator(ArrayOperator):
    """A matrix as an operator, made by `from_scipy`."""

    def __init__(self, matrix: Any, domain: Grid, range: Grid | None = None) -> None:
        from scipy.sparse.linalg import aslinearoperator

        super().__init__(domain, domain if range is None else range)
        self.matrix = aslinearoperator(matrix)
        expected = (self.range.size, domain.size)
        if tuple(self.matrix.shape) != expected:
            raise InvsrError(
                f"a matrix of shape {tuple(self.matrix.shape)} does not take {domain} to {self.range}: "
                f"its shape must be {expected}"
            )
        self.complex_range = np.issubdtype(self.matrix.dtype, np.complexfloating)
        try:
            self.matrix.rmatvec(np.zeros(self.range.size, self.matrix.dtype))
        except NotImplementedError:
            raise InvsrError("the linear operator has no adjoint: define its rmatvec") from None

    def multiply(self, x: Array) -> Array:
        return np.asarray(self.matrix.matmat(x.reshape(len(x), -1).T).T.reshape(len(x), *self.range.shape))

    def multiply_adjoint(self, y: Array) -> Array:
        return np.asarray(self.matrix.rmatmat(y.reshape(len(y), -1).T).T.reshape(len(y), *self.domain.shape))
