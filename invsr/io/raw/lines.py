"""The lines of an ISMRMRD file: what each one is for, and their samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from invsr.errors import InvsrError
from invsr.io.bounds import require_memory
from invsr.io.raw.readout import Complex, Indices

# Of samples read at once: bytes.
BLOCK = 2**26
# What tells images apart that lie at the same place.
IMAGES = ("contrast", "repetition", "set", "phase")


@dataclass(frozen=True)
class Lines:
    """Which lines are which, by their place in the file.

    Attributes
    ----------
    heads : structured ndarray
        Headers of all lines.
    imaging, calibration, noise : ndarray of int
        `imaging` lines are of the image that was chosen, `calibration` lines are for nothing else.
    notes : tuple of str
    """

    heads: npt.NDArray[Any]
    imaging: Indices
    calibration: Indices
    noise: Indices
    notes: tuple[str, ...]

    def flagged(self, rows: Indices, flag: int) -> npt.NDArray[np.bool_]:
        """Which of the lines bear an ISMRMRD flag."""
        return has_flag(self.heads[rows], flag)


def has_flag(heads: npt.NDArray[Any], flag: int) -> npt.NDArray[np.bool_]:
    """Which lines bear an ISMRMRD flag, counted from 1."""
    return np.asarray((heads["flags"] >> np.uint64(flag - 1)) & np.uint64(1)).astype(bool)


def sort_lines(path: Path, dataset: Any, index: int | None) -> Lines:
    """Tell imaging lines from those for calibration, noise and other ends, and choose one image.

    Raises
    ------
    InvsrError
        When no imaging lines are left, there are several images and no index, or coils differ between lines.
    """
    import ismrmrd

    heads = _heads(path, dataset)
    other = {
        "noise": (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,),
        "navigator": (
            ismrmrd.ACQ_IS_NAVIGATION_DATA,
            ismrmrd.ACQ_IS_PHASE_STABILIZATION,
            ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
        ),
        "phase-correction": (ismrmrd.ACQ_IS_PHASECORR_DATA,),
        "feedback": (ismrmrd.ACQ_IS_HPFEEDBACK_DATA, ismrmrd.ACQ_IS_RTFEEDBACK_DATA),
        "dummy": (ismrmrd.ACQ_IS_DUMMYSCAN_DATA,),
        "coil-correction": (ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,),
    }
    left = np.ones(len(heads), bool)
    found: dict[str, Indices] = {}
    for name, flags in other.items():
        of = left & np.any([has_flag(heads, flag) for flag in flags], axis=0)
        found[name] = np.flatnonzero(of)
        left &= ~of
    both = has_flag(heads, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
    reference = left & has_flag(heads, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) & ~both
    imaging, calibration = np.flatnonzero(left & ~reference), np.flatnonzero(reference)
    if not len(imaging):
        said = ", ".join(
            f"{len(rows)} {name}" for name, rows in {**found, "calibration": calibration}.items() if len(rows)
        )
        raise InvsrError(
            f"{path}: holds no imaging lines ({said or 'no lines at all'}): name the file of the scan itself"
        )
    skipped = [f"{len(rows)} {name}" for name, rows in found.items() if len(rows) and name != "noise"]
    notes = [f"left out lines that are no part of the image: {', '.join(skipped)}"] if skipped else []
    imaging, calibration = _one_image(path, heads, imaging, calibration, index)
    calibration = _one_encoding(path, heads, imaging, calibration, notes)
    noise = found["noise"]
    _require_coils(path, heads, np.concatenate([imaging, calibration, noise]))
    return Lines(heads, imaging, calibration, noise, tuple(notes))


def samples_of(path: Path, dataset: Any, heads: npt.NDArray[Any], rows: Indices) -> Iterator[tuple[int, Complex]]:
    """The samples of lines, (coils, n), each with its place in `rows`, which are read in blocks.

    Raises
    ------
    InvsrError
        When a line holds another number of samples than it says, or NaN.
    """
    if not len(rows):
        return
    order = np.argsort(rows, kind="stable")
    sizes = _sizes(heads)
    step = max(1, BLOCK // (8 * max(1, int(sizes[rows].max()))))
    ordered, at = rows[order], 0
    while at < len(rows):
        first = int(ordered[at])
        stop = int(np.searchsorted(ordered, first + step))
        block = dataset.fields("data")[first : int(ordered[stop - 1]) + 1]
        for place in order[at:stop]:
            row = int(rows[place])
            values = np.asarray(block[row - first], np.float32)
            if values.size != 2 * sizes[row]:
                raise _of_other_length(path, row, values.size, 2 * int(sizes[row]))
            if not np.isfinite(values).all():
                raise InvsrError(f"{path}: line {row} holds samples that are NaN or infinite: export it again")
            yield int(place), values.view(np.complex64).reshape(heads["active_channels"][row], -1)
        at = stop


def _heads(path: Path, dataset: Any) -> npt.NDArray[Any]:
    """Headers of all lines, taken from the bytes as they are stored.

    h5py would read the samples along with them, and HDF5 takes memory for the length of a line before it looks whether
    it is there; so lengths are compared with headers first.
    """
    kind, dtype = dataset.id.get_type(), dataset.dtype["head"]
    require_memory(path, f"{len(dataset)} lines", 3 * len(dataset) * kind.get_size())
    members = {name: kind.get_member_index(name.encode()) for name in ("head", "traj", "data")}
    stored_size = kind.get_member_type(members["head"]).get_size()
    if dataset.chunks is None or dataset.id.get_create_plist().get_nfilters() or stored_size != dtype.itemsize:
        return np.asarray(dataset.fields("head")[:])  # stored otherwise than ISMRMRD's own libraries do
    # The number of values of four bytes is what a member of variable length begins with.
    stored = np.dtype(
        {
            "names": list(members),
            "formats": [dtype, "<u4", "<u4"],
            "offsets": [kind.get_member_offset(at) for at in members.values()],
            "itemsize": kind.get_size(),
        }
    )
    chunks = (dataset.id.read_direct_chunk((at,))[1] for at in range(0, len(dataset), dataset.chunks[0]))
    lines = np.frombuffer(b"".join(chunks), stored)[: len(dataset)]
    heads = np.ascontiguousarray(lines["head"])
    points = heads["number_of_samples"].astype(np.int64) * heads["trajectory_dimensions"]
    for found, said in ((lines["data"], 2 * _sizes(heads)), (lines["traj"], points)):
        bad = np.flatnonzero(found != said)
        if len(bad):
            raise _of_other_length(path, int(bad[0]), int(found[bad[0]]), int(said[bad[0]]))
    return heads


def _one_image(
    path: Path, heads: npt.NDArray[Any], imaging: Indices, calibration: Indices, index: int | None
) -> tuple[Indices, Indices]:
    """The lines of one contrast, repetition, set and phase of the heart; calibration lines of it, or of the first."""
    labels = np.stack([heads["idx"][name] for name in IMAGES], -1)
    images = np.unique(labels[imaging], axis=0)
    counts = [len(np.unique(images[:, n])) for n in range(len(IMAGES))]
    if index is None and len(images) > 1:
        said = ", ".join(f"{n} {name}s" for n, name in zip(counts, IMAGES, strict=True) if n > 1)
        raise InvsrError(
            f"{path}: holds {len(images)} images ({said}): choose one from 0 to {len(images) - 1} with index="
        )
    if index is not None and not 0 <= index < len(images):
        raise InvsrError(f"{path}: has no image {index}: it holds {len(images)}, counted from 0")
    one = images[index or 0]
    imaging = imaging[(labels[imaging] == one).all(-1)]
    if len(calibration):
        own = (labels[calibration] == one).all(-1)
        first = np.unique(labels[calibration], axis=0)[0]
        calibration = calibration[own if own.any() else (labels[calibration] == first).all(-1)]
    return imaging, calibration


def _one_encoding(
    path: Path, heads: npt.NDArray[Any], imaging: Indices, calibration: Indices, notes: list[str]
) -> Indices:
    """The calibration lines that were encoded as the image was, which must have one encoding."""
    encodings = np.unique(heads["encoding_space_ref"][imaging])
    if len(encodings) > 1:
        raise InvsrError(f"{path}: its lines have {len(encodings)} encodings: save the lines of one in a file")
    same = heads["encoding_space_ref"][calibration] == encodings[0]
    if not same.all():
        notes.append(f"left out {int((~same).sum())} calibration lines that were encoded otherwise than the image")
    return np.asarray(calibration[same])


def _require_coils(path: Path, heads: npt.NDArray[Any], rows: Indices) -> None:
    coils = heads["active_channels"][rows]
    other = np.flatnonzero(coils != coils[0])
    if len(other) or coils[0] < 1:
        one = int(other[0]) if len(other) else 0
        raise InvsrError(
            f"{path}: line {rows[one]} is of {coils[one]} coils and line {rows[0]} of {coils[0]}: every line must be "
            "of the same coils, one at least: leave the others out"
        )


def _sizes(heads: npt.NDArray[Any]) -> Indices:
    """Complex samples of each line, of all its coils."""
    return np.asarray(heads["number_of_samples"].astype(np.int64) * heads["active_channels"])


def _of_other_length(path: Path, row: int, found: int, said: int) -> InvsrError:
    return InvsrError(f"{path}: line {row} holds {found} numbers and its header says {said}: export it again")
