"""Samples of k-space off the Cartesian grid: radial, spiral, any trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.noncartesian import check_trajectory
from invsr.numerics.nonuniform import sums_at, sums_from
from invsr.operators.kspace_base import ALL_AXES, CACHED, KSpaceSamples, coil_groups, coil_sum
from invsr.operators.normal_equations import IDENTITY

# What the diagonal in k-space is raised to for preconditioning, as a share of its mean: where next to no samples lie,
# it is less than what neighbours contribute.
LEAST = 0.3
# Working memory on twice the matrix, in complex images of that size: of all voxels at once, by the number of Fourier
# axes (the kernel of three is as large), and of the coils that are transformed together (benchmarks/kspace/memory.py).
WHOLE, TOGETHER = {2: 4, 3: 7}, 8


class NonUniformKSpace(KSpaceSamples):
    """Samples of k-space anywhere, by one coil or several: radial, spiral, stacks of them.

    ``y_c[m] = w[m] N^(-1/2) sum_n S_c[n] x[n] exp(-2 pi i sum_d k_d[m] (n_d - N_d // 2) / N_d)``, N the number of
    voxels along the Fourier axes. At whole k these are the samples of `KSpaceMask`. The data is complex.

    Parameters
    ----------
    domain : Grid
        Grid of the images.
    trajectory : Tensor, shape (readout, shots, len(axes)), real
        k in cycles per field of view, from ``-N/2`` to ``N/2``; component n runs along the n-th of `axes`. It may be a
        parameter, as `weights` and `coils` may.
    coils : Tensor, shape (C, i, j, k), complex, optional
        Sensitivities S_c; the image then has one channel and the data C. A parameter has the shape (C, i, j, k, 2), of
        real and imaginary parts.
    weights : Tensor, shape (readout, shots), real, optional
        w, ones by default; roots of `density_weights` for an adjoint that grids.
    axes : two or three of {0, 1, 2}
        Fourier axes. Along the third of two, the domain holds positions: slices, or partitions transformed already.

    Raises
    ------
    InvsrError
        When shapes do not fit, or the trajectory leaves the k-space of the domain's matrix.

    Shape
    -----
    From (batch, channel, i, j, k) to (batch, channel, readout, shots, positions), one position with three Fourier axes.
    The range is a grid of this shape with spacing 1, for nothing but its shape: samples have no place in the world.

    Notes
    -----
    ``A* A`` without coils is a convolution. Its kernel is found once, on twice the matrix; `gram` then takes two
    transforms of that size for each coil (Wajer & Pruessmann 2001; Fessler et al. 2005). Where gradients in the
    trajectory or the weights are asked for, it is ``A* (A x)``.

    `solve` iterates, preconditioned by the circulant matrix that is closest to ``A* A`` in Frobenius' norm, coils
    included (Chan 1988), raised where it is next to zero: samples that lie dense weigh less, as with density
    compensation, and the minimum stays.

    Non-uniform transforms run on the CPU; data of other devices are brought there and back.

    References
    ----------
    Wajer, Pruessmann (2001), Proc. ISMRM 9, 767. Fessler, Lee, Olafsson, Shi, Noll (2005), IEEE Trans. Signal Process.
    53, 3393-3402 (Toeplitz). Chan (1988), SIAM J. Sci. Stat. Comput. 9, 766-771.

    Examples
    --------
    >>> from invsr.operators.trajectories import radial
    >>> A = NonUniformKSpace(Grid.from_spacing((16, 16, 3), 1.0), radial(12, 32, 16), axes=(0, 1))
    >>> A(torch.ones(1, 1, 16, 16, 3)).shape
    torch.Size([1, 1, 32, 12, 3])
    """

    _least = LEAST
    trajectory: Tensor
    weights: Tensor | None

    def __init__(
        self,
        domain: Grid,
        trajectory: Tensor,
        coils: Tensor | None = None,
        weights: Tensor | None = None,
        axes: Sequence[int] = ALL_AXES,
    ) -> None:
        check_trajectory(trajectory, domain.shape, axes)
        readout, shots = trajectory.shape[:2]
        others = [domain.shape[n] for n in ALL_AXES if n not in axes]
        super().__init__(domain, Grid((readout, shots, math.prod(others)), np.eye(4)), coils, False, axes)
        if weights is not None and (tuple(weights.shape) != (readout, shots) or weights.is_complex()):
            raise InvsrError(
                f"weights of shape {tuple(weights.shape)}, {weights.dtype}, beside {readout} samples of {shots} shots: "
                "give real ones, (readout, shots)"
            )
        # Components in the order of the axes.
        self._order = [tuple(axes).index(n) for n in self.axes]
        self.sizes = tuple(domain.shape[n] for n in self.axes)
        self._register("trajectory", trajectory)
        if weights is None:
            self.register_buffer("weights", None)
        else:
            self._register("weights", weights)

    def _forward(self, x: Tensor) -> Tensor:
        self._require_one_channel(x)
        coils = self._coils(x)
        if coils is None:
            return self._sampled(x + 0j)
        found: Tensor = torch.cat([self._sampled(some * x) for _, some in coil_groups(coils)], 1)
        return found

    def _adjoint(self, y: Tensor) -> Tensor:
        coils = self._coils(y)
        if coils is None:
            return self._gridded(y + 0j)
        return coil_sum(some.conj() * self._gridded(y[:, c] + 0j) for c, some in coil_groups(coils))

    def gram(self, x: Tensor) -> Tensor:
        """``sum_c S_c* F* W^2 F S_c x``, F the non-uniform transform."""
        self._require_one_channel(x)
        of_samples = [self.trajectory] + ([] if self.weights is None else [self.weights])
        if torch.is_grad_enabled() and any(one.requires_grad for one in of_samples):
            return self._adjoint(self._forward(x))
        spectrum, coils = self._spectrum(x.real.dtype, x.device), self._coils(x)
        if coils is None:
            return self._convolved(x + 0j, spectrum)
        return coil_sum(some.conj() * self._convolved(some * x, spectrum) for _, some in coil_groups(coils))

    def working_memory(self) -> int:
        doubled: int = 8 * 2 ** len(self.axes)  # bytes per voxel
        together = min(self.n_coils * self.domain.size, CACHED)
        return super().working_memory() + doubled * (WHOLE[len(self.axes)] * self.domain.size + TOGETHER * together)

    def measured_coordinates(self, r: Tensor) -> Tensor:
        return r.flatten() if self.weights is None else r[..., self.weights != 0, :].flatten()

    # Transforms -------------------------------------------------------------------------------------

    def _sampled(self, x: Tensor) -> Tensor:
        """``W F x``, (batch, channel, readout, shots, positions)."""
        images = self._positions_first(x)
        y = sums_at(images.reshape(-1, *self.sizes), self._points(x)) / math.sqrt(math.prod(self.sizes))
        y = y.reshape(*images.shape[:3], *self.range.shape[:2]).movedim(2, -1)
        return y if self.weights is None else y * self.weights.to(x.real.dtype)[..., None]

    def _gridded(self, y: Tensor) -> Tensor:
        """``F* W y``, (batch, channel, i, j, k)."""
        if self.weights is not None:
            y = y * self.weights.to(y.real.dtype)[..., None]
        rows = y.movedim(-1, 2)
        images = sums_from(rows.flatten(3).flatten(0, 2), self._points(y), self.sizes) / math.sqrt(
            math.prod(self.sizes)
        )
        images = images.reshape(*rows.shape[:3], *self.sizes)
        return images[:, :, 0] if len(self.axes) == 3 else images.movedim(2, 2 + self._positions[0])

    def _positions_first(self, x: Tensor) -> Tensor:
        """(batch, channel, positions, *sizes)."""
        return x[:, :, None] if len(self.axes) == 3 else x.movedim(2 + self._positions[0], 2)

    def _points(self, like: Tensor) -> Tensor:
        """Radian per voxel, (samples, axes)."""
        along = [2 * math.pi / n * self.trajectory[..., d] for d, n in zip(self._order, self.sizes, strict=True)]
        points = torch.stack(along, -1)
        return points.reshape(-1, len(self.sizes)).to(like.device, like.real.dtype)

    # The convolution ----------------------------------------------------------------------------------

    def _kernel(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """``1/N sum_m w_m^2 exp(2 pi i k_m d / N)`` at differences d of voxels, on twice the matrix, d = 0 first."""
        weights = self.weights if self.weights is not None else torch.ones_like(self.trajectory[..., 0])
        like = torch.zeros((), dtype=dtype, device=device)
        squared = (weights.to(like) ** 2).reshape(1, -1) + 0j
        kernel: Tensor = sums_from(squared, self._points(like), [2 * n for n in self.sizes])[0]
        kernel = kernel / math.prod(self.sizes)
        for n in range(len(self.sizes)):  # d = -N has no counterpart, and no use
            kernel.select(n, 0).zero_()
        shifted: Tensor = torch.fft.ifftshift(kernel)
        return shifted

    def _spectrum(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The kernel's transform, real, of a shape that broadcasts to images on twice the matrix."""

        def build() -> Tensor:
            return self._broadcast(torch.fft.fftn(self._kernel(dtype, device)).real.contiguous())

        spectrum: Tensor = self._cache.get(self, ("spectrum", dtype, device), build)
        return spectrum

    def _convolved(self, x: Tensor, spectrum: Tensor) -> Tensor:
        along = [n - 3 for n in self.axes]
        if x.numel() * 2 ** len(along) <= CACHED:
            return _on_twice(x, spectrum, along, self.sizes)
        # Along the first axis on all of the other matrix as it is, then layer by layer: the whole of twice the matrix
        # never stands in memory, and a layer stays in the cache.
        first, size = along[0], self.sizes[0]
        y: Tensor = torch.fft.fft(x, 2 * size, dim=first)
        layers = max(1, CACHED // (y.select(first, 0).numel() * 2 ** len(along[1:])))
        pairs = zip(*(torch.split(one, layers, first) for one in (y, spectrum)), strict=True)
        parts = [_on_twice(some, weights, along[1:], self.sizes[1:]) for some, weights in pairs]
        y = torch.fft.ifft(torch.cat(parts, first), dim=first)
        return y.narrow(first, 0, size)

    def _broadcast(self, values: Tensor) -> Tensor:
        """Of the Fourier axes only; one is put in where positions lie."""
        return values.unsqueeze(self._positions[0]) if self._positions else values

    def _level(self, regulariser: str) -> Tensor:
        """``<F e_k, A* A F e_k>``: the kernel, weighted by how many voxels lie so far apart, folded and transformed."""
        device, axes = self.trajectory.device, list(self.axes)
        kernel = self._broadcast(self._kernel(torch.float32, device))
        pairs = self._pairs(kernel)
        folded = kernel * pairs / math.prod(self.sizes)
        for n, size in zip(axes, self.sizes, strict=True):
            folded = folded.narrow(n, 0, size) + folded.narrow(n, size, size)
        level: Tensor = torch.fft.fftshift(torch.fft.fftn(folded, dim=axes).real.clamp(min=0), axes)
        if regulariser != IDENTITY and self._positions:
            level = level.mean(self._positions, keepdim=True)
        return level

    def _pairs(self, kernel: Tensor) -> Tensor:
        """``sum_c sum_n conj(S_c[n + d]) S_c[n]`` at differences d, on twice the matrix."""
        along, double = [n - 3 for n in self.axes], [2 * n for n in self.sizes]
        if self.coils is None:
            box = self._broadcast(torch.ones(self.sizes, device=kernel.device))
            power = torch.fft.fftn(box, s=double, dim=along).abs().square()
        else:
            power = torch.zeros((), device=kernel.device)
            for coil in torch.view_as_complex(self.coils.detach().float()):
                power = power + torch.fft.fftn(coil, s=double, dim=along).abs().square_()
        found: Tensor = torch.fft.ifftn(power, dim=along).conj()
        return found


def _on_twice(x: Tensor, spectrum: Tensor, along: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The convolution of x along some of its axes, of the sizes given, by transforms on twice the matrix."""
    y: Tensor = torch.fft.fftn(x, s=[2 * n for n in sizes], dim=along)
    y = y * spectrum if torch.is_grad_enabled() else y.mul_(spectrum)
    y = torch.fft.ifftn(y, dim=along)
    for axis, n in zip(along, sizes, strict=True):
        y = y.narrow(axis, 0, n)
    return y
