"""What operators to samples of k-space share: coils, a preconditioner that is diagonal in k-space, thick slices."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.axes import rotate
from invsr.numerics.differences import NEUMANN, PERIODIC, laplacian_basis, laplacian_spectrum
from invsr.numerics.fourier import convolved
from invsr.operators.base import Composition, LinearOperator
from invsr.operators.normal_equations import IDENTITY
from invsr.operators.separable import Separable

ALL_AXES = (0, 1, 2)
# Complex numbers that are worked on at once: 4 MB of complex64.
CACHED = 1 << 19
# Working memory (benchmarks/kspace/memory.py): what complex volumes take beyond real ones, float32 numbers per voxel,
# and bytes per sample of a coil.
COMPLEX, OF_SAMPLE = 11, 8


class KSpaceSamples(LinearOperator):
    """Samples of k-space by coils; a subclass gives the diagonal of ``A* A`` in k-space, which preconditions `solve`.

    Parameters
    ----------
    domain, range : Grid
    coils : Tensor, shape (C, i, j, k), complex, or None
        Or a parameter of shape (C, i, j, k, 2), real and imaginary part.
    real : bool
        The unknown is a real image.
    axes : sequence of {0, 1, 2}
        Fourier axes.

    Raises
    ------
    InvsrError
        When coils do not fit the domain, or axes are none or repeat.
    """

    complex_range = True
    _is_linear = True
    # Least of the diagonal that preconditions, as a share of its mean.
    _least = 0.0
    coils: Tensor | None  # (C, i, j, k, 2), real and imaginary part: Module.to(float32) keeps both

    def __init__(
        self, domain: Grid, range: Grid, coils: Tensor | None, real: bool, axes: Sequence[int] = ALL_AXES
    ) -> None:
        super().__init__(domain, range)
        self.axes = tuple(sorted(axes))
        if not self.axes or not set(self.axes) <= set(ALL_AXES) or len(set(self.axes)) < len(self.axes):
            raise InvsrError(f"Fourier axes {tuple(axes)}: give one to three different ones of 0, 1, 2")
        a, b, c = (PERIODIC if n in self.axes else NEUMANN for n in ALL_AXES)
        self.boundary = (a, b, c)
        learned = isinstance(coils, nn.Parameter) and not coils.is_complex() and coils.shape[4:] == (2,)
        if coils is not None and (coils.ndim != 4 + learned or tuple(coils.shape[1:4]) != domain.shape):
            raise InvsrError(f"coils of shape {tuple(coils.shape)} do not fit: give (C, i, j, k) for {domain}")
        if coils is not None and learned:
            self._register("coils", coils)
        else:
            given = None if coils is None else torch.view_as_real(coils if coils.is_complex() else coils + 0j)
            self.register_buffer("coils", given)
        self.real = real

    def _level(self, regulariser: str) -> Tensor:
        """The diagonal of A* A in k-space, float32, of a shape that broadcasts to the domain's."""
        raise TypeError(f"{type(self).__name__} does not define _level(regulariser)")

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        def build() -> Tensor:
            level = self._level(regulariser)
            level = level.clamp(min=self._least * float(level.mean()))
            return inverse_of(level, rho, regulariser, self.domain, self.axes).to(r.real.dtype)

        inverse = self._cache.get(self, ("inverse", r.dtype, rho, regulariser), build)
        return in_frequencies(r if self.real or r.is_complex() else r + 0j, inverse, regulariser, self.axes)

    def _composed(self, inner: LinearOperator) -> LinearOperator:
        return KSpaceOf(self, inner) if isinstance(inner, Separable) else super()._composed(inner)

    @property
    def _positions(self) -> list[int]:
        """The axes that are not Fourier axes."""
        return [n for n in ALL_AXES if n not in self.axes]

    @property
    def n_coils(self) -> int:
        return 1 if self.coils is None else len(self.coils)

    def working_memory(self) -> int:
        return 4 * COMPLEX * self.domain.size + OF_SAMPLE * self.n_coils * self.range.size

    def mean_eigenvalue(self) -> float:
        """Mean eigenvalue of ``A* A``."""
        return float(self._level(IDENTITY).mean())

    def _coils(self, like: Tensor) -> Tensor | None:
        return None if self.coils is None else torch.view_as_complex(self.coils.to(like.real.dtype))

    def _require_one_channel(self, x: Tensor) -> None:
        if self.coils is not None and x.shape[1] != 1:
            raise InvsrError(f"an image of {x.shape[1]} channels beside {len(self.coils)} coils: give it one channel")


