"""Images for tests of the command line, and what a refusal looks like."""

import nibabel as nib
import numpy as np

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


def image(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def noise_image(path, affine=AFFINE, shape=(12, 10, 6)):
    return image(path, np.random.default_rng(0).random(shape), affine)


def misplaced(path, of):
    """A copy of an image whose qform is right and whose sform lies 7 mm beside it."""
    volume = nib.load(of)
    sform = volume.affine.copy()
    sform[0, 3] += 7
    volume.set_qform(volume.affine, 1)
    volume.set_sform(sform, 1)
    nib.save(volume, path)
    return path


def refused(result, out, *words):
    """Exit code not 0, one line on standard error with these words, no output file and nothing beside it."""
    code, _, err = result
    assert code != 0
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("invsr: error: ")
    for word in words:
        assert word in lines[0], lines[0]
    assert not out.exists()
    if out.parent.is_dir():
        assert not list(out.parent.glob(".invsr*"))
