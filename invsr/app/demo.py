"""The main job on an anatomy that everybody has: simulate, reconstruct, score, draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.io.nifti import save
from invsr.numerics.iteration import ProgressCallback
from invsr.pipeline.run import reconstruct
from invsr.report.plot import compare
from invsr.testing.metrics import evaluate, head_mask
from invsr.testing.simulation import simulate
from invsr.volume import Volume


def template(crop: int | None = None) -> Volume:
    """The 1 mm MNI152 T1 template from nilearn's package (no download), 197 x 233 x 189 voxels.

    Parameters
    ----------
    crop : int, optional
        Side of the cube in its middle, instead of all of it, in voxels.

    Raises
    ------
    InvsrError
        When nilearn is not installed.

    References
    ----------
    Fonov, Evans, Botteron, Almli, McKinstry, Collins (2011), NeuroImage 54, 313-327.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as error:
        raise InvsrError('the demo needs the MNI152 template in nilearn: pip install "invsr[examples]"') from error
    image = load_mni152_template(resolution=1)
    data = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32).copy())
    grid = Grid(data.shape, image.affine)
    if crop is not None:
        first = [max(0, (n - crop) // 2) for n in grid.shape]
        i, j, k = (slice(a, a + crop) for a in first)
        data, affine = data[i, j, k].contiguous(), grid.affine.copy()
        affine[:3, 3] = grid.to_world(first)
        grid = Grid(data.shape, affine)
    return Volume(data[None, None], grid, "MNI152_T1_1mm.nii.gz", form_code=4)


def run_demo(folder: Path, slice_thickness: float = 5.0, progress: ProgressCallback | None = None) -> list[str]:
    """Write truth, scan, cubic, TV and unrolled volumes and a figure into `folder`; return lines with the scores.

    Raises
    ------
    InvsrError
        When nilearn is missing or the folder cannot be made.
    """
    truth = template()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvsrError(f"{folder}: cannot be made a folder ({error.strerror}): choose another with --out") from error
    scan = simulate(truth, slice_thickness=slice_thickness, axis=2, noise=0.01)
    mask = head_mask(truth.numpy())
    volumes = {"truth": truth, "scan": scan}
    captions, lines = {"scan": f"{slice_thickness:g} mm slices, 1 % noise"}, []
    for method in ("cubic", "tv", "unrolled"):
        solution = reconstruct(scan, method=method, reference=truth.grid, progress=progress)
        volumes[method] = truth.with_data(solution.x.cpu())
        scores = evaluate(volumes[method].numpy(), truth.numpy(), mask, quick=True)
        captions[method] = f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"
        lines.append(f"{method}: {captions[method]}")
    for name, volume in volumes.items():
        save(volume, folder / f"{name}.nii.gz")
    compare(volumes, captions=captions).savefig(folder / "comparison.png", dpi=130)
    return [*lines, f"volumes and comparison.png are in {folder}"]
