"""k-space of BART, .cfl with .hdr: complex64 in column-major order, and its sixteen dimensions in a text file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import read_text, require_memory
from invsr.io.formats import require_readable
from invsr.io.raw.arrays import from_samples
from invsr.io.raw.guard import reading
from invsr.raw import RawData

# BART's dimension of coils; those before it are readout, phase encoding and partitions.
COILS = 3
NAMES: tuple[str, ...] = ("readout", "phase 1", "phase 2", "coil", "map", "echo time", "coefficient", "coefficient 2")
NAMES += ("iteration", "shift", "time", "time 2", "level", "slice", "average", "batch")


def read_cfl(
    path: Path,
    *,
    spacing: float | Sequence[float] | None = None,
    affine: npt.ArrayLike | None = None,
    axes: Sequence[int] | None = None,
    slice_thickness: float | None = None,
) -> RawData:
    """k-space of a .cfl file with its .hdr; either may be named. See `invsr.io.raw.load_raw`.

    BART's transform is centred: it multiplies by ``exp(-2πi (m - c)(n - c) / N)`` with ``c = N // 2`` on both sides,
    for odd N, too, which puts frequency zero and phase zero where `RawData` has them. It is not orthonormal unless
    ``fft -u`` was asked for; that changes the scale of the image, which a reconstruction keeps.

    Raises
    ------
    InvsrError
        When one of the two files is missing or does not fit the other, a dimension behind the coils is not 1, or
        neither spacing nor affine is given.

    References
    ----------
    Uecker et al., Berkeley Advanced Reconstruction Toolbox. Proc. ISMRM 23 (2015), 2486.
    """
    with reading(path):
        return from_samples(path, np.moveaxis(map_cfl(path), COILS, 0), spacing, affine, axes, slice_thickness)


def map_cfl(path: Path) -> npt.NDArray[np.complex64]:
    """The first four dimensions of a .cfl file, behind which there are no others; mapped, not read.

    Raises
    ------
    InvsrError
        When one of the two files is missing or does not fit the other, or a dimension behind the coils is not 1.
    """
    samples, header = _pair(path)
    shape = _dimensions(path, header)
    needed, held = 8 * math.prod(shape), os.path.getsize(samples)
    if needed != held:
        raise InvsrError(
            f"{path}: {header.name} is of {needed} bytes of samples, {samples.name} holds {held}: copy both again"
        )
    require_memory(path, f"k-space of {'x'.join(map(str, shape))}", 3 * needed)
    return np.memmap(samples, "<c8", "r", shape=shape, order="F")


def _pair(path: Path) -> tuple[Path, Path]:
    """The two files."""
    found = []
    for ending, what in ((".cfl", "the samples"), (".hdr", "their dimensions")):
        one = path if path.suffix.lower() == ending else path.with_suffix(ending)
        if one != path and not one.exists():
            raise InvsrError(f"{path}: is one of BART's two files, and {one.name}, {what}, is missing: put it beside")
        require_readable(one)
        found.append(one)
    return found[0], found[1]


def _dimensions(path: Path, header: Path) -> tuple[int, ...]:
    """Readout, phase encoding, partitions and coils."""
    lines = read_text(header).splitlines()
    at = next((n for n, line in enumerate(lines) if line.lstrip("# ").strip() == "Dimensions"), None)
    words = lines[at + 1].split() if at is not None and at + 1 < len(lines) else []
    if not words or not all(word.isascii() and word.isdigit() and 0 < len(word) < 19 for word in words):
        raise InvsrError(f"{path}: {header.name} has no line of whole numbers below '# Dimensions': export it again")
    sizes = [int(word) for word in words] + [1] * (COILS + 1 - len(words))
    if min(sizes) < 1:
        raise InvsrError(f"{path}: {header.name} gives a dimension of 0, which holds no samples: export it again")
    beyond = {n: size for n, size in enumerate(sizes) if n > COILS and size > 1}
    if beyond:
        said = ", ".join(f"{NAMES[n] if n < len(NAMES) else f'dimension {n}'} {size}" for n, size in beyond.items())
        n = min(beyond)
        raise InvsrError(
            f"{path}: has dimensions behind the coils ({said}): choose one of each first (bart slice {n} 0 ...), or "
            f"make slices the third (bart transpose 2 {n} ...)"
        )
    return tuple(sizes[: COILS + 1])
