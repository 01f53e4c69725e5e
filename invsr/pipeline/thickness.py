"""The slice thickness that the data show, where none is stated, or where the stated one cannot be."""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import Tensor

from invsr.errors import InvsrError, InvsrWarning
from invsr.inspection.width import SliceWidth, slice_width
from invsr.operators.profiles import PROFILES
from invsr.operators.scan_model import slice_profile_of
from invsr.pipeline.scan import Scan

# Slices of unknown thickness that are seen to be thinner than this share of their spacing are taken as that thin.
SAMPLES = 0.6
# A stated thickness, or the spacing in its place, is questioned outside the range that is seen, and this factor around
# it: a boxcar of the same variance is 1.47 times as wide as a Gaussian.
IMPLAUSIBLE = 1.7


def width_seen(scan: Scan) -> SliceWidth | None:
    """The width of the scan's slice profile that its data show (`invsr.inspection.slice_width`); None if unknown."""
    if scan.thickness is None or scan.slice_profile not in PROFILES:
        return None
    axis = scan.through_plane
    data = scan.data if scan.used is None else scan.data * scan.used
    pixel = [float(scan.grid.spacing[n]) for n in (0, 1, 2) if n != axis]
    slices: Tensor = data[0, 0].movedim(axis, -1)
    return slice_width(slices, pixel, scan.slice_spacing, slice_profile_of(scan.slice_profile, 1.0))


def with_thickness(scan: Scan, estimated: bool = False, sound: bool = True) -> Scan:
    """The scan as thick as its data show, where that is asked for, or where none is stated and slices are samples.

    Parameters
    ----------
    scan : Scan
    estimated : bool
        Whatever is stated.
    sound : bool
        Slices with faults, and those of several scans, may have moved, which makes them look thinner: then slices are
        not taken for samples, and a thickness is not questioned.

    Raises
    ------
    InvsrError
        When it is to be estimated, and the data show none.
    """
    if not (estimated or sound):
        return scan
    stated = scan.volume.slice_thickness if scan.slice_thickness is None else scan.slice_thickness
    seen = width_seen(scan)
    if seen is None:
        if estimated:
            raise InvsrError(
                f"{scan.name}: its data do not show how thick its slices are (too little tissue, slices that differ "
                "by turns, isotropic voxels, or a sampled profile): give the slice thickness in mm"
            )
        return scan
    words = f"{seen.width:.3g} mm ({seen.low:.3g} to {seen.high:.3g}, {scan.slice_profile} profile)"
    # No sample is thinner than the pixels of the volume that it was taken from.
    thickness = max(seen.width, float(scan.grid.spacing.min()))
    if estimated:
        note = f"the data show slices of {words}: taken as {thickness:.3g} mm thick"
    elif stated is None and seen.high < SAMPLES * scan.slice_spacing:
        note = (
            f"slices {scan.slice_spacing:.3g} mm apart, the data show samples of {words}: taken as {thickness:.3g} mm "
            f"thick (--slice-thickness {scan.slice_spacing:.3g} takes them as wide as their spacing)"
        )
    else:
        taken = scan.slice_spacing if stated is None else stated
        if not seen.low / IMPLAUSIBLE <= taken <= seen.high * IMPLAUSIBLE:
            how = "is taken, the spacing, for none is stated" if stated is None else "is stated"
            warnings.warn(
                f"{scan.name}: slice thickness {taken:.3g} mm {how}, the data look like {words}: "
                "compare with --slice-thickness auto",
                InvsrWarning,
                stacklevel=3,
            )
        return scan
    return replace(scan, slice_thickness=thickness, notes=(*scan.notes, f"{scan.name}: {note}"))
