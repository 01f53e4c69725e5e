"""`invsr inspect`: what scans are, before anything is made of them."""

from __future__ import annotations

import json
import math
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invsr.app import options
from invsr.app.arguments import axis_number
from invsr.errors import InvsrError, InvsrWarning

if TYPE_CHECKING:
    from invsr.pipeline.scan import Scan


# What the table of a folder shows of each scan.
COLUMNS = ("voxels", "spacing", "slice thickness", "thickness seen", "measured matrix", "noise", "faults", "warnings")


def inspect(
    scans: options.ScansOrFolders,
    volume: options.VolumeIndex = None,
    slice_axis: options.ScanSliceAxis = None,
    geometry: options.Geometry = None,
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML page of each scan, with pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list with an entry for each scan.")] = False,
) -> None:
    """Say what scans are: grid, slices, measured resolution, noise, faults; and the command for each."""
    if report is not None:
        from invsr.io.files import check_folder

        check_folder(report)
    found, pages = [], list[Path]()
    files = _files(scans)
    for path, output in zip(files, _outputs(files), strict=True):
        facts, stored = _facts(path, output, volume, geometry, slice_axis)
        found.append(facts)
        if report is not None and stored is not None:
            pages.append(_write_page(report, facts, stored, len(pages)))
    if as_json:
        print(json.dumps(found, indent=1))
    elif any(path.is_dir() for path in scans):
        _print_table(found)
    else:
        _print(found)
    if pages and not as_json:
        print(f"wrote {', '.join(map(str, pages))}")
    if unusable := [facts["file"] for facts in found if "error" in facts]:
        raise InvsrError(f"{len(unusable)} of {len(found)} scans cannot be used, for the reasons above")


def _files(paths: list[Path]) -> list[Path]:
    """The files, and in place of folders the images in them."""
    from invsr.io.nifti import images_in

    found: list[Path] = []
    for path in paths:
        inside = images_in(path) if path.is_dir() else [path]
        if not inside:
            raise InvsrError(f"{path}: holds no image (NIfTI, mgz, NRRD): name the folder that does")
        found += inside
    return found


def _outputs(paths: list[Path]) -> list[str]:
    """Names for the results, which files of one name in several folders do not share."""
    names = [f"{path.name.removesuffix('.gz').rpartition('.')[0]}_iso.nii.gz" for path in paths]
    return [name if names.count(name) == 1 else f"{n:03d}_{name}" for n, name in enumerate(names, start=1)]


def _write_page(folder: Path, facts: dict[str, Any], stored: Scan, number: int) -> Path:
    """The page of a scan, which files of one name in several folders do not share."""
    from invsr.io.files import make_folder
    from invsr.report.inspection import write_inspection

    page = folder / f"{number + 1:03d}_{stored.volume.name.split('.nii')[0]}.html"
    make_folder(folder)
    write_inspection(page, facts, stored)
    return page


