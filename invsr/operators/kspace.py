"""Operators in k-space: cropping, zero-filling, sampling masks with coils, filters.

Weights over k-space are real, of the grid's shape, with frequency zero at index ``N // 2`` of every axis
(fftshift's order). The transform is orthonormal and centred: image index ``N // 2`` has phase zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.differences import NEUMANN, PERIODIC, laplacian_spectrum
from invsr.numerics.linear import LinearSolution
from invsr.operators.base import LinearOperator
from invsr.operators.normal_equations import IDENTITY
from invsr.operators.separable import Separable

AXES = (-3, -2, -1)


class FourierResize(Separable):
    """The same Fourier series on a grid of another matrix size; each axis is cropped or zero-filled.

    ``y[m] = 1/N sum_f X[f] exp(2 pi i f m / n)`` over the frequencies f that both sizes hold, with X the
    discrete Fourier transform along the axis. Voxel 0 stays in place, the spacing becomes N/n times as large,
    constants are preserved. An even size holds its Nyquist frequency with negative sign only; real data
    takes the real part, which shares it equally between the signs.

    Parameters
    ----------
    domain : Grid
    shape : three of int
    """

    def __init__(self, domain: Grid, shape: Sequence[int]) -> None:
        affine = domain.affine.copy()
        affine[:3, :3] *= np.array(domain.shape) / np.array(shape)
        LinearOperator.__init__(self, domain, Grid(shape, affine))
        self.order = (0, 1, 2)
        resized = [a != b for a, b in zip(domain.shape, self.range.shape, strict=True)]
        a, b, c = (PERIODIC if r else NEUMANN for r in resized)
        self.boundary = (a, b, c)
        for n in (0, 1, 2):
            held = min(domain.shape[n], self.range.shape[n])
            # Whole numbers, so that a change of dtype leaves the matrices exact.
            self.register_buffer(f"frequencies_{n}", torch.arange(held) - held // 2 if resized[n] else None)

    def matrices(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        a, b, c = (self._matrix(n) for n in (0, 1, 2))
        return a, b, c

    def _matrix(self, n: int) -> Tensor | None:
        frequencies: Tensor | None = getattr(self, f"frequencies_{n}")
        if frequencies is None:
            return None
        size, new = self.domain.shape[n], self.range.shape[n]
        at = torch.arange(new, dtype=torch.float64, device=frequencies.device)[:, None] / new
        voxels = torch.arange(size, dtype=torch.float64, device=frequencies.device) / size
        turns = 2j * math.pi * frequencies.double()  # a plain complex number times integers would be complex64
        matrix = torch.exp(turns * at) @ torch.exp(-turns[:, None] * voxels) / size
        return matrix.real if len(frequencies) % 2 else matrix  # an odd number of frequencies is symmetric


class KSpaceCrop(FourierResize):
    """The image of a smaller k-space matrix: in-plane truncation, with its Gibbs ringing.

    ``y[m] = 1/N sum_f X[f] exp(2 pi i f m / n)``, f the n frequencies nearest to zero; see `FourierResize`.

    Parameters
    ----------
    domain : Grid
    shape : three of int
        Matrix size to keep, at most the domain's.

    Raises
    ------
    InvsrError
        When a size is above the domain's.

    Examples
    --------
    >>> A = KSpaceCrop(Grid((8, 8, 4), np.eye(4)), (4, 6, 4))
    >>> A.range.spacing.round(3).tolist()
    [2.0, 1.333, 1.0]
    """

    def __init__(self, domain: Grid, shape: Sequence[int]) -> None:
        if any(n > size for n, size in zip(shape, domain.shape, strict=True)):
            raise InvsrError(f"a k-space of {domain.shape} cannot be cropped to {tuple(shape)}: use zero_fill")
        super().__init__(domain, shape)


def zero_fill(domain: Grid, shape: Sequence[int]) -> FourierResize:
    """The operator that zero-fills k-space to a finer grid, the reverse of `KSpaceCrop`.

    ``KSpaceCrop(fine, n) @ zero_fill(coarse, N)`` is the identity on complex images; on real ones it halves
    the Nyquist frequency of an even n.

    Raises
    ------
    InvsrError
        When a size is below the domain's.
    """
    if any(n < size for n, size in zip(shape, domain.shape, strict=True)):
        raise InvsrError(f"a k-space of {domain.shape} cannot be zero-filled to {tuple(shape)}: use KSpaceCrop")
    return FourierResize(domain, shape)


class KSpaceMask(LinearOperator):
    """Samples of k-space, by one coil or several: ``y_c = W F (S_c x)``.

    F is the centred orthonormal transform, W real weights (a mask, an apodisation), S_c coil
    sensitivities. The data is complex. Without coils, `solve` is exact: ``W^2 + rho R`` is diagonal in
    k-space. With coils it iterates, preconditioned by the mean weight times the mean of ``sum_c |S_c|^2``.

    Parameters
    ----------
    domain : Grid
        Grid of the images; k-space has the same matrix size, and the range is the same grid.
    weights : Tensor, shape (i, j, k), real
        Frequency zero at index ``N // 2``.
    coils : Tensor, shape (C, i, j, k), complex, optional
        The image then has one channel and the data C.
    real : bool
        The unknown is a real image: `forward` takes real x, `adjoint` returns the real part. Otherwise x
        and the adjoint are complex (a real x is cast).

    Raises
    ------
    InvsrError
        When shapes do not fit the grid, or x has several channels beside coils, or is complex although `real`.

    Notes
    -----
    On real images ``A* A x = Re(F* W^2 F x) = F* V F x`` with V the mean of W^2 at f and at -f, so that the
    restricted problem stays diagonal.

    References
    ----------
    Pruessmann, Weiger, Scheidegger, Boesiger (1999), Magn. Reson. Med. 42, 952-962.
    """

    complex_range = True
    boundary = (PERIODIC, PERIODIC, PERIODIC)
    weights: Tensor
    coils: Tensor | None  # (C, i, j, k, 2), real and imaginary part: Module.to(float32) keeps both

    def __init__(self, domain: Grid, weights: Tensor, coils: Tensor | None = None, real: bool = False) -> None:
        super().__init__(domain, domain)
        self.register_buffer("weights", _checked(weights, domain))
        if coils is not None and (coils.ndim != 4 or tuple(coils.shape[1:]) != domain.shape):
            raise InvsrError(f"coils of shape {tuple(coils.shape)} do not fit: give (C, i, j, k) for {domain}")
        both = None if coils is None else torch.view_as_real(coils + 0j)
        self.register_buffer("coils", both)
        self._power = 1.0 if both is None else float(both.detach().double().square().sum((0, 4)).mean())
        self.real = real

    def _forward(self, x: Tensor) -> Tensor:
        if self.real and x.is_complex():
            raise InvsrError("a complex image for an operator on real images: build it with real=False")
        coils = self._coils(x)
        if coils is not None and x.shape[1] != 1:
            raise InvsrError(f"an image of {x.shape[1]} channels beside {len(coils)} coils: give it one channel")
        return _to_kspace(x + 0j if coils is None else coils * x) * self.weights.to(x.real.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        x = _to_image(self.weights.to(y.real.dtype) * y)
        coils = self._coils(y)
        if coils is not None:
            x = (coils.conj() * x).sum(1, keepdim=True)
        return x.real if self.real else x

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return r[..., self.weights != 0]

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        if self.coils is None:
            return LinearSolution(self._divide(b, rho, regulariser))
        return super()._solve(b, rho, regulariser, x0, rtol, max_iter)

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        # Coil sensitivities couple neighbouring samples: the mean weight preconditions better than the weight of each.
        level = torch.full_like(self.weights, float((self.weights.double() ** 2).mean()) * self._power)
        return _divided(r if self.real else r + 0j, level, rho, regulariser, self.domain)

    def _divide(self, b: Tensor, rho: float | Tensor, regulariser: str) -> Tensor:
        squared = self._power * self.weights.double() ** 2
        if self.real:
            return _divided(b, _symmetrised(squared), rho, regulariser, self.domain)
        return _divided(b + 0j, squared, rho, regulariser, self.domain)

    def _coils(self, like: Tensor) -> Tensor | None:
        return None if self.coils is None else torch.view_as_complex(self.coils.to(like.real.dtype))


class KSpaceFilter(LinearOperator):
    """Weights on the k-space of an image, of the same matrix size: ``A x = F* W F x``.

    Use it for apodisation, and for truncation without a change of grid. A real image stays real: the operator
    takes the real part, which averages W over f and -f. `solve` is exact.

    Parameters
    ----------
    domain : Grid
    weights : Tensor, shape (i, j, k), real
        Frequency zero at index ``N // 2``.

    Raises
    ------
    InvsrError
        When the weights do not fit the grid.
    """

    boundary = (PERIODIC, PERIODIC, PERIODIC)
    weights: Tensor

    def __init__(self, domain: Grid, weights: Tensor) -> None:
        super().__init__(domain, domain)
        self.register_buffer("weights", _checked(weights, domain))

    def _forward(self, x: Tensor) -> Tensor:
        filtered = _to_image(self._effective(x).to(x.real.dtype) * _to_kspace(x))
        return filtered if x.is_complex() else filtered.real

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        coefficients = _to_kspace(r)
        if not r.is_complex():  # Hartley's transform: real, orthonormal, and of the same support
            coefficients = coefficients.real - coefficients.imag
        return coefficients[..., self._effective(r) != 0]

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        return LinearSolution(_divided(b, self._effective(b) ** 2, rho, regulariser, self.domain))

    def _effective(self, like: Tensor) -> Tensor:
        return self.weights.double() if like.is_complex() else _symmetrised(self.weights.double())


def _to_kspace(x: Tensor) -> Tensor:
    y: Tensor = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, AXES), dim=AXES, norm="ortho"), AXES)
    return y


def _to_image(y: Tensor) -> Tensor:
    x: Tensor = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, AXES), dim=AXES, norm="ortho"), AXES)
    return x


def _symmetrised(weights: Tensor) -> Tensor:
    """Mean of the weights at f and at -f."""
    plain = torch.fft.ifftshift(weights)
    mirrored = plain.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))
    mean: Tensor = torch.fft.fftshift((plain + mirrored) / 2)
    return mean


def _divided(b: Tensor, squared: Tensor, rho: float | Tensor, regulariser: str, grid: Grid) -> Tensor:
    """``F* (squared + rho R)^-1 F b``; a frequency that neither term weights (zero, for a gradient) becomes 0."""
    total = squared + rho
    if regulariser != IDENTITY:
        spectrum = torch.zeros(1, dtype=torch.float64)
        for n, (size, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
            along = torch.from_numpy(np.fft.fftshift(laplacian_spectrum(size, float(h), PERIODIC)))
            spectrum = spectrum + along.reshape([-1 if d == n else 1 for d in (0, 1, 2)])
        total = squared + rho * spectrum.to(squared.device)
    seen = total > 1e-14 * total.detach().max()
    inverse = torch.where(seen, 1 / torch.where(seen, total, 1.0), 0.0)
    x = _to_image(inverse.to(b.real.dtype) * _to_kspace(b))
    return x if b.is_complex() else x.real


def _checked(weights: Tensor, grid: Grid) -> Tensor:
    if tuple(weights.shape) != grid.shape or weights.is_complex():
        raise InvsrError(f"k-space weights of shape {tuple(weights.shape)}, {weights.dtype}: give real ones for {grid}")
    return weights
