"""Small BIDS datasets, and the jobs in them."""

import json

import nibabel as nib
import numpy as np

from invsr.cohort.dataset import Selection, find_scans
from invsr.cohort.jobs import STACKS, jobs_of

THICK = np.diag([1.0, 1.0, 4.0, 1.0])
SAGITTAL = np.diag([4.0, 1.0, 1.0, 1.0])


def write_scan(root, relative, affine=THICK, shape=(16, 16, 4), seed=0, **sidecar):
    """A scan of a bright cube with texture, and its sidecar."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    centres = [np.abs(np.linspace(-1, 1, n)) for n in shape[:3]]
    inside = np.max(np.stack(np.meshgrid(*centres, indexing="ij")), 0) < 0.8
    data = np.random.default_rng(seed).normal(20, 2, shape) + 100 * inside.reshape(
        *inside.shape, *(1,) * (len(shape) - 3)
    )
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    if sidecar:
        path.with_name(path.name.split(".nii")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def describe(root):
    """Make a folder a BIDS dataset."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "test", "BIDSVersion": "1.10.0"}))
    (root / "README").write_text("Simulated scans, for tests.\n")


def jobs_in(root, combine=STACKS, **selection):
    """The jobs of a dataset by name."""
    return {job.name: job for job in jobs_of(find_scans(root, Selection(**selection)), combine)}
