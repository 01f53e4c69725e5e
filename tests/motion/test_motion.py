"""Motion of scans and slices: found again where it was put in, kept in files, refused where it makes no sense."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import SIDE, known, scan_of
from scipy.spatial.transform import Rotation

import invsr
from invsr import Grid
from invsr.errors import InvsrError
from invsr.motion import Motion, ScanMotion, load_motion, save_motion
from invsr.motion.align import align, composed, fit, slopes_of
from invsr.pipeline.run import register


def rigid(degrees, mm):
    return torch.tensor([*np.radians(degrees), *mm], dtype=torch.float64)


def off(found, true):
    """Largest error, degrees or mm."""
    error = torch.as_tensor(found) - torch.as_tensor(true)
    return float(torch.cat([torch.rad2deg(error[..., :3]), error[..., 3:]], -1).abs().max())


def test_a_scan_is_found_against_the_truth(truth):
    motion = rigid([3, -2, 4], [2.0, -3.0, 1.0])
    scan = known(scan_of(truth, motion=motion.expand(10, 6), gain=1.3), truth)
    found = align(truth.data, truth.grid, scan, each_slice=False, n_iter=20)
    assert off(found.motion, motion) < 0.1
    assert found.gain == pytest.approx(1.3, rel=0.02)
    assert found.correlation > 0.99


def test_slices_are_found_against_the_truth(truth):
    generator = torch.Generator().manual_seed(3)
    motion = torch.randn(10, 6, generator=generator, dtype=torch.float64) * rigid([1.5] * 3, [1.0] * 3)
    scan = known(scan_of(truth, motion=motion), truth)
    found = align(truth.data, truth.grid, scan, each_slice=True, n_iter=20)
    assert off(found.motion[1:-1], motion[1:-1]) < 0.6  # degrees, of a head of 36 mm


def test_slope_of_the_cost_is_its_derivative(truth):
    """Against differences of the cost; the lever arm of rotations is taken in the slice's middle, hence the tolerance.

    Without the outermost slices, pixels of which come into the field of view and leave it.
    """
    scan = known(scan_of(truth, motion=rigid([1, 1, 1], [0.5] * 3).expand(10, 6)), truth)
    here = fit(truth.data, truth.grid, scan)
    for n, size in enumerate([1e-3] * 3 + [1e-2] * 3):
        step = torch.zeros(1, 6, dtype=torch.float64)
        step[0, n] = size
        costs = [
            fit(truth.data, truth.grid, replace(scan, motion=composed(s * step, scan.motion)), here.residual_sd).cost
            for s in (1, -1)
        ]
        numeric = ((costs[0] - costs[1]) / (2 * size))[2:-2]
        # The curvature is that of half the cost; its slope points downhill.
        analytic = -2 * here.slope[2:-2, n]
        assert float((analytic - numeric).abs().max()) < 0.35 * float(numeric.abs().max())


def test_along_a_single_voxel_there_is_no_slope():
    ramp = torch.arange(5.0)[None, None, None, :, None].expand(1, 1, 1, 5, 2)
    slopes = slopes_of(ramp, Grid.from_spacing((1, 5, 2), (1.0, 2.0, 3.0)))
    torch.testing.assert_close(slopes, torch.tensor([0, 0.5, 0])[None, :, None, None, None].expand(1, 3, 1, 5, 2))


def test_composed_is_one_after_the_other():
    a, b = rigid([10, 20, -5], [1, 2, 3]), rigid([-7, 3, 12], [-4, 0, 2])
    point = np.array([3.0, -2.0, 5.0])
    after = lambda m, p: Rotation.from_rotvec(np.asarray(m)[:3]).apply(p) + np.asarray(m)[3:]  # noqa: E731
    np.testing.assert_allclose(after(composed(b[None], a[None])[0], point), after(b, after(a, point)))


def test_stacks_are_aligned_to_each_other(truth):
    moves = [torch.zeros(6, dtype=torch.float64), rigid([2, -3, 1], [1, 2, -2]), rigid([-1, 2, 3], [-2, 1, 1])]
    scans = [
        scan_of(truth, axis, move.expand(10, 6), gain, seed=axis)
        for axis, move, gain in zip((2, 1, 0), moves, (1.0, 0.8, 1.2), strict=True)
    ]
    found = register(scans, motion="stack")
    for one, move, gain in zip(found.scans, moves, (1.0, 0.8, 1.2), strict=True):
        assert off(one.of_scan, move) < 0.4  # degrees of a head of 36 mm: 0.1 mm at its surface
        assert one.gain == pytest.approx(gain, rel=0.03)
    still = invsr.reconstruct(scans, method="tv", reference=truth.grid)
    moved = invsr.reconstruct(scans, method="tv", reference=truth.grid, motion=found)
    inner = (..., *[slice(6, -6)] * 3)
    error = [float((one.x - truth.data)[inner].square().mean()) for one in (still, moved)]
    assert error[1] < 0.2 * error[0]


def test_slices_move_and_a_bad_one_is_left_out(truth):
    generator = torch.Generator().manual_seed(5)
    scans = []
    for axis in (2, 1, 0):
        motion = torch.randn(10, 6, generator=generator, dtype=torch.float64) * rigid([0.7] * 3, [0.7] * 3)
        scans.append(scan_of(truth, axis, motion, seed=axis))
    dark = scans[1].data.clone()
    dark[:, :, :, 5] *= 0.3
    scans[1] = scans[1].with_data(dark)
    found = register(scans, motion="slice")
    assert found.scans[1].rejected == [5]
    assert found.scans[0].rejected == found.scans[2].rejected == []
    assert found.scans[0].gain == 1
    assert [one.gain for one in found.scans[1:]] == pytest.approx([1.0, 1.0], abs=0.05)
    solution = invsr.reconstruct(scans, method="tv", reference=truth.grid, motion=found)
    still = invsr.reconstruct(scans, method="tv", reference=truth.grid)
    inner = (..., *[slice(6, -6)] * 3)
    error = [float((one.x - truth.data)[inner].square().mean()) for one in (still, solution)]
    assert error[1] < 0.5 * error[0]


# Files ----------------------------------------------------------------------------------------------


def some_motion():
    grid = Grid((8, 9, 4), np.diag([1.0, 1.0, 4.0, 1.0]))
    rng = np.random.default_rng(0)
    each = rng.normal(size=(4, 6))
    whole = np.tile(rng.normal(size=6), (4, 1))
    return Motion(
        np.array([1.0, 2.0, 3.0]),
        (
            ScanMotion("a", grid, each, np.array([1.0, 0.0, 1.0, 1.0]), 1.1),
            ScanMotion("b", grid, whole, np.ones(4)),
        ),
    )


def test_what_is_saved_is_loaded(tmp_path):
    motion = some_motion()
    paths = save_motion(motion, tmp_path / "m.json")
    assert [p.name for p in paths] == ["m.json", "m-1.tfm", "m-2.tfm"]
    found = load_motion(tmp_path / "m.json")
    np.testing.assert_array_equal(found.centre, motion.centre)
    for a, b in zip(found.scans, motion.scans, strict=True):
        assert (a.name, a.grid, a.gain, a.rejected) == (b.name, b.grid, b.gain, b.rejected)
        np.testing.assert_array_equal(a.motion, b.motion)
    assert found.scans[0].of_scan is None and found.scans[1].of_scan is not None


def test_itk_files_move_points_as_itk_reads_them(tmp_path):
    """The format's definition (ITK Software Guide, VersorRigid3DTransform): x' = R (x - c) + c + t, in LPS."""
    motion = some_motion()
    save_motion(motion, tmp_path / "m.json")
    text = (tmp_path / "m-1.tfm").read_text()
    assert text.count("VersorRigid3DTransform_double_3_3") == 4
    assert (tmp_path / "m-2.tfm").read_text().count("VersorRigid3DTransform_double_3_3") == 1
    rows = [line.split(": ")[1].split() for line in text.splitlines() if line.startswith("Parameters")]
    fixed = next(line for line in text.splitlines() if line.startswith("Fixed"))
    centre = np.array(fixed.split(": ")[1].split(), float)
    point, flip = np.array([10.0, -20.0, 5.0]), np.array([-1.0, -1.0, 1.0])
    for row, expected in zip(rows, motion.scans[0].motion, strict=True):
        versor, shift = np.array(row[:3], float), np.array(row[3:], float)
        turn = Rotation.from_quat([*versor, np.sqrt(1 - versor @ versor)])
        found = turn.apply(point * flip - centre) + centre + shift
        there = Rotation.from_rotvec(expected[:3]).apply(point - motion.centre) + motion.centre + expected[3:]
        np.testing.assert_allclose(found * flip, there, atol=1e-9)


@pytest.mark.parametrize(
    "key, value",
    [
        ("gain", 0),
        ("gain", math.inf),
        ("weights", [math.nan] * 4),
        ("weights", [-1.0] * 4),
        ("bias", [math.inf] * 9),
        ("shape", [8, 7, math.inf]),
        ("shape", ["a", 7, 4]),
        ("shape", None),
        ("centre", [0, math.nan, 0]),
    ],
)
def test_motion_that_cannot_be_is_refused(tmp_path, key, value):
    path = tmp_path / "m.json"
    save_motion(some_motion(), path)
    record = json.loads(path.read_text())
    (record if key == "centre" else record["scans"][0])[key] = value
    path.write_text(json.dumps(record))
    with pytest.raises(InvsrError, match="m.json: holds no motion"):
        load_motion(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "invsr motion", "scans": [{"name": "a"}]}']
)
def test_files_without_motion_are_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InvsrError, match="holds no motion"):
        load_motion(tmp_path / "m.json")


def test_a_missing_file_and_a_wrong_shape(tmp_path):
    with pytest.raises(InvsrError, match="no such file"):
        load_motion(tmp_path / "m.json")
    save_motion(some_motion(), tmp_path / "m.json")
    record = json.loads((tmp_path / "m.json").read_text())
    record["scans"][0]["motion"].pop()
    (tmp_path / "m.json").write_text(json.dumps(record))
    with pytest.raises(InvsrError, match=r"motion of shape \(3, 6\)"):
        load_motion(tmp_path / "m.json")


# What makes no sense --------------------------------------------------------------------------------


def test_motion_of_other_scans_is_refused(truth):
    scans = [scan_of(truth, 2), scan_of(truth, 1)]
    with pytest.raises(InvsrError, match="lies on .* the motion belongs to a on"):
        invsr.reconstruct(scans, method="tv", motion=some_motion())
    with pytest.raises(InvsrError, match="motion of 2 scans for 1"):
        invsr.reconstruct(scans[:1], method="tv", motion=some_motion())


def test_levels(truth):
    scans = [scan_of(truth, 2), scan_of(truth, 1)]
    with pytest.raises(InvsrError, match="unknown motion 'voxel'"):
        invsr.reconstruct(scans, motion="voxel")
    with pytest.raises(InvsrError, match="unknown motion 'none': use stack or slice"):
        register(scans, motion="none")
    with pytest.raises(InvsrError, match="1 scan: motion is found between scans"):
        register(scans[:1])
    with pytest.raises(InvsrError, match="give at least two scans"):
        invsr.reconstruct(scans[0], motion="slice")


def test_another_contrast_is_told(truth):
    first, second = scan_of(truth, 2), scan_of(truth, 1)
    noise = torch.rand(second.data.shape, generator=torch.Generator().manual_seed(1))
    with pytest.warns(invsr.InvsrWarning, match=r"stack 1: correlates with the other scans by .* another contrast"):
        invsr.reconstruct([first, second.with_data(noise)], method="cubic")


def test_target_covers_all_fields_of_view_or_all_masks(truth):
    first, second = scan_of(truth, 2), scan_of(truth, 1)
    # The first sees less along x.
    first = first.with_data(first.data[:, :, 6:], Grid((SIDE - 6, *first.grid.shape[1:]), _from(first.grid, (6, 0, 0))))
    solution = invsr.reconstruct([first, second], method="cubic")
    assert solution.grid.contains(first.grid.corners()).all() and solution.grid.contains(second.grid.corners()).all()
    offset = truth.grid.to_voxel(solution.grid.origin)
    np.testing.assert_allclose(offset, offset.round(), atol=1e-6)
    masks = []
    for scan in (first, second):
        near = np.linalg.norm(scan.grid.points() - truth.grid.centre, axis=-1) < 8
        inside = torch.from_numpy(near.astype(np.float32))[None, None]
        masks.append(scan.with_data(inside))
    masked = invsr.reconstruct([first, second], method="tv", masks=masks)
    assert masked.grid.size < 0.8 * solution.grid.size
    # Where nothing was measured nothing is said.
    assert float(masked.x[0, 0, 0].abs().max()) == 0.0 and float(masked.x.abs().max()) > 0.1


def _from(grid, first):
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(first)
    return affine
