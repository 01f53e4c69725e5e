"""`invsr inspect`: what scans are, before anything is made of them."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsr.app import options
from invsr.app.arguments import read_scans
from invsr.errors import InvsrError, InvsrWarning

if TYPE_CHECKING:
    from invsr.pipeline.scan import Scan


def inspect(
    scans: options.Scans,
    volume: options.VolumeIndex = None,
    slice_axis: options.ScanSliceAxis = None,
    geometry: options.Geometry = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list with an entry for each scan.")] = False,
) -> None:
    """Say what scans are: grid, slices, measured resolution, noise, faults; and the command for each."""
    found = [_facts(path, volume, geometry, slice_axis) for path in scans]
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)
    if unusable := [facts["file"] for facts in found if "error" in facts]:
        raise InvsrError(f"{len(unusable)} of {len(found)} scans cannot be used, for the reasons above")


def _print(found: list[dict[str, Any]]) -> None:
    for n, facts in enumerate(found):
        print("\n" * (n > 0) + facts["file"])
        for name, what in facts.items():
            if name == "file":
                continue
            for k, line in enumerate(what if isinstance(what, list) else [what]):
                print(f"  {'' if k else name:20s} {line}")


def _facts(path: Path, volume: int | None, geometry: str | None, slice_axis: str | None) -> dict[str, Any]:
    """What is known of one file, by name; "error" where it cannot be used."""
    from invsr.pipeline.preparation import scans_of

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", InvsrWarning)
        try:
            (stored,) = read_scans([path], None, volume, geometry, slice_axis, zero_filling="keep", faults="keep")
            (scan,) = scans_of(stored)
            facts = {"file": str(path), **_of_grid(stored), **_of_data(stored, scan)}
        except InvsrError as error:
            return {"file": str(path), "error": str(error)}
    # Spikes are questioned in the data as they are stored; what was done about them stands under the faults.
    facts["warnings"] = list(dict.fromkeys(str(one.message) for one in said)) or ["none"]
    output = path.name.removesuffix(".gz").rpartition(".")[0] + "_iso.nii.gz"
    facts["command"] = shlex.join(["invsr", "reconstruct", str(path), "-o", output])
    return facts


def _of_grid(scan: Scan) -> dict[str, Any]:
    from nibabel.orientations import aff2axcodes

    grid, axis = scan.grid, scan.through_plane
    given = scan.volume.slice_thickness is not None
    thickness = "unknown: isotropic voxels are taken as samples"
    if scan.thickness is not None:
        source = "header or sidecar" if given else "not stated: the spacing is taken"
        thickness = f"{scan.thickness:.4g} mm ({source})"
        if given and scan.thickness < scan.slice_spacing * 0.999:
            thickness += f", gaps of {scan.slice_spacing - scan.thickness:.3g} mm"
    return {
        "voxels": "x".join(map(str, grid.shape)),
        "spacing": f"{'x'.join(f'{one:.4g}' for one in grid.spacing)} mm",
        "field of view": f"{'x'.join(f'{one:.4g}' for one in grid.extent)} mm",
        "orientation": "".join(aff2axcodes(grid.affine)),
        "slices": f"{grid.shape[axis]} along {'ijk'[axis]}, {scan.slice_spacing:.4g} mm apart",
        "slice thickness": thickness,
        "slice times": "in the sidecar" if scan.slice_order is not None else "unknown",
    }


def _of_data(stored: Scan, scan: Scan) -> dict[str, Any]:
    from invsr.numerics.levels import peak
    from invsr.pipeline.slice_check import EXPECTED, slice_correlation

    axes = [n for n in (0, 1, 2) if n != scan.through_plane]
    measured = "x".join(str(scan.grid.shape[n]) for n in axes)
    pixels = "x".join(f"{scan.grid.spacing[n]:.3g}" for n in axes)
    filled = scan.grid.shape != stored.grid.shape
    shares = " and ".join(f"{stored.grid.shape[n] / scan.grid.shape[n]:.2f}" for n in axes)
    sigma, bright = scan.sigma(), peak(scan.data)
    correlation = slice_correlation(scan)
    faults = [note.split(": ", 1)[1].rsplit(" (--", 1)[0] for note in scan.notes if "--faults" in note]
    low, high = EXPECTED
    return {
        "measured matrix": f"{measured}, pixels of {pixels} mm" + (f"; zero-filled by {shares}" if filled else ""),
        "noise": f"standard deviation {sigma:.4g}, {sigma / bright:.2%} of bright tissue ({bright:.4g})",
        "neighbouring slices": "too few"
        if correlation is None
        else f"correlation of residuals {correlation:+.2f} (usual: {low:g} to {high:g})",
        "faults": faults or ["none found"],
    }
