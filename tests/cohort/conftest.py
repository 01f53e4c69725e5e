"""A small BIDS dataset with the oddities of real ones."""

import json

import numpy as np
import pytest
from small_dataset import SAGITTAL, describe, write_scan


@pytest.fixture
def dataset(tmp_path):
    """Two sessions, two stacks of one contrast, another contrast, and a file that is cut short."""
    root = tmp_path / "raw"
    describe(root)
    (root / "T2w.json").write_text(json.dumps({"SliceThickness": 3.5}))
    for session in ("1", "2"):
        write_scan(root, f"sub-01/ses-{session}/anat/sub-01_ses-{session}_T2w.nii.gz", seed=int(session))
    write_scan(root, "sub-02/anat/sub-02_acq-ax_FLAIR.nii.gz", SliceThickness=4)
    write_scan(root, "sub-02/anat/sub-02_acq-sag_FLAIR.nii.gz", SAGITTAL, (4, 16, 16), seed=1)
    write_scan(root, "sub-02/anat/sub-02_T1w.nii.gz", np.eye(4), (16, 16, 16))
    damaged = write_scan(root, "sub-03/anat/sub-03_T2w.nii.gz")
    damaged.write_bytes(damaged.read_bytes()[:700])
    return root
