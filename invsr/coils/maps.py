"""Coil sensitivity maps from the middle of k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from invsr.coils.centre import centre_box
from invsr.errors import InvsrError
from invsr.numerics.axes import multiply
from invsr.numerics.fourier import fourier, inverse_fourier
from invsr.numerics.interpolation import keys_kernel
from invsr.raw import ALL_AXES, KSpaceData, RawData

# Lines along each Fourier axis: used at most, and needed at least (or the whole axis).
MOST, FEWEST = 24, 12
# Sides of kernels along each axis, and most dimensions (coils times voxels) of the kernels of volumes and of slices.
# Few coils need wide kernels, which leave room for noise beside the signal; many would need more lines for them.
WIDEST, NARROWEST = 6, 4
MOST_3D, MOST_2D = 600, 300
# Voxels along an axis that maps are computed on, at most: they are smooth.
COARSE = 40
# Eigenvalues below this share of the largest are rounding errors.
ROUNDING = 1e-7
# Amplitude, as a share of bright tissue, at which a voxel's own map counts as much as its neighbours'.
FAINT = 0.05
# Side of the neighbourhood that a map is aligned with.
REACH = 5


def coil_maps(raw: KSpaceData) -> Tensor:
    """Sensitivities S_c of the coils, ``y_c = F S_c x``, with ``sum_c |S_c|^2 = 1`` in every voxel.

    ESPIRiT: the maps are the eigenvectors of the largest eigenvalue of the projection on the signal space, that blocks
    of the calibration lines span, in each voxel. They are computed on a matrix of at most 40 voxels along an axis
    over the same field of view, and interpolated: memory is that of the result. Lines come from `raw.calibration`, or
    else from the fully sampled middle of k-space. Slices of a two-dimensional acquisition are calibrated one by one.

    The phase of an eigenvector is free. It is that of a virtual coil, the first principal component, near the middle of
    the object, and from there on outwards each map is aligned with those further in. So maps are smooth in the whole
    volume, across slices too, also where the virtual coil sees nothing; all other phase is left to the image. Where
    there is next to no signal, outside the head, maps continue those further in, for voxels without a map would leave
    signal at the edge unexplained.

    Parameters
    ----------
    raw : RawData or NonCartesianData
        The latter with calibration lines. Best from `whitened`: noise that coils share is taken for signal.

    Returns
    -------
    Tensor, shape (coils, i, j, k), complex64
        Ones for a single coil.

    Raises
    ------
    InvsrError
        When less than 12 lines around frequency zero were measured completely along some Fourier axis (or less than
        the whole of a shorter one), or the calibration lines do not fit.

    References
    ----------
    Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala, Lustig (2014), Magn. Reson. Med. 71, 990-1001 (ESPIRiT).
    Uecker, Lustig (2017), Magn. Reson. Med. 77, 1201-1207 (absolute phase by a virtual coil).

    Examples
    --------
    >>> from invsr.testing.kspace import simulate_kspace
    >>> from invsr.volume import Volume
    >>> raw, true, image = simulate_kspace(Volume.from_array(torch.ones(16, 16, 12), 2.0), n_coils=4, noise=0.001)
    >>> maps = coil_maps(raw)
    >>> bool((maps.conj() * true).sum(0).abs().mean() > 0.99)
    True
    """
    if raw.n_coils == 1:
        return torch.ones(1, *raw.grid.shape, dtype=torch.complex64, device=raw.samples.device)
    lines = _calibration(raw)
    across = raw.slice_axis
    axes = tuple(n for n in ALL_AXES if n != across)
    sizes = [size if n == across else min(COARSE, size) for n, size in enumerate(raw.grid.shape)]
    if across is None:
        maps = _espirit(lines, sizes, MOST_3D)
    else:
        flat = [1 if n == across else size for n, size in enumerate(sizes)]
        slices = torch.split(lines, 1, across + 1)
        maps = torch.cat([_espirit(one, flat, MOST_2D) for one in slices], across + 1)
    maps = _aligned(maps, _image(lines, sizes, axes), _virtual_coil(lines))
    full = torch.empty(raw.n_coils, *raw.grid.shape, dtype=torch.complex64, device=maps.device)
    matrices = [_interpolation(m, n).to(maps) if m < n else None for m, n in zip(sizes, raw.grid.shape, strict=True)]
    for c, one in enumerate(maps):  # one at a time: all of them are large
        for n, matrix in enumerate(matrices):
            one = multiply(matrix, one[None, None], n)[0, 0]
        full[c] = one
    norm = torch.zeros_like(full[0].real)
    for one in full:
        norm += one.abs().square_()
    return full.mul_(norm.clamp_(min=1e-30).rsqrt_())


def _calibration(raw: KSpaceData) -> Tensor:
    """Calibration lines, (coils, a, b, c): the middle of k-space along all axes but that across slices."""
    shape = raw.grid.shape
    longest = [MOST, MOST, MOST]
    if raw.calibration is None:
        if not isinstance(raw, RawData):
            raise InvsrError(f"{raw.name}: its samples are off the Cartesian grid: give maps, or calibration lines")
        values, counts = raw.samples[0], raw.counts
    else:
        values, counts = raw.calibration, torch.ones(raw.calibration.shape[1:])
        if values.ndim != 4 or any(values.shape[n + 1] != shape[n] for n in ALL_AXES if n not in raw.axes):
            raise InvsrError(
                f"{raw.name}: calibration lines of shape {tuple(values.shape)} beside k-space of {shape}: give "
                "(coils, a, b, c) with the same positions along axes that are no Fourier axes"
            )
    box = centre_box(counts, raw.axes, longest)
    found = [box[n].stop - box[n].start for n in raw.axes]
    if any(m < min(FEWEST, shape[n]) for m, n in zip(found, raw.axes, strict=True)):
        raise InvsrError(
            f"{raw.name}: {'x'.join(map(str, found))} lines around frequency zero are fully sampled along Fourier axes "
            f"{raw.axes}, coil maps need {FEWEST} along each: give maps, or calibration lines"
        )
    lines = values[(slice(None), *box)].to(torch.complex64)
    # Along a readout that was transformed already, k-space is needed too.
    ready = [n for n in ALL_AXES if n not in raw.axes and n != raw.slice_axis]
    lines = fourier(lines, ready) if ready else lines
    for n in ready:
        size = lines.shape[n + 1]
        lines = lines.narrow(n + 1, size // 2 - min(MOST, size) // 2, min(MOST, size))
    return lines


def _espirit(lines: Tensor, sizes: Sequence[int], most: int) -> Tensor:
    """Eigenvectors on a matrix of the `sizes`, (coils, a, b, c), each of some phase; kernels of `most` dimensions."""
    coils = len(lines)
    side = WIDEST
    while side > NARROWEST and coils * math.prod(min(side, n) for n in lines.shape[1:]) > most:
        side -= 1
    width = [min(side, n) for n in lines.shape[1:]]
    blocks = lines
    for n, w in enumerate(width):
        blocks = blocks.unfold(n + 1, w, 1)
    rows = blocks.movedim(0, 3).reshape(-1, coils * math.prod(width)).to(torch.complex128)
    powers, basis = torch.linalg.eigh(rows.mT @ rows.conj())
    signal = basis[:, powers > _noise_power(powers, len(rows))]
    projection = (signal @ signal.mH / math.prod(width)).to(torch.complex64).reshape(coils, *width, coils, *width)
    # S* (sum_pq P_pq exp(2 pi i (p - q) r)) S is a Fourier series in the differences p - q.
    series = torch.zeros(coils, coils, *(2 * w - 1 for w in width), dtype=projection.dtype, device=lines.device)
    for q in torch.cartesian_prod(*(torch.arange(w) for w in width)).reshape(-1, 3).tolist():
        a, b, c = (slice(w - 1 - m, 2 * w - 1 - m) for w, m in zip(width, q, strict=True))
        series[:, :, a, b, c] += projection[..., q[0], q[1], q[2]].movedim(-1, 1)
    waves = [_waves(m, w).to(series) for m, w in zip(sizes, width, strict=True)]
    series = multiply(waves[2], multiply(waves[1], series, 1), 2)
    maps = torch.empty(coils, *sizes, dtype=lines.dtype, device=lines.device)
    for i in range(sizes[0]):  # a plane at a time: matrices of coils x coils are large
        plane = multiply(waves[0][i : i + 1], series, 0)[:, :, 0]
        maps[:, i] = torch.linalg.eigh(plane.permute(2, 3, 0, 1))[1][..., -1].permute(2, 0, 1)
    return maps


def _noise_power(powers: Tensor, n_blocks: int) -> float:
    """The largest eigenvalue that noise may have, from the smallest ones, of the Gram matrix of `n_blocks`.

    Marchenko and Pastur (1967), Math. USSR Sb. 1, 457-483: eigenvalues of noise lie between ``(1 -+ sqrt(g))^2`` times
    their mean, g dimensions over samples; about half of the dimensions are taken to be noise.
    """
    some = powers[-min(len(powers), n_blocks) :]
    g = min(len(powers) / n_blocks, 1.0) / 2
    edge = ((1 + math.sqrt(g)) / (1 - math.sqrt(g))) ** 2
    return max(edge * float(some[: max(1, len(some) // 4)].mean()), ROUNDING * float(powers[-1]))


def _waves(size: int, width: int) -> Tensor:
    """``exp(2 pi i d (r - size//2) / size)`` of voxels r and differences d from ``1 - width`` to ``width - 1``."""
    at = (torch.arange(size, dtype=torch.float64) - size // 2) / size
    turns = 2 * math.pi * at[:, None] * torch.arange(1 - width, width)
    return torch.polar(torch.ones_like(turns), turns)


def _image(lines: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    """The images of the calibration lines on a matrix of the `sizes`, with a Hann window against ringing."""
    for n in axes:
        m, size = lines.shape[n + 1], sizes[n]
        window = torch.sin(math.pi * (torch.arange(m, device=lines.device) + 0.5) / m) ** 2
        filled = torch.zeros(*lines.shape[: n + 1], size, *lines.shape[n + 2 :], dtype=lines.dtype, device=lines.device)
        filled.narrow(n + 1, size // 2 - m // 2, m).copy_(
            lines * window.reshape([-1 if n == d else 1 for d in ALL_AXES])
        )
        lines = filled
    return inverse_fourier(lines, axes)


def _virtual_coil(lines: Tensor) -> Tensor:
    """Weights (coils) of the first principal component, the largest of them real and positive."""
    flat = lines.flatten(1).to(torch.complex128)
    first = torch.linalg.eigh(flat @ flat.mH)[1][:, -1]
    largest = first[first.abs().argmax()]
    weights: Tensor = (first * largest.conj() / largest.abs()).to(lines.dtype)
    return weights


def _aligned(maps: Tensor, images: Tensor, virtual: Tensor) -> Tensor:
    """Maps whose phase is smooth, and that continue where there is no signal; see `coil_maps`."""
    energy = (maps.conj() * images).sum(0).abs().square()
    bright = energy[energy >= energy.mean()].mean()
    own = energy / (energy + FAINT**2 * bright)
    shape = own.shape
    sides = [min(REACH, size - 1 + size % 2) for size in shape]  # odd ones
    index = torch.stack(torch.meshgrid(*(torch.arange(n, device=own.device) for n in shape), indexing="ij"))
    middle = ((index * energy).flatten(1).sum(1) / energy.sum()).round().long()
    shell = (index - middle[:, None, None, None]).abs().amax(0)
    out = torch.zeros_like(maps)
    # Dim voxels pass on what they got, so that what lies behind them is reached, but brighter ones beside them decide.
    trust = own + 1e-3
    for distance in range(int(shell.max()) + 1):
        here = shell == distance
        if distance:
            # All that is known lies in this box, and all of the shell.
            reach = [distance + side // 2 for side in sides]
            box = tuple(slice(max(m - n, 0), m + n + 1) for m, n in zip(middle.tolist(), reach, strict=True))
            known = out[(slice(None), *box)] * (trust * (shell < distance))[box]
            parts = torch.view_as_real(known).movedim(-1, 1).flatten(0, 1)
            near = _box_mean(parts[None], sides)[0, :, here[box]]
            beside = torch.complex(near[0::2], near[1::2])
        else:
            beside = virtual[:, None]
        beside = beside / beside.norm(dim=0).clamp(min=1e-30)
        one = maps[:, here]
        turn = (one.conj() * beside).sum(0)
        one = one * (turn / turn.abs().clamp(min=1e-30))
        blend = own[here] * one + (1 - own[here]) * beside
        out[:, here] = blend / blend.norm(dim=0).clamp(min=1e-30)
    return out


def _box_mean(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Means over boxes of odd sides around each voxel, one axis after the other; 0 beyond the volume. x is 5-D."""
    for axis, side in enumerate(sides):
        kernel = [side if n == axis else 1 for n in range(3)]
        x = avg_pool3d(x, kernel, 1, [one // 2 for one in kernel])
    return x


def _interpolation(coarse: int, fine: int) -> Tensor:
    """Matrix (fine, coarse) of cubic interpolation between matrices of one field of view, ends continued."""
    at = (torch.arange(fine, dtype=torch.float64) - fine // 2) * (coarse / fine) + coarse // 2
    first = at.floor().long()
    matrix = torch.zeros(fine, coarse, dtype=torch.float64)
    for tap in range(-1, 3):
        place = (first + tap).clamp(0, coarse - 1)
        matrix.scatter_add_(1, place[:, None], keys_kernel(at - (first + tap))[:, None])
    return matrix