class KSpaceOf(Composition):
    """``samples(inner(x))`` with a separable inner operator: k-space of thick slices, in one model.

    `solve` iterates, preconditioned by the inner operator's approximate inverse, the sampling taken for a multiple of
    the identity.
    """

    _is_linear = True
    outer: KSpaceSamples
    inner: Separable

    def working_memory(self) -> int:
        return 4 * COMPLEX * self.domain.size + self.outer.working_memory()

    def gram(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner._adjoint(self.outer.gram(self.inner._forward(x)))
        return found

    def _precondition(self, r: Tensor, rho: float, regulariser: str) -> Tensor:
        level: float = self._cache.get(self, "level", self.outer.mean_eigenvalue)
        approximate: Tensor = self.inner._precondition(r / level, rho / level, regulariser)
        return approximate


def coil_groups(coils: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Coils that are worked on at once: one of a large volume, all of a small slab."""
    size = max(1, CACHED // coils[0].numel())
    return ((slice(n, n + size), coils[n : n + size]) for n in range(0, len(coils), size))


def coil_sum(images: Iterable[Tensor]) -> Tensor:
    """The sum over coils of groups of them, shape (batch, 1, i, j, k)."""
    return functools.reduce(torch.add, (image.sum(1, keepdim=True) for image in images))


def inverse_of(squared: Tensor, rho: float | Tensor, regulariser: str, grid: Grid, axes: Sequence[int]) -> Tensor:
    """``(squared + rho R)^-1`` in the basis of `in_frequencies`; where neither term weighs (zero, for a gradient) 0."""
    total = squared + rho
    if regulariser != IDENTITY:
        spectrum = torch.zeros(1, dtype=torch.float64)
        for n, (size, h) in enumerate(zip(grid.shape, grid.spacing.tolist(), strict=True)):
            along = torch.from_numpy(laplacian_spectrum(size, h, PERIODIC if n in axes else NEUMANN))
            along = torch.fft.fftshift(along) if n in axes else along
            spectrum = spectrum + along.reshape([-1 if d == n else 1 for d in ALL_AXES])
        total = squared + rho * spectrum.to(squared.device)
    seen = total > 1e-14 * total.detach().max()
    return torch.where(seen, 1 / torch.where(seen, total, 1.0), 0.0)


def in_frequencies(b: Tensor, diagonal: Tensor, regulariser: str, axes: Sequence[int]) -> Tensor:
    """``T* D T b``, T being Fourier's transform along `axes` and, for a gradient, the cosine transform along others."""
    others = [n for n in ALL_AXES if n not in axes and b.shape[2 + n] > 1] if regulariser != IDENTITY else []
    bases = [torch.from_numpy(laplacian_basis(b.shape[2 + n], NEUMANN)).to(b.device, b.real.dtype) for n in others]
    x = _rotated([basis.mT for basis in bases], b, others)
    x = convolved(x + 0j, torch.fft.ifftshift(diagonal.to(b.real.dtype), [n - 3 for n in axes]), axes)
    return _rotated(bases, x if b.is_complex() else x.real, others)


def _rotated(bases: Sequence[Tensor], x: Tensor, axes: Sequence[int]) -> Tensor:
    """`rotate` of real bases: the parts of complex numbers lie along the last axis."""
    if not x.is_complex() or 2 in axes:
        return rotate([basis.to(x.dtype) for basis in bases], x, axes)
    parts = torch.view_as_real(x.contiguous())
    wide = rotate(bases, parts.flatten(-2), axes)
    return torch.view_as_complex(wide.reshape(parts.shape))