def _print_table(found: list[dict[str, Any]]) -> None:
    """A row for each scan, in Markdown; one that cannot be used has the reason in its last cell."""
    print("| " + " | ".join(("file", *COLUMNS)) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for facts in found:
        cells = [facts.get(name, "") for name in COLUMNS]
        if "error" in facts:
            cells[-1] = facts["error"]
        words = ["; ".join(one) if isinstance(one, list) else one for one in (facts["file"], *cells)]
        print("| " + " | ".join(one.replace("|", "\\|") for one in words) + " |")


def _print(found: list[dict[str, Any]]) -> None:
    for n, facts in enumerate(found):
        print("\n" * (n > 0) + facts["file"])
        for name, what in facts.items():
            if name == "file":
                continue
            for k, line in enumerate(what if isinstance(what, list) else [what]):
                print(f"  {'' if k else name:20s} {line}")


def _facts(
    path: Path, output: str, volume: int | None, geometry: str | None, slice_axis: str | None
) -> tuple[dict[str, Any], Scan | None]:
    """What is known of one file, by name, and its scan; "error" and no scan where it cannot be used."""
    from invsr.io.nifti import load
    from invsr.pipeline.grids import choose_grid
    from invsr.pipeline.moved import with_packages_noted
    from invsr.pipeline.preparation import scans_of
    from invsr.pipeline.scan import Scan

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", InvsrWarning)
        try:
            axis = None if slice_axis is None else axis_number(slice_axis, "--slice-axis")
            stored = Scan(load(path, volume, geometry=geometry), slice_axis=axis)
            (scan,) = scans_of(stored.volume, slice_axis=axis)
            scan = with_packages_noted(scan, choose_grid([scan]))
            facts = {"file": str(path), **_of_grid(stored, scan), **_of_data(stored, scan)}
        except InvsrError as error:
            return {"file": str(path), "error": str(error)}, None
    facts["warnings"] = list(dict.fromkeys(str(one.message) for one in said)) or ["none"]
    moved = ["--motion", "packages"] if any("--motion packages" in note for note in scan.notes) else []
    # What the scan was read by is what it is to be reconstructed by.
    given = {"--volume": volume, "--slice-axis": slice_axis, "--geometry": geometry}
    read_by = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    facts["command"] = shlex.join(["invsr", "reconstruct", str(path), "-o", output, *read_by, *moved])
    return facts, stored


def _of_grid(stored: Scan, scan: Scan) -> dict[str, Any]:
    from nibabel.orientations import aff2axcodes

    grid, axis = stored.grid, stored.through_plane
    given = scan.volume.slice_thickness is not None
    thickness = "unknown: isotropic voxels are taken as samples"
    if scan.thickness is not None:
        source = "header or sidecar" if given else "not stated: the spacing is taken"
        if scan.slice_thickness is not None:
            source = "not stated: estimated, slices look like samples"
        thickness = f"{scan.thickness:.4g} mm ({source})"
        if scan.thickness < scan.slice_spacing * 0.999:
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
    from invsr.inspection import partial_fourier_share
    from invsr.noise.estimation import WHITE, air_sigma, noise_colour
    from invsr.numerics.levels import peak
    from invsr.pipeline.slice_check import EXPECTED, slice_correlation
    from invsr.pipeline.thickness import width_seen

    axes = [n for n in (0, 1, 2) if n != scan.through_plane]
    measured = "x".join(str(scan.grid.shape[n]) for n in axes)
    pixels = "x".join(f"{scan.grid.spacing[n]:.3g}" for n in axes)
    filled = scan.grid.shape != stored.grid.shape
    shares = " and ".join(f"{stored.grid.shape[n] / scan.grid.shape[n]:.2f}" for n in axes)
    sigma, bright = scan.sigma(), peak(scan.data)
    correlation, seen = slice_correlation(scan), width_seen(scan)
    air = air_sigma(stored.data - scan.offset, axes, stored.used)
    partial = {n: share for n in axes if (share := partial_fourier_share(scan.data, n)) < 1}
    colour = noise_colour(scan.data, axes, scan.used)
    said = [note for note in scan.notes if "--faults" in note or "--motion" in note]
    faults = [note.split(": ", 1)[1].rsplit(" (--", 1)[0] for note in said]
    low, high = EXPECTED
    return {
        "thickness seen": "unknown: too little tissue, slices that differ by turns, or isotropic voxels"
        if seen is None
        else f"{seen.width:.3g} mm ({seen.low:.3g} to {seen.high:.3g}) in the data, as a {scan.slice_profile} profile",
        "measured matrix": f"{measured}, pixels of {pixels} mm" + (f"; zero-filled by {shares}" if filled else ""),
        "partial Fourier": " and ".join(f"{share:.2f} along {'ijk'[n]}" for n, share in partial.items())
        + ": power is half or less beyond"
        if partial
        else "none seen (completed from the phase it does not show)",
        "noise": f"standard deviation {sigma:.4g}, {sigma / bright:.2%} of bright tissue ({bright + scan.offset:.4g})",
        "noise correlation": "unknown"
        if colour is None
        else ("white" if max(colour) < WHITE else "correlated, filtered or interpolated")
        + f" (middle of the band over its end: {' and '.join(f'{one:.1f}' for one in colour)})",
        "air": "Rayleigh distributed: magnitudes of one complex image, Rician noise"
        if math.isfinite(air)
        else "says nothing of the noise (none, set to 0, or from several coils)",
        "neighbouring slices": "too few"
        if correlation is None
        else f"correlation of residuals {correlation:+.2f} (usual: {low:g} to {high:g})",
        "faults": faults or ["none found"],
    }
