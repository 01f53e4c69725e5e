"""The main job on the example head: simulate a thick-slice scan, reconstruct it, score and draw the results."""

from __future__ import annotations

from pathlib import Path

from invsr.examples import INFARCT, example
from invsr.io.files import check_folder, check_writable, make_folder, whole_file
from invsr.io.nifti import save
from invsr.numerics.iteration import ProgressCallback, Steps
from invsr.pipeline.run import reconstruct
from invsr.report.plot import compare
from invsr.testing.metrics import evaluate, head_mask
from invsr.testing.simulation import simulate
from invsr.volume import Volume

# Methods, and the share of the time left that each takes.
METHODS = {"cubic": 0.03, "tv": 0.2, "unrolled": 1.0}
FIGURE = "comparison.png"


def run_demo(
    folder: Path,
    slice_thickness: float = 5.0,
    progress: ProgressCallback | None = None,
    truth: Volume | None = None,
) -> list[str]:
    """Write truth, scan, cubic, TV and unrolled volumes and a figure into `folder`; return lines with the scores.

    Parameters
    ----------
    folder : Path
    slice_thickness : float, mm
    progress : callable, optional
        As of `invsr.reconstruct`.
    truth : Volume, optional
        By default the example head, drawn in planes through its infarct.

    Raises
    ------
    InvsrError
        When the folder cannot be made or written to, or as `invsr.simulate`.
    """
    check_folder(folder)
    if folder.is_dir():
        for name in ("truth", "scan", *METHODS):
            check_writable(folder / f"{name}.nii.gz")
        check_writable(folder / FIGURE, (".png",))
    at = None
    if truth is None:
        truth = example()
        at = tuple(truth.grid.to_world(INFARCT))
    scan = simulate(truth, slice_thickness=slice_thickness, axis=2, noise=0.01)
    mask = head_mask(truth.numpy())
    volumes = {"truth": truth, "scan": scan}
    captions, lines = {"scan": f"{slice_thickness:g} mm slices, 1 % noise"}, []
    steps = Steps(progress)
    for method, share in METHODS.items():
        with steps.step(left=1 / share) as inner:
            solution = reconstruct(scan, method=method, reference=truth.grid, progress=inner)
        volumes[method] = truth.with_data(solution.x.cpu())
        scores = evaluate(volumes[method].numpy(), truth.numpy(), mask, quick=True)
        captions[method] = f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"
        lines.append(f"{method}: {captions[method]}")
    make_folder(folder)
    for name, volume in volumes.items():
        save(volume, folder / f"{name}.nii.gz")
    with whole_file(folder / FIGURE) as part:
        compare(volumes, at=at, captions=captions, side_by_side=True).savefig(part, dpi=100)
    return [*lines, f"volumes and {FIGURE} are in {folder}"]
