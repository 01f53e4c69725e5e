"""Where the lines of an ISMRMRD file lie in the array of k-space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import require_memory
from invsr.io.raw.header import Encoding, Header
from invsr.io.raw.lines import Lines
from invsr.io.raw.readout import Indices, Readouts, place_readouts
from invsr.io.raw.slices import slices_in_order


@dataclass(frozen=True)
class Layout:
    """Where lines lie in the array of k-space.

    Attributes
    ----------
    encoding : Encoding
    order : ndarray of int or None
        Numbers of slices, in order; None for a slab.
    size : int
        Samples along the readout, after the removal of oversampling.
    readouts : Readouts
        Readouts of the imaging lines.
    notes : tuple of str
    """

    encoding: Encoding
    order: Indices | None
    size: int
    readouts: Readouts
    notes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the image."""
        _, lines, partitions = self.encoding.matrix
        return self.size, lines, partitions if self.order is None else len(self.order)

    @property
    def cropped(self) -> bool:
        """Whether readout oversampling is removed."""
        return self.size < self.encoding.matrix[0]

    def places(self, path: Path, heads: npt.NDArray[Any], rows: Indices) -> tuple[Indices, Indices]:
        """Index along phase encoding, and along partitions or slices, of each line.

        Raises
        ------
        InvsrError
            When a line lies outside of the matrix.
        """
        counters = heads["idx"][rows]
        found = []
        for n in (1, 2):
            step = counters[f"kspace_encode_step_{n}"].astype(np.int64)
            size, centre = self.encoding.matrix[n], self.encoding.centres[n - 1]
            at = step - centre + size // 2
            if n == 2 and self.order is not None:
                found.append(np.asarray([np.flatnonzero(self.order == number)[0] for number in counters["slice"]]))
                continue
            out = np.flatnonzero((at < 0) | (at >= size))
            if len(out):
                one = int(out[0])
                raise InvsrError(
                    f"{path}: line {rows[one]} has the encoding step {step[one]} along axis {n}, outside of the {size} "
                    f"around step {centre} that the header encodes: repair its encodingLimits or matrixSize"
                )
            found.append(at)
        return found[0], found[1]


def encoding_of(path: Path, header: Header, lines: Lines) -> Encoding:
    """How the imaging lines were encoded.

    Raises
    ------
    InvsrError
        When the header does not say.
    """
    which = int(lines.heads["encoding_space_ref"][lines.imaging[0]])
    if which >= len(header.encodings):
        raise InvsrError(
            f"{path}: its lines are of encoding {which}, which the header does not describe: export it again"
        )
    return header.encodings[which]


def lay_out(path: Path, header: Header, lines: Lines, *, placed: bool = False) -> Layout:
    """Matrix and slices of the imaging lines; `placed` where the caller knows where slices lie.

    Raises
    ------
    InvsrError
        When k-space is not Cartesian, of several slabs or of slices excited together, or lines do not fit the header.
    """
    import ismrmrd

    heads = lines.heads[lines.imaging]
    encoding = encoding_of(path, header, lines)
    if encoding.trajectory != "cartesian":
        raise InvsrError(
            f"{path}: its trajectory is {encoding.trajectory}: Cartesian k-space is read, and radial or spiral lines "
            "that hold their trajectory (acquisition.traj): write it into each line, or name the image"
        )
    if encoding.multiband > 1:
        raise InvsrError(
            f"{path}: {encoding.multiband} slices were excited at once: separate them first, or name the image"
        )
    partitions = max(encoding.partitions, int(heads["idx"]["kspace_encode_step_2"].max()))
    n_slices = len(np.unique(heads["idx"]["slice"]))
    slab = encoding.matrix[2] > 1 and partitions > 0
    if slab and n_slices > 1:
        raise InvsrError(f"{path}: holds {n_slices} slabs: save the lines of one in a file")
    if not slab and partitions > 0:
        raise InvsrError(f"{path}: its lines have partition steps, and the header encodes one partition: repair it")
    order = None if slab else slices_in_order(path, heads, placed)
    turned = lines.flagged(lines.imaging, ismrmrd.ACQ_IS_REVERSE)
    n, size = encoding.matrix[0], encoding.cropped
    readouts = place_readouts(path, lines.heads, lines.imaging, turned, n)
    notes: tuple[str, ...] = ()
    if size < n and readouts.full:
        notes = (f"readout oversampling was removed: {size} of {n} samples are left",)
    elif size < n:
        measured, size = int((readouts.stop - readouts.start).max()), n
        notes = (f"readouts are partial ({measured} of {n} samples): their oversampling is left in",)
    layout = Layout(encoding, order, size, readouts, notes)
    coils, matrix = int(heads["active_channels"][0]), layout.shape
    # Complex samples, their copy in `RawData` and one of them meanwhile; real counts.
    needed = (24 * coils + 8) * matrix[0] * matrix[1] * matrix[2]
    require_memory(path, f"k-space of {'x'.join(map(str, matrix))} by {coils} coils", needed)
    return layout
