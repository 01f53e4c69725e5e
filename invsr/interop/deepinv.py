"""deepinv both ways: invsr operators as deepinv physics, deepinv physics as invsr operators.

deepinv knows no complex images: complex numbers are real channels there, first all real parts, then all
imaginary parts, as in `deepinv.physics.MRI`. The data of a stack and of several contrasts is a
`deepinv.utils.TensorList`; deepinv's `L2` has no cost of one, so that its algorithms take them with plug-and-play
priors only.

deepinv takes seconds to import; ``import invsr`` and ``from invsr import interop`` do not import it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.vectors import device_of
from invsr.operators.base import LinearOperator
from invsr.operators.contrasts import Contrasts

try:
    import deepinv
    from deepinv.utils import TensorList
except ImportError as error:
    raise InvsrError('deepinv is not installed: pip install "invsr[deepinv]"') from error


def to_deepinv(operator: LinearOperator, max_iter: int = 200, tol: float = 1e-6) -> OperatorPhysics:
    """A `deepinv.physics.LinearPhysics` of an operator, for deepinv's algorithms, losses and networks.

    Parameters
    ----------
    operator : LinearOperator
        Shared with the physics, not copied.
    max_iter, tol
        Limits of iterative solves; direct ones ignore them.

    Examples
    --------
    >>> import numpy as np
    >>> from invsr.operators import acquisition
    >>> scan = Grid((8, 8, 4), np.diag([1.0, 1.0, 3.0, 1.0]))
    >>> physics = to_deepinv(acquisition(scan))
    >>> physics.A(torch.ones(1, 1, 8, 8, 12)).shape
    torch.Size([1, 1, 8, 8, 4])
    >>> bool(physics.adjointness_test(num_samples=100) < 1e-5)
    True
    """
    return OperatorPhysics(operator, max_iter, tol)


def from_deepinv(physics: Any, grid: Grid, range: Grid | None = None) -> PhysicsOperator:
    """An invsr operator of a `deepinv.physics.LinearPhysics`; deepinv has no geometry, so it is given here.

    Parameters
    ----------
    physics : deepinv.physics.LinearPhysics
        Physics of volumes: it takes and returns (batch, channel, i, j, k). Its noise model is not used.
    grid : Grid
        Grid of its images.
    range : Grid, optional
        Grid of its measurements; `grid` by default, which needs measurements of the same shape.

    Raises
    ------
    InvsrError
        When the physics is not linear, does not take volumes of this grid, or returns something else than
        volumes of the range grid.

    Examples
    --------
    >>> import numpy as np
    >>> mask = torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(1, 4, 4, 4)
    >>> A = from_deepinv(deepinv.physics.Inpainting((1, 4, 4, 4), mask), Grid((4, 4, 4), np.eye(4)))
    >>> A(torch.ones(1, 1, 4, 4, 4))[0, 0, 0, 0].tolist()
    [1.0, 0.0, 1.0, 1.0]
    """
    return PhysicsOperator(physics, grid, range)


class OperatorPhysics(deepinv.physics.LinearPhysics):  # type: ignore[misc]  # deepinv has no types
    """An operator as deepinv physics, made by `to_deepinv`."""

    def __init__(self, operator: LinearOperator, max_iter: int = 200, tol: float = 1e-6) -> None:
        device = device_of(operator)
        super().__init__(
            A=operator,
            # Modules in place of deepinv's default functions, which cannot be pickled.
            noise_model=deepinv.physics.ZeroNoise(torch.nn.Identity()),
            sensor_model=torch.nn.Identity(),
            max_iter=max_iter,
            tol=tol,
            solver="CG",
            device=device,
        )
        channels = len(operator.channels) if isinstance(operator, Contrasts) else 1
        with torch.no_grad():
            data = operator(torch.zeros((1, channels, *operator.domain.shape), device=device))
            self._several = isinstance(data, tuple)
            self._complex_data = [part.is_complex() for part in (data if self._several else [data])]
            self._complex_image = operator.adjoint(data).is_complex()
        self.img_size = (channels * (1 + self._complex_image), *operator.domain.shape)

    @property
    def operator(self) -> LinearOperator:
        """The operator that was given."""
        found: LinearOperator = self.forw
        return found

    def A(self, x: Tensor, **kwargs: Any) -> Any:
        """A x."""
        y = self.operator(_as_complex(x) if self._complex_image else x)
        return TensorList([_as_channels(part) for part in y]) if isinstance(y, tuple) else _as_channels(y)

    def A_adjoint(self, y: Any, **kwargs: Any) -> Tensor:
        """A* y."""
        given = zip([y] if isinstance(y, Tensor) else list(y), self._complex_data, strict=True)
        parts = tuple(_as_complex(part) if is_complex else part for part, is_complex in given)
        data: Any = parts if self._several else parts[0]
        return _as_channels(self.operator.adjoint(data))

    def prox_l2(
        self,
        z: Tensor | float | None,
        y: Any,
        gamma: float | Tensor,
        solver: str | None = None,
        max_iter: int | None = None,
        tol: float | None = None,
        verbose: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """``argmin_x gamma/2 ||A x - y||^2 + 1/2 ||x - z||^2``, exact where `LinearOperator.solve` is.

        `gamma` is one number, or one per image of the batch; `solver` is ignored. With one number per voxel
        deepinv's own iteration runs instead.
        """
        back = self.A_adjoint(y)
        if not isinstance(z, Tensor):
            z = torch.full_like(back, float(z or 0.0))
        max_iter, tol = max_iter or self.max_iter, tol or self.tol
        if not isinstance(gamma, Tensor) or gamma.numel() == 1:
            return self._solve(back, z, gamma if isinstance(gamma, float | int) else gamma.reshape(()), max_iter, tol)
        if gamma.numel() != len(back):
            found: Tensor = super().prox_l2(z, y, gamma, solver or "CG", max_iter, tol, verbose, **kwargs)
            return found
        each = zip(back.chunk(len(back)), z.chunk(len(z)), gamma.flatten(), strict=True)
        return torch.cat([self._solve(*one, max_iter, tol) for one in each])

    def _solve(self, back: Tensor, z: Tensor, gamma: float | Tensor, max_iter: int, tol: float) -> Tensor:
        b = back + z / gamma
        if self._complex_image:
            b, z = _as_complex(b), _as_complex(z)
        return _as_channels(self.operator.solve(b, 1 / gamma, x0=z, rtol=tol, max_iter=max_iter).x)


class PhysicsOperator(LinearOperator):
    """deepinv physics as an operator, made by `from_deepinv`."""

    def __init__(self, physics: Any, grid: Grid, range: Grid | None = None) -> None:
        name = type(physics).__name__
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            raise InvsrError(f"{name} is not a deepinv.physics.LinearPhysics: only linear physics can be wrapped")
        y = _probe(physics, grid)
        if not isinstance(y, Tensor) or y.ndim != 5:
            found = f"of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"as a {type(y).__name__}"
            raise InvsrError(f"{name} returns measurements {found}: only volumes (batch, channel, i, j, k) fit a grid")
        end = grid if range is None else range
        if tuple(y.shape[2:]) != end.shape:
            raise InvsrError(
                f"{name} returns measurements of shape {tuple(y.shape)}, which do not fit "
                f"{'the grid of its images' if range is None else 'the range'} {end}: give their grid as range"
            )
        super().__init__(grid, end)
        self.physics = physics
        self.complex_range = y.is_complex()
        self.register_buffer("_seen", y[0] != 0)

    _seen: Tensor

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.physics.A(x)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = self.physics.A_adjoint(y)
        return x

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return r[:, self._seen]


def _probe(physics: Any, grid: Grid) -> Any:
    """Measurements of a volume of noise, of one channel or else of two (a complex image)."""
    tensors = [t for t in (*physics.parameters(), *physics.buffers()) if t.is_floating_point()]
    device = tensors[0].device if tensors else torch.device("cpu")
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    generator = torch.Generator().manual_seed(0)
    reasons = []
    for channels in (1, 2):
        x = torch.rand((1, channels, *grid.shape), generator=generator).to(device, dtype)
        try:
            with torch.no_grad():
                return physics.A(x)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError) as error:
            # What deepinv and torch raise for shapes that do not fit.
            reasons.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
    raise InvsrError(f"{type(physics).__name__} does not take volumes of shape {grid.shape}: {reasons[0]}")


def _as_channels(x: Tensor) -> Tensor:
    return torch.cat([x.real, x.imag], 1) if x.is_complex() else x


def _as_complex(x: Tensor) -> Tensor:
    real, imaginary = x.chunk(2, 1)
    return torch.complex(real, imaginary)
