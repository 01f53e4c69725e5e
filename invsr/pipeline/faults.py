"""Faults of single slices are corrected where they are certain, and named."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from invsr.inspection.single_slices import LEAST_ALIKE_PACKAGES, are_alike, corrupt_slices, darker_slices
from invsr.inspection.slices import (
    LEAST_GAIN,
    LEAST_SHIFT,
    between,
    empty_slices,
    is_certain,
    package_gain,
    package_shift,
    padded_ends,
    shifted,
    spikes,
    without_spikes,
)
from invsr.pipeline.scan import Scan


def without_faults(scan: Scan, alone: bool = True) -> Scan:
    """The scan without spiked voxels, faults of single slices, and differences between interleaved packages.

    There is a note of each. Spiked voxels become the median of their neighbours. Empty and corrupt slices are left out,
    padding at the ends is taken as not measured. Where slices lie elsewhere by turns, those of odd number are moved
    back within their planes. Darker slices, single ones or by turns, are brightened: signal gets lost, not made. Slices
    far apart are looked at one by one only.

    Parameters
    ----------
    scan : Scan
    alone : bool
        Whether there is no other scan: with several, single slices that do not fit, and packages that moved, are
        `invsr.motion`'s to find.
    """
    axis = scan.through_plane
    if scan.grid.shape[axis] < 3:
        return scan
    slices, mask, notes = scan.data[0, 0].movedim(axis, -1), scan.mask, []
    padded = padded_ends(slices)
    if padded != list(scan.padded_slices):
        notes.append(
            f"{_several(len(padded), 'slice')} (number {', '.join(map(str, padded))}) at the ends hold"
            f"{'s' if len(padded) == 1 else ''} one value: taken as not measured, the result is 0 there"
        )
    spiked = spikes(slices)
    if count := int(spiked.sum()):
        slices = without_spikes(slices, spiked)
        where = _voxel(spiked.nonzero()[0].tolist(), axis)
        notes.append(f"{_several(count, 'spiked voxel')}, the first at {where}: the median of their neighbours is used")
    empty = empty_slices(slices)
    if empty:
        slices = between(slices, empty)
        notes.append(f"{_several(len(empty), 'empty slice')} (number {', '.join(map(str, empty))}): left out")
    comparable = are_alike(slices, LEAST_ALIKE_PACKAGES)
    shift = package_shift(slices) if alone and comparable else None
    if shift is not None and is_certain(shift, LEAST_SHIFT):
        odd = (torch.arange(slices.shape[2]) % 2 == 1).to(slices)
        pixels = torch.tensor(shift.difference).to(slices)
        slices = _as_before(shifted(slices, -pixels[:, None] * odd), slices)
        if mask is not None:  # of the data as they were
            inside = shifted((mask.data[0, 0].movedim(axis, -1) != 0).to(slices), -pixels[:, None] * odd) > 0.5
            mask = mask.with_data(inside.to(slices).movedim(-1, axis)[None, None].contiguous())
        spacing = [float(scan.grid.spacing[n]) for n in (0, 1, 2) if n != axis]
        distance = sum((one * size) ** 2 for one, size in zip(shift.difference, spacing, strict=True)) ** 0.5
        notes.append(
            f"every other slice lies {distance:.2g} mm away in its plane (interleaved packages that moved): moved back"
        )
    gain = package_gain(slices, empty) if comparable else None
    if gain is not None and is_certain(gain, LEAST_GAIN):
        dark = _factors(gain.difference[0], slices.shape[2])
        slices = slices / dark.to(slices)
        notes.append(f"every other slice is darker by {float(1 - dark.min()):.1%} (interleaved packages): brightened")
    comparable = alone and are_alike(slices)
    corrupt = [k for k in corrupt_slices(slices) if k not in empty] if comparable else []
    left_out = sorted({*empty, *corrupt})
    if corrupt:
        slices = between(slices, left_out)
        notes.append(
            f"{_several(len(corrupt), 'slice')} (number {', '.join(map(str, corrupt))}) unlike those on both sides, "
            "which are alike: left out"
        )
    for k, factor in (darker_slices(slices, left_out) if comparable else {}).items():
        slices = torch.where(torch.arange(slices.shape[2], device=slices.device) == k, slices / factor, slices)
        notes.append(f"slice {k} is darker than those on both sides by {1 - factor:.0%}: brightened")
    if not notes:
        return scan
    volume = replace(scan.volume, data=slices.movedim(-1, axis)[None, None].contiguous())
    said = tuple(f"{scan.name}: {note} (--faults keep leaves the data as they are)" for note in notes)
    notes_of = (*scan.notes, *said)
    return replace(
        scan,
        volume=volume,
        mask=mask,
        empty_slices=tuple(left_out),
        padded_slices=tuple(padded),
        notes=notes_of,
    )


def _factors(difference: float, count: int) -> Tensor:
    """What the slices were multiplied by, of a log ratio of odd over even ones: 1 for the brighter ones."""
    darker = torch.arange(count) % 2 == (1 if difference < 0 else 0)
    return torch.where(darker, torch.tensor(-abs(difference)).exp(), torch.ones(()))


def _as_before(moved: Tensor, slices: Tensor) -> Tensor:
    """A magnitude image stays one."""
    return moved.abs() if bool((slices >= 0).all()) else moved


def _voxel(index: list[int], axis: int) -> str:
    """Its number along the file's own axes."""
    index.insert(axis, index.pop())
    return "({}, {}, {})".format(*index)


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
