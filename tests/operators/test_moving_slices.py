"""Slices that move: where they lie, and what they average."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_grids import grid, noise, reoriented, rotated

from invsr.errors import InvsrError
from invsr.operators import Rigid, Slices, acquisition

VOLUME = rotated(grid((20, 22, 24)), 12)
SCANS = {
    "thick": VOLUME.coarsen((1, 1, 4)),
    "permuted and flipped": reoriented(VOLUME.coarsen((1, 4, 1)), (1, 2, 0), (0, 2)),
    "oblique": rotated(VOLUME.coarsen((1, 1, 4)), 20, (3, 1, 0)),
    "large pixels": VOLUME.coarsen((2, 2, 4)),
}


def ramp(g, direction=(0.3, -0.5, 0.8)):
    return torch.from_numpy(g.points() @ np.array(direction))[None, None]


@pytest.mark.parametrize("profile", ["gaussian", "boxcar", "slr"])
def test_slices_that_stay_are_the_thick_scan(profile):
    g = grid((12, 12, 48))
    z = torch.arange(48.0, dtype=torch.float64)
    x = torch.sin(z / 5.0).expand(1, 1, 12, 12, 48)
    scan = g.coarsen((1, 1, 4))
    still = acquisition(scan, reference=g, slice_profile=profile, motion=torch.zeros(12, 6))
    separable = acquisition(scan, reference=g, slice_profile=profile)
    # Linear interpolation between planes of the volume blurs by up to h^2 / 6; at the ends rows lose their tails.
    assert float((still(x) - separable(x))[..., 2:-2].abs().max()) < 0.01


@pytest.mark.parametrize("name", SCANS)
def test_a_ramp_is_read_where_each_slice_went(name):
    scan = SCANS[name]
    n = scan.shape[scan.through_plane]
    motion = torch.cat([0.05 * noise(n, 3, seed=1), 0.5 * noise(n, 3, seed=2)], 1)
    A = acquisition(scan, reference=VOLUME, motion=motion, in_plane="none")
    y = A(ramp(VOLUME))[0, 0]
    points = np.moveaxis(scan.points(), scan.through_plane, 0)
    moved = [
        Rotation.from_rotvec(m[:3]).apply(p.reshape(-1, 3) - scan.centre).reshape(p.shape) + scan.centre + m[3:]
        for m, p in zip(motion.numpy(), points, strict=True)
    ]
    expected = np.stack(moved) @ np.array([0.3, -0.5, 0.8])
    found = y.movedim(scan.through_plane, 0).numpy()
    # Where the whole profile, twice its width either way, lies between voxel centres.
    inner = np.abs(np.stack([VOLUME.to_voxel(p) for p in moved]) - (np.array(VOLUME.shape) - 1) / 2)
    inside = (inner < (np.array(VOLUME.shape) - 1) / 2 - 8.5).all(-1)
    assert inside.sum() >= 4
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-9)


def test_a_constant_stays_constant_and_what_is_not_seen_is_zero():
    scan = rotated(VOLUME.coarsen((1, 1, 4)), 20)
    seen = acquisition(scan, reference=VOLUME, motion=0.2 * noise(6, 6))(torch.ones(1, 1, *VOLUME.shape).double())
    assert set(np.round(seen.unique().numpy(), 12)) == {0.0, 1.0}


@pytest.mark.parametrize("each_slice", [False, True])
def test_the_field_of_view_ends_at_its_faces(each_slice):
    """Upsampled voxels lie on the faces and reach beyond them; samples there see nothing all the same."""
    volume = grid((12, 12, 12))
    motion = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.6])  # the last slice's middle is 0.1 mm past the last face
    motion = motion.expand(12, 6) if each_slice else motion
    A = acquisition(volume, reference=volume, motion=motion, slice_profile="none", through_plane=2)
    seen = A(torch.ones(1, 1, *volume.shape).double())[0, 0, 6, 6]
    np.testing.assert_allclose(seen.numpy(), [1.0] * 11 + [0.0], atol=1e-9)


def test_one_motion_for_all_is_the_moved_scan():
    scan = SCANS["oblique"]
    motion = torch.tensor([0.1, -0.05, 0.08, 1.0, -2.0, 0.5], dtype=torch.float64)
    x = torch.from_numpy(np.cos(VOLUME.points() @ np.array([0.2, 0.1, 0.15])))[None, None]
    whole = acquisition(scan, reference=VOLUME, motion=motion)
    each = acquisition(scan, reference=VOLUME, motion=motion.expand(scan.shape[2], 6))
    # The one interpolates twice (linear, then Keys), the other once; towards the faces they leave out other tails.
    assert float((whole(x) - each(x))[0, 0, 5:-5, 5:-5, 2:-2].abs().max()) < 0.02


def test_centre_of_rotation():
    centre = VOLUME.centre + 5.0
    motion = torch.tensor([0.0, 0.0, 0.2, 1.0, 0.0, 0.0], dtype=torch.float64)
    A = Slices(VOLUME, SCANS["thick"], _profile(), motion.expand(6, 6), centre=centre)
    torch.testing.assert_close(A.matrices()[3], Rigid(motion, centre).matrix())


def _profile():
    from invsr.operators.profiles import AxisProfile, profile_samples

    return AxisProfile(*profile_samples("gaussian"), 4.0)


@pytest.mark.parametrize("motion", [torch.zeros(5, 6), torch.zeros(6, 5), torch.full((6, 6), torch.nan)])
def test_motion_that_does_not_fit(motion):
    with pytest.raises(InvsrError, match="for 6 slices: give six finite numbers for each"):
        acquisition(SCANS["thick"], reference=VOLUME, motion=motion)


@pytest.mark.parametrize("name", SCANS)
def test_often_used_slices_become_matrices_of_the_same_numbers(name):
    scan = SCANS[name]
    n = scan.shape[scan.through_plane]
    A = acquisition(scan, reference=VOLUME, motion=0.1 * noise(n, 6))
    part = next(one for one in A.modules() if isinstance(one, Slices))
    x, y = noise(1, 2, *part.domain.shape), noise(1, 2, *part.range.shape)
    before = part(x), part.adjoint(y)
    assert not part._matrix_cache.made
    for _ in range(10):
        after = part(x), part.adjoint(y)
    assert part._matrix_cache.made
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    # Other motion, other matrices.
    with torch.no_grad():
        part.motion.mul_(-1)
    assert float((part(x) - after[0]).abs().max()) > 0.1
