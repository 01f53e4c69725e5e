"""FreeSurfer's files are read as NIfTI files are."""

import nibabel as nib
import numpy as np
import pytest

import invsr
from invsr.errors import InvsrError, InvsrWarning

AFFINE = np.array([[-1.0, 0, 0, 20], [0, 0, 5.0, -10], [0, -1.0, 0, 30], [0, 0, 0, 1]])


def write(path, shape=(6, 7, 5), fill=None):
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    if fill is not None:
        data[0, 0, 0] = fill
    nib.save(nib.freesurfer.MGHImage(data, AFFINE), path)
    return data


@pytest.mark.parametrize("ending", [".mgz", ".mgh"])
def test_voxels_and_places_are_kept(tmp_path, ending):
    data = write(tmp_path / f"orig{ending}")
    volume = invsr.load(tmp_path / f"orig{ending}")
    np.testing.assert_array_equal(volume.numpy(), data)
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-5)
    assert volume.name == f"orig{ending}"


def test_series_and_bad_files_have_their_errors(tmp_path):
    data = write(tmp_path / "four.mgz", (6, 7, 5, 3))
    np.testing.assert_array_equal(invsr.load(tmp_path / "four.mgz", 2).numpy(), data[..., 2])
    with pytest.raises(InvsrError, match="holds 3 volumes"):
        invsr.load(tmp_path / "four.mgz")
    with pytest.raises(InvsrError, match="missing.mgz: cannot be opened"):
        invsr.load(tmp_path / "missing.mgz")
    (tmp_path / "cut.mgz").write_bytes((tmp_path / "four.mgz").read_bytes()[:300])
    with pytest.raises(InvsrError, match="cut.mgz: is damaged or cut short"):
        invsr.load(tmp_path / "cut.mgz")
    write(tmp_path / "nan.mgz", fill=np.nan)
    with pytest.warns(InvsrWarning, match="nan.mgz: 1 NaN and 0 infinite of 210 voxels replaced by 0"):
        volume = invsr.load(tmp_path / "nan.mgz")
    assert volume.data.isfinite().all() and volume.data.any()
