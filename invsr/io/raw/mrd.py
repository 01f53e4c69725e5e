"""k-space in ISMRMRD files (MRD, .h5): line by line, each with a header of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.raw.calibration import read_calibration
from invsr.io.raw.guard import opened, reading
from invsr.io.raw.header import Header, parse_header
from invsr.io.raw.layout import Layout, encoding_of, lay_out
from invsr.io.raw.lines import Lines, samples_of, sort_lines
from invsr.io.raw.mrd_trajectory import has_trajectory, read_trajectory
from invsr.io.raw.readout import Complex, crop_readout
from invsr.io.raw.slices import grid_of
from invsr.noncartesian import NonCartesianData
from invsr.raw import ALL_AXES, RawData


def read_mrd(
    path: Path,
    *,
    affine: npt.ArrayLike | None = None,
    slice_thickness: float | None = None,
    index: int | None = None,
) -> RawData | NonCartesianData:
    """k-space of an ISMRMRD file, of slices or one slab; see `invsr.io.raw.load_raw`.

    The oversampling of full readouts is removed; that of partial echoes stays, with a note. Averages become their
    mean. Lines that are for calibration alone and noise are kept apart; navigators and the like are left out. The
    grid is that of the encoded field of view along phase encoding and partitions, cropped along the readout. Radial and
    spiral lines, which hold their trajectory, are read as `NonCartesianData` of the encoded field of view.

    Parameters
    ----------
    path : Path
    affine : array_like, shape (4, 4), optional
        Instead of what the lines say; of the cropped image.
    slice_thickness : float, mm, optional
        Instead of what the header says.
    index : int, optional
        Which image of several contrasts, repetitions, sets or cardiac phases, counted from 0 in this order.

    Raises
    ------
    InvsrError
        When the file is damaged, of another trajectory, of several encodings or slabs, or holds several images and no
        index was given.
    """
    with reading(path), opened(path) as file:
        name = _dataset_name(path, file)
        group = file[name]
        if "xml" not in group or not len(group["xml"]):
            raise InvsrError(f"{path}: holds lines and no header (xml) that says what they are: export it again")
        header = parse_header(path, group["xml"][0])
        lines = sort_lines(path, group["data"], index)
        encoding = encoding_of(path, header, lines)
        if has_trajectory(lines, encoding):
            noise, scaled = _noise(path, group["data"], lines, header)
            return read_trajectory(
                path,
                group["data"],
                lines,
                encoding,
                affine=affine,
                slice_thickness=slice_thickness,
                noise=noise,
                notes=(*lines.notes, scaled) if scaled else lines.notes,
            )
        layout = lay_out(path, header, lines, placed=affine is not None)
        samples, counts = _samples(path, group["data"], lines, layout)
        notes = [*lines.notes, *layout.notes]
        heads = lines.heads[lines.imaging]
        if affine is None:
            grid, doubts = grid_of(path, heads, layout.shape, layout.encoding.spacing, layout.order)
            notes += doubts
        else:
            grid = Grid(layout.shape, affine)
        calibration, said = read_calibration(path, group["data"], lines, layout)
        noise, scaled = _noise(path, group["data"], lines, header)
        notes += [note for note in (said, scaled) if note]
        flat = layout.order is not None
        if slice_thickness is None and flat:
            slice_thickness = layout.encoding.recon_view[2]
        return RawData(
            torch.from_numpy(samples)[None],
            torch.from_numpy(counts),
            grid,
            (0, 1) if flat else ALL_AXES,
            path.name,
            2 if flat else None,
            slice_thickness,
            noise,
            calibration,
            tuple(notes),
        )


def is_mrd(file: Any) -> bool:
    """Whether an open HDF5 file is laid out as ISMRMRD files are."""
    return any(_holds_lines(file[name]) for name in file)


def _holds_lines(group: Any) -> bool:
    import h5py

    return isinstance(group, h5py.Group) and "data" in group and "head" in (group["data"].dtype.names or ())


def _dataset_name(path: Path, file: Any) -> str:
    names = [str(name) for name in file if _holds_lines(file[name])]
    if len(names) != 1:
        said = f"{len(names)} sets of lines ({', '.join(names)})" if names else "no lines of ISMRMRD"
        raise InvsrError(f"{path}: holds {said}: save one measurement in a file")
    return names[0]


def _samples(path: Path, dataset: Any, lines: Lines, layout: Layout) -> tuple[Complex, npt.NDArray[np.float32]]:
    """The mean of all measurements of each sample, and how many there were."""
    rows, readouts = lines.imaging, layout.readouts
    along, across = layout.places(path, lines.heads, rows)
    samples = np.zeros((int(lines.heads["active_channels"][rows[0]]), *layout.shape), np.complex64)
    counts = np.zeros(layout.shape, np.float32)
    for line, values in samples_of(path, dataset, lines.heads, rows):
        kept, place = readouts.samples(line, values), slice(None)
        if layout.cropped:
            kept = crop_readout(kept, layout.size)
        else:
            place = slice(int(readouts.start[line]), int(readouts.stop[line]))
        samples[:, place, along[line], across[line]] += kept
        counts[place, along[line], across[line]] += 1
    samples /= np.maximum(counts, 1)
    return samples, counts


def _noise(path: Path, dataset: Any, lines: Lines, header: Header) -> tuple[torch.Tensor | None, str | None]:
    """Samples of noise, scaled to the bandwidth of the data: their variance goes with it, and with 1 / dwell time."""
    if not len(lines.noise):
        return None, None
    heads = lines.heads
    kept = []
    for line, values in samples_of(path, dataset, heads, lines.noise):
        head = heads[lines.noise[line]]
        kept.append(values[:, head["discard_pre"] : max(0, values.shape[1] - int(head["discard_post"]))])
    noise = np.concatenate(kept, 1)
    own, data = (float(np.median(heads["sample_time_us"][rows])) for rows in (lines.noise, lines.imaging))
    note = None
    factor = 1.0
    if own > 0 and data > 0:
        factor = own / data
    else:
        note = "noise is taken to be of the bandwidth of the data: its dwell time is not in the file"
    if header.noise_bandwidth is not None:
        factor /= header.noise_bandwidth
    return torch.from_numpy(np.asarray(noise * np.float32(factor**0.5), np.complex64)), note
