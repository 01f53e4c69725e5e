"""Contrasts on the grids of their own scans, where their headers put them."""

import numpy as np
import pytest
import torch

import invsr
from invsr.errors import InvsrError
from invsr.examples import crop, example
from invsr.motion import Motion, ScanMotion
from invsr.operators.transforms import rigid_matrices
from invsr.pipeline.contrasts import reconstruct_contrasts
from invsr.pipeline.joint import JointTV
from invsr.pipeline.own_grid import on_own_grid
from invsr.testing.metrics import evaluate

# Rotation vector, radians, and translation, mm, that take the second scan to the volume.
MOTION = np.array([0.06, -0.08, 0.05, 2.0, -1.5, 3.0])


@pytest.fixture(scope="module")
def truth():
    return crop(example(), 40)


@pytest.fixture(scope="module")
def scans(truth):
    return two_scans(truth)


def two_scans(truth):
    """Two contrasts; the header of the second one is wrong by a known motion."""
    other = truth.with_data(truth.data.max() - truth.data)
    first, second = (
        invsr.simulate(one, slice_thickness=4.0, axis=axis, noise=0.01, seed=axis)
        for one, axis in ((truth, 2), (other, 0))
    )
    back = np.linalg.inv(rigid_matrices(torch.from_numpy(MOTION), torch.from_numpy(truth.grid.centre)).numpy())
    return first, second.with_data(second.data, invsr.Grid(second.grid.shape, back @ second.grid.affine))


def together(scans, truth):
    still, moved = (
        ScanMotion(one.name, one.grid, np.zeros((one.grid.shape[axis], 6)), np.ones(one.grid.shape[axis]))
        for one, axis in zip(scans, (2, 0), strict=True)
    )
    moved.motion[:] = MOTION
    motion = Motion(truth.grid.centre, (still, moved))
    return reconstruct_contrasts(scans, method=JointTV(), reference=truth.grid, motion=motion)


def test_a_moved_contrast_lies_where_its_header_says(truth, scans):
    """As the truth does there; as near to the data as on the common grid, by an exact operator."""
    result = together(scans, truth)[1]
    own = on_own_grid(result)
    assert own.motion is None and own.grid == scans[1].grid.isotropic() and own.grid != result.grid
    assert own.volume.name == scans[1].name
    assert own.chi2 == pytest.approx(result.chi2, rel=0.1) and own.gain == pytest.approx(1, abs=0.01)
    # The grid of the scan is that of the truth, moved: on it the truth has the values that it has on its own.
    other = (truth.data.max() - truth.data)[0, 0].numpy()
    inner = (slice(4, -4),) * 3
    found, common = (one.x[0, 0].numpy()[inner] for one in (own, result))
    scores = [evaluate(one, other[inner], quick=True)["psnr"] for one in (found, common)]
    assert scores[0] > scores[1] - 0.5


def test_a_still_contrast_stays_as_it_is(truth, scans):
    result = together(scans, truth)[0]
    own = on_own_grid(result)
    assert own.grid == truth.grid
    torch.testing.assert_close(own.x, result.x, rtol=0, atol=0.02 * float(result.x.max()))


def test_stacks_of_a_contrast_keep_their_motion_against_each_other():
    truth = crop(example(), 24)  # the motion is given, whatever the anatomy
    scans = two_scans(truth)
    third = invsr.simulate(truth, slice_thickness=4.0, axis=1, noise=0.01, seed=5)
    motion = Motion(
        truth.grid.centre,
        tuple(
            ScanMotion(one.name, one.grid, np.tile(vector, (6, 1)), np.ones(6))
            for one, vector in ((scans[0], MOTION), (scans[1], MOTION), (third, 0 * MOTION))
        ),
    )
    result = reconstruct_contrasts(
        [scans[0], scans[1], third], ["t1", "t2", "t1"], method=JointTV(max_iter=1), reference=truth.grid, motion=motion
    )[0]
    own = on_own_grid(result)
    first, second = own.motion.scans
    assert first.still
    matrices = [
        rigid_matrices(torch.from_numpy(one), torch.from_numpy(truth.grid.centre)) for one in (MOTION, second.motion[0])
    ]
    np.testing.assert_allclose(matrices[0] @ matrices[1], np.eye(4), atol=1e-9)


def test_slices_that_moved_one_by_one_have_no_own_grid(truth, scans):
    result = invsr.reconstruct(
        scans[0],
        method="cubic",
        reference=truth.grid,
        motion=Motion(
            truth.grid.centre,
            (ScanMotion(scans[0].name, scans[0].grid, np.arange(60.0).reshape(10, 6) * 1e-3, np.ones(10)),),
        ),
    )
    with pytest.raises(InvsrError, match="moved one by one have no grid of their own"):
        on_own_grid(result)
