"""Operators in k-space: sampling masks with coils, filters.

Weights over k-space are real, of the grid's shape, with frequency zero at index ``N // 2`` of every Fourier axis
(fftshift's order). The transform is orthonormal and centred: image index ``N // 2`` has phase zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.differences import PERIODIC
from invsr.numerics.fourier import convolved, fourier, inverse_fourier
from invsr.numerics.linear import LinearSolution
from invsr.operators.base import LinearOperator
from invsr.operators.kspace_base import (
    ALL_AXES,
    CACHED,
    KSpaceSamples,
    coil_groups,
    coil_sum,
    in_frequencies,
    inverse_of,
)
from invsr.operators.normal_equations import IDENTITY


class KSpaceMask(KSpaceSamples):
    """Samples of k-space, by one coil or several: ``y_c = W F (S_c x)``.

    F is the centred orthonormal transform along the Fourier axes, W real weights (a mask, the root of a number of
    averages), S_c coil sensitivities. The data is complex.

    Parameters
    ----------
    domain : Grid
        Grid of the images; k-space has the same matrix size, and the range is the same grid.
    weights : Tensor, shape (i, j, k), real
        Frequency zero at index ``N // 2`` of the Fourier axes.
    coils : Tensor, shape (C, i, j, k), complex, optional
        The image then has one channel and the data C. A tensor that asks for a gradient gets it.
    real : bool
        The unknown is a real image: `forward` takes real x, `adjoint` returns the real part. Otherwise x
        and the adjoint are complex (a real x is cast).
    axes : sequence of {0, 1, 2}
        The Fourier axes: all three, (0, 1) for slices, (1, 2) where the readout is transformed already. Data are
        images along the others.

    Raises
    ------
    InvsrError
        When shapes do not fit the grid, axes are none or repeat, or x has several channels beside coils, or is complex
        although `real`.

    Notes
    -----
    Without coils, `solve` is exact where ``A* A + rho R`` is diagonal in k-space: for the identity always, for the
    Laplacian where the weights are the same at all positions along the other axes. Elsewhere it iterates,
    preconditioned by the diagonal of ``A* A`` in k-space: the squared weights, convolved with the power spectrum of
    the coils. No other diagonal is closer in Frobenius' norm (Chan 1988).

    On real images ``A* A x = Re(F* W^2 F x) = F* V F x`` with V the mean of W^2 at f and at -f, so that the
    restricted problem stays diagonal.

    References
    ----------
    Pruessmann, Weiger, Scheidegger, Boesiger (1999), Magn. Reson. Med. 42, 952-962.
    Chan (1988), SIAM J. Sci. Stat. Comput. 9, 766-771.
    """

    weights: Tensor

    def __init__(
        self,
        domain: Grid,
        weights: Tensor,
        coils: Tensor | None = None,
        real: bool = False,
        axes: Sequence[int] = ALL_AXES,
    ) -> None:
        super().__init__(domain, domain, coils, real, axes)
        self.register_buffer("weights", _checked(weights, domain))

    def _forward(self, x: Tensor) -> Tensor:
        if self.real and x.is_complex():
            raise InvsrError("a complex image for an operator on real images: build it with real=False")
        weights, coils = self.weights.to(x.real.dtype), self._coils(x)
        if coils is None:
            return fourier(x + 0j, self.axes) * weights
        self._require_one_channel(x)
        slabs = self._slabs(len(coils))
        if torch.is_grad_enabled():
            return torch.cat([fourier(coils[:, at] * x[:, :, at], self.axes) * weights[at] for at in slabs], 2)
        y = torch.empty((len(x), len(coils), *self.range.shape), dtype=coils.dtype, device=x.device)
        for at in slabs:
            for c, some in coil_groups(coils[:, at]):
                y[:, c, at] = fourier(some * x[:, :, at], self.axes).mul_(weights[at])
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        weights, coils = self.weights.to(y.real.dtype), self._coils(y)
        if coils is None:
            x = inverse_fourier(weights * y, self.axes)
            return x.real if self.real else x
        found = [
            coil_sum(
                (s.conj() * inverse_fourier(weights[at] * y[:, c, at], self.axes)) for c, s in coil_groups(coils[:, at])
            )
            for at in self._slabs(len(coils))
        ]
        return self._whole(found)

    def gram(self, x: Tensor) -> Tensor:
        """``sum_c S_c* F* W^2 F S_c x``."""
        if self.real and x.is_complex():
            return super().gram(x)  # which refuses it
        along = [n - 3 for n in self.axes]
        squared = torch.fft.ifftshift(self.weights.to(x.real.dtype) ** 2, along)
        coils = self._coils(x)
        if coils is None:
            found = convolved(x + 0j, squared, self.axes)
            return found.real if self.real else found
        parts = [
            coil_sum(
                s.conj() * convolved(s * x[:, :, at], squared[at], self.axes) for _, s in coil_groups(coils[:, at])
            )
            for at in self._slabs(len(coils))
        ]
        return self._whole(parts)

    def _slabs(self, n_coils: int) -> list[slice]:
        """Positions along the first axis that are worked on at once: few, which stay in the processor's cache."""
        size, *others = self.domain.shape
        width = size if 0 in self.axes else max(1, CACHED // (n_coils * math.prod(others)))
        return [slice(n, n + width) for n in range(0, size, width)]

    def _whole(self, slabs: list[Tensor]) -> Tensor:
        x = slabs[0] if len(slabs) == 1 else torch.cat(slabs, 2)
        return x.real if self.real else x

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return r[..., self.weights != 0]

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        if self.coils is None and (regulariser == IDENTITY or self._is_diagonal):
            b = b if self.real else b + 0j
            inverse = inverse_of(self._squared, rho, regulariser, self.domain, self.axes)
            return LinearSolution(in_frequencies(b, inverse, regulariser, self.axes))
        return super()._solve(b, rho, regulariser, x0, rtol, max_iter)

    @property
    def _is_diagonal(self) -> bool:
        """Whether the weights are the same at all positions along the other axes."""
        first = self.weights
        for n in self._positions:
            first = first.narrow(n, 0, 1)
        same: bool = self._cache.get(self, "same", lambda: bool((self.weights == first).all()))
        return same

    @property
    def _squared(self) -> Tensor:
        squared = self.weights.double() ** 2
        return _symmetrised(squared, self.axes) if self.real else squared

    def _level(self, regulariser: str) -> Tensor:
        """The diagonal of A* A in k-space, float32."""
        along = [n - 3 for n in self.axes]
        level = self.weights.detach().float() ** 2
        if self.coils is not None:
            power = torch.zeros_like(level)
            for coil in torch.view_as_complex(self.coils.detach().float()):
                power += torch.fft.fftn(coil, dim=along, norm="ortho").abs().square_()
            power /= math.prod(self.domain.shape[n] for n in self.axes)
            # <F e_k, A* A F e_k> = sum_q W^2(q) P(q - k): a correlation.
            product = torch.fft.fftn(torch.fft.ifftshift(level, along), dim=along)
            product *= torch.fft.fftn(power, dim=along).conj_physical_()
            level = torch.fft.fftshift(torch.fft.ifftn(product, dim=along).real.clamp(min=0), along)
        if self.real:
            level = _symmetrised(level, self.axes)
        if regulariser != IDENTITY and self._positions:
            level = level.mean(self._positions, keepdim=True)
        return level


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
        filtered = inverse_fourier(self._effective(x).to(x.real.dtype) * fourier(x, ALL_AXES), ALL_AXES)
        return filtered if x.is_complex() else filtered.real

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        coefficients = fourier(r, ALL_AXES)
        if not r.is_complex():  # Hartley's transform: real, orthonormal, and of the same support
            coefficients = coefficients.real - coefficients.imag
        return coefficients[..., self._effective(r) != 0]

    def _solve(
        self, b: Tensor, rho: float | Tensor, regulariser: str, x0: Tensor | None, rtol: float, max_iter: int
    ) -> LinearSolution:
        inverse = inverse_of(self._effective(b) ** 2, rho, regulariser, self.domain, ALL_AXES)
        return LinearSolution(in_frequencies(b, inverse, regulariser, ALL_AXES))

    def _effective(self, like: Tensor) -> Tensor:
        return self.weights.double() if like.is_complex() else _symmetrised(self.weights.double(), ALL_AXES)


def _symmetrised(weights: Tensor, axes: Sequence[int]) -> Tensor:
    """Mean of the weights at f and at -f."""
    along = list(axes)
    plain = torch.fft.ifftshift(weights, along)
    mirrored = plain.flip(along).roll([1] * len(along), along)
    mean: Tensor = torch.fft.fftshift((plain + mirrored) / 2, along)
    return mean


def _checked(weights: Tensor, grid: Grid) -> Tensor:
    if tuple(weights.shape) != grid.shape or weights.is_complex():
        raise InvsrError(f"k-space weights of shape {tuple(weights.shape)}, {weights.dtype}: give real ones for {grid}")
    return weights.contiguous()  # an expanded one cannot be loaded into
