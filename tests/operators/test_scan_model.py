"""Acquisition: where the samples of a scan lie in the volume, in world space."""

import numpy as np
import pytest
import torch
from small_grids import grid, noise, reoriented, rotated, shifted

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.numerics.axes import GAUSSIAN_FWHM
from invsr.operators import Resample, Sampling, acquisition
from invsr.operators.base import Composition

VOLUMES = {
    "even": rotated(grid((24, 20, 36))),
    "odd": rotated(grid((23, 21, 37), (1.0, 1.1, 0.9))),
    "upright": grid((24, 21, 36), (1.0, 1.1, 0.9)),
}
ORIENTATIONS = {
    "same": lambda g: g,
    "flipped": lambda g: reoriented(g, flips=(0, 2)),
    "permuted": lambda g: reoriented(g, (2, 0, 1)),
    "permuted and flipped": lambda g: reoriented(g, (1, 2, 0), (1,)),
}
RATIOS = {"whole": (1, 1, 4), "in plane too": (2, 2, 4), "not whole": (1.4, 1.3, 3.7), "finer": (0.5, 1, 4)}

every_geometry = pytest.mark.parametrize(
    ("volume", "ratios", "orientation"), [(v, r, o) for v in VOLUMES for r in RATIOS for o in ORIENTATIONS]
)


def laid(volume, ratios, orientation):
    """The volume's grid, and a scan's within it, along which slices are stacked by the last of the ratios."""
    fine = VOLUMES[volume]
    scan = fine.coarsen(fine.spacing * np.array(RATIOS[ratios]))
    return fine, ORIENTATIONS[orientation](scan)


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values))[None, None]


def whole_samples(scan, fine, reach):
    """Samples further than `reach` voxels of the volume from its faces."""
    at = fine.to_voxel(scan.points())
    return ((at >= reach - 0.5) & (at <= np.array(fine.shape) - 0.5 - reach)).all(-1)


# Positions ------------------------------------------------------------------------------------------


@every_geometry
@pytest.mark.parametrize("in_plane", ["gaussian", "none"])
def test_a_ramp_stays_where_it_is(volume, ratios, orientation, in_plane):
    fine, scan = laid(volume, ratios, orientation)
    slope = np.array([0.7, -1.3, 0.4])
    A = acquisition(scan, reference=fine, in_plane=in_plane, slice_profile="boxcar")
    y = A(tensor(fine.points() @ slope))[0, 0].numpy()
    inside = whole_samples(scan, fine, 4 if in_plane == "gaussian" else 2)
    assert inside.any()
    np.testing.assert_allclose(y[inside], (scan.points() @ slope)[inside], atol=1e-9)


@every_geometry
@pytest.mark.parametrize("in_plane", ["kspace", "gaussian", "none"])
def test_a_spot_stays_where_it_is(volume, ratios, orientation, in_plane):
    fine, scan = laid(volume, ratios, orientation)
    centre = fine.to_world((np.array(fine.shape) - 1) / 2 + [1.3, -0.8, 0.6])
    A = acquisition(scan, reference=fine, in_plane=in_plane)
    for width in (2.2, 3.1):  # smooth enough for the coarsest sampling of its centre of mass
        spot = np.exp(-0.5 * ((fine.points() - centre) ** 2).sum(-1) / width**2)
        y = A(tensor(spot))[0, 0].numpy()
        found = (y[..., None] * scan.points()).sum((0, 1, 2)) / y.sum()
        np.testing.assert_allclose(found, centre, atol=0.03)


@every_geometry
def test_a_wave_is_kept_by_truncation(volume, ratios, orientation):
    # One period over the field of view along the first axis of the volume.
    fine, scan = laid(volume, ratios, orientation)

    def wave(points):
        phase = (fine.to_voxel(points)[..., 0] + 0.5) / fine.shape[0]
        return np.cos(2 * np.pi * phase + 0.3)

    A = acquisition(scan, reference=fine, in_plane="kspace")
    kept = A._kinds[A.order.index(0)] in ("band", "identity")
    assert kept or ratios == "finer" or RATIOS[ratios][0] == 1
    y = A(tensor(wave(fine.points())))[0, 0].numpy()
    inside = whole_samples(scan, fine, 0 if kept else 2)
    np.testing.assert_allclose(y[inside], wave(scan.points())[inside], atol=1e-9 if kept else 2e-3)


@every_geometry
def test_an_impulse_is_seen_by_the_nearest_sample(volume, ratios, orientation):
    fine, scan = laid(volume, ratios, orientation)
    A = acquisition(scan, reference=fine, in_plane="none")
    for voxel in ([5, 6, 7], [12, 9, 15]):
        x = np.zeros(fine.shape)
        x[tuple(voxel)] = 1
        y = A(tensor(x))[0, 0].numpy()
        distance = np.abs(scan.to_voxel(fine.to_world(voxel)) - np.unravel_index(np.abs(y).argmax(), y.shape))
        assert np.all(distance <= np.maximum(0.5, 0.5 / np.array(scan.spacing)) + 1e-6)


def test_single_slice_and_single_voxels():
    fine = VOLUMES["odd"]
    middle = (np.array(fine.shape) - 1) / 2
    affine = fine.affine.copy()
    affine[:3, 3] = fine.to_world(middle + [0, 0, 0.3])
    affine[:3, 2] *= 5
    scan = Grid((1, 1, 1), affine)
    slope = np.array([0.7, -1.3, 0.4])
    for in_plane in ("kspace", "gaussian", "none"):
        A = acquisition(scan, reference=fine, in_plane=in_plane, through_plane=2)
        assert A(tensor(fine.points() @ slope)).item() == pytest.approx(scan.origin @ slope)
    flat = Grid((4, 4, 1), np.diag([1, 1, 5.0, 1]))
    A = acquisition(flat)  # one thick slice, five thin ones of which it is the mean
    assert A.domain.shape == (4, 4, 5)
    assert A(torch.ones(1, 1, 4, 4, 5)).flatten().tolist() == pytest.approx([1] * 16)


def test_orientation_does_not_change_the_values():
    fine = VOLUMES["odd"]
    scan = fine.coarsen(fine.spacing * [2, 1, 4])
    x = noise(1, 1, *fine.shape)
    expected = acquisition(scan, reference=fine)(x)
    turned = acquisition(reoriented(scan, (2, 0, 1), (0, 2)), reference=fine)(x)
    torch.testing.assert_close(turned, expected.permute(0, 1, 4, 2, 3).flip(2, 4))
    fine_turned = reoriented(fine, (1, 2, 0), (1,))
    turned = acquisition(scan, reference=fine_turned)(x.permute(0, 1, 3, 4, 2).flip(3))
    torch.testing.assert_close(turned, expected)


def test_a_flip_changes_no_boundary():
    fine = VOLUMES["even"]
    scan = fine.coarsen(fine.spacing * [1, 1, 4])
    turned = reoriented(scan, (1, 0, 2), (0, 1, 2))
    for one in (scan, turned):
        assert acquisition(one, reference=fine).boundary == ("neumann", "neumann", "neumann")
    x = noise(1, 1, *fine.shape)
    A, B = acquisition(scan, reference=fine), acquisition(turned, reference=fine)
    torch.testing.assert_close(A.solve(x, 0.1, "gradient").x, B.solve(x, 0.1, "gradient").x)
    assert B.solve(x, 0.1, "gradient").n_iter == 0


# Fields of view -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [None, 1.0, 0.8, (0.7, 1.0, 1.3)])
def test_targets_cover_the_scan_from_edge_to_edge(spacing):
    scan = rotated(grid((12, 11, 6), (1.0, 1.2, 4.1)))
    target = acquisition(scan, spacing).domain
    assert target.contains(scan.corners()).all()
    over = target.extent - scan.extent
    assert (over >= -1e-6).all() and (over < target.spacing).all()
    np.testing.assert_allclose(target.centre, scan.centre)
    wanted = scan.spacing.min() if spacing is None else spacing
    np.testing.assert_allclose(target.spacing, np.broadcast_to(wanted, 3))


def test_a_constant_stays_a_constant_up_to_the_faces():
    scan = rotated(grid((12, 11, 6), (1.0, 1.2, 4.1)))
    for options in ({}, {"slice_thickness": 6.0}, {"in_plane": "gaussian"}, {"slice_profile": "slr"}):
        A = acquisition(scan, 0.8, **options)
        y = A(torch.ones(1, 1, *A.domain.shape, dtype=torch.float64))
        torch.testing.assert_close(y, torch.ones_like(y))


def test_slices_outside_the_volume_are_not_seen():
    fine = VOLUMES["even"]
    scan = shifted(fine.coarsen(fine.spacing * [2, 2, 4]), (0, 0, 12))  # three of nine slices beyond the end
    A = acquisition(scan, reference=fine)
    y = A(noise(1, 1, *fine.shape))
    seen = y.abs().amax((0, 1, 2, 3)) > 0
    assert seen.tolist() == [True] * 6 + [False] * 3
    assert A.measured_coordinates(y).shape[-1] == 6
    torch.testing.assert_close(A.measured_coordinates(y), y[..., :6])
    assert float(A.adjoint(torch.ones_like(y) * (~seen)).abs().max()) == 0


def test_thickness_is_apart_from_spacing():
    fine = grid((4, 4, 40))
    scan = fine.coarsen((1, 1, 5))
    x = torch.zeros(1, 1, *fine.shape, dtype=torch.float64)
    x[..., 20:] = 1  # an edge on a face between slices
    blurred = []
    for thickness in (2, 5, 8):
        A = acquisition(scan, reference=fine, slice_thickness=thickness, slice_profile="boxcar")
        y = A(x)[0, 0, 1, 1]
        blurred.append(int(((y > 0.05) & (y < 0.95)).sum()))
    assert blurred == [0, 0, 2]


def test_defaults():
    scan = Grid((6, 5, 4), np.diag([1.0, 1.0, 4.0, 1.0]))
    A = acquisition(scan)
    assert isinstance(A, Sampling)
    assert A.domain == scan.isotropic()
    assert A.width.tolist() == [0, 0, 4]  # spacing, along the thickest voxels
    assert acquisition(scan, slice_thickness=3.0).width.tolist() == [0, 0, 3]
    assert acquisition(scan, through_plane=0).width.tolist() == [1, 0, 0]
    assert A.matrices()[0] is None and A.matrices()[1] is None
    assert not A.width.requires_grad


def test_point_samples_on_the_target_are_the_identity():
    scan = VOLUMES["odd"]
    A = acquisition(scan, reference=scan, slice_profile="none")
    assert A.matrices() == (None, None, None)


# Oblique --------------------------------------------------------------------------------------------


def blob(points, centre, width):
    return np.exp(-0.5 * ((points - centre) ** 2).sum(-1) / width**2)


def blurred_blob(points, centre, width, normal, thickness):
    """The blob under a Gaussian slice profile along `normal`."""
    sigma2 = (thickness / GAUSSIAN_FWHM) ** 2
    offset = points - centre
    through = offset @ normal
    across = (offset**2).sum(-1) - through**2
    return (
        width / np.sqrt(width**2 + sigma2) * np.exp(-0.5 * across / width**2 - 0.5 * through**2 / (width**2 + sigma2))
    )


@pytest.mark.parametrize(("degrees", "tolerance"), [(0, 2e-3), (7, 0.012), (33, 0.012)])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_blob_is_simulated_as_the_formula_says(degrees, tolerance, orientation):
    fine = rotated(grid((40, 38, 42)), 20)
    scan = rotated(fine.coarsen((1.0, 1.0, 4.0)), degrees, (1, 1, 0))
    scan = ORIENTATIONS[orientation](scan)
    A = acquisition(scan, reference=fine, slice_thickness=5.0)
    assert isinstance(A, Sampling if degrees == 0 else Composition)
    centre, width = fine.centre + [1.2, -0.7, 0.9], 5.0
    y = A(tensor(blob(fine.points(), centre, width)))[0, 0].numpy()
    normal = scan.directions[:, scan.through_plane]
    expected = blurred_blob(scan.points(), centre, width, normal, 5.0)
    inside = whole_samples(scan, fine, 4)
    assert np.abs(y - expected)[inside].max() < tolerance * expected.max()


def test_an_oblique_ramp_stays_where_it_is():
    fine = rotated(grid((24, 22, 26)), 20)
    scan = rotated(fine.coarsen((1.0, 1.0, 3.0)), 15, (1, 2, 0))
    A = acquisition(scan, reference=fine, slice_profile="boxcar")
    assert any(isinstance(part, Resample) for part in A.modules())
    slope = np.array([0.7, -1.3, 0.4])
    y = A(tensor(fine.points() @ slope))[0, 0].numpy()
    inside = whole_samples(scan, fine, 4)
    np.testing.assert_allclose(y[inside], (scan.points() @ slope)[inside], atol=1e-9)


def test_oblique_constants_and_slices_outside():
    fine = rotated(grid((24, 22, 26)), 20)
    scan = shifted(rotated(fine.coarsen((1.0, 1.0, 3.0)), 15, (1, 2, 0)), (0, 0, 12))
    A = acquisition(scan, reference=fine)
    y = A(torch.ones(1, 1, *fine.shape, dtype=torch.float64))
    seen = y > 0
    assert 0.2 < float(seen.double().mean()) < 0.8
    torch.testing.assert_close(y[seen], torch.ones_like(y[seen]))
    assert bool(torch.from_numpy(fine.contains(scan.points()))[seen[0, 0]].all())
    assert A.measured_coordinates(y).numel() == int(seen.sum())


def test_small_angles_stay_separable():
    fine = grid((24, 22, 26))
    tilted = rotated(fine.coarsen((1.0, 1.0, 3.0)), 0.05, (1, 2, 0))
    assert isinstance(acquisition(tilted, reference=fine), Sampling)


# Bad arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_plane": "sinc"}, "unknown in-plane model 'sinc'"),
        ({"through_plane": 3}, "through-plane axis 3"),
        ({"slice_thickness": 0}, "slice thickness 0.0 mm"),
        ({"slice_thickness": float("nan")}, "slice thickness nan mm"),
        ({"slice_profile": "triangle"}, "slice profile 'triangle'"),
        ({"spacing": -1.0}, "spacing"),
        ({"spacing": 1.0, "reference": grid((4, 4, 4))}, "not both"),
        ({"reference": grid((4, 4, 4), origin=(900, 0, 0))}, "does not overlap"),
    ],
)
def test_arguments_that_cannot_be_used(options, message):
    with pytest.raises(InvsrError, match=message):
        acquisition(grid((6, 5, 4), (1, 1, 4)), **options)


def test_sampling_says_what_it_takes():
    fine = grid((6, 6, 6))
    with pytest.raises(InvsrError, match="oblique to one another"):
        Sampling(fine, rotated(fine), ["none"] * 3)
    with pytest.raises(InvsrError, match="unknown sampling 'gaussian' of axis 1"):
        Sampling(fine, fine, ["none", "gaussian", "none"])


def test_rounded_headers_still_give_direct_data_steps():
    # Oblique, as converters write it: direction cosines in float32, 12 pixels of 0.75 mm against 9 of 1 mm.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.75, 0.75, 5.0]
    affine[:3, 3] = [124.53, -113.77, -75.76]
    scan = Grid((12, 12, 3), affine.astype(np.float32))
    A = acquisition(scan, 1.0)
    b = torch.randn((1, 1, *A.domain.shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solved = A.solve(b, 0.1, "gradient")
    assert solved.n_iter == 0
    torch.testing.assert_close(A.normal(solved.x, 0.1, "gradient"), b)


@pytest.mark.parametrize("thickness", [1.0, 3.0, 5.0])
def test_the_outermost_slices_of_a_moved_scan_see_the_volume_beyond_it(thickness):
    # A profile that is symmetric takes a ramp's value at the middle of the slice: cut off, it would lie further in.
    volume, scan = Grid.from_spacing((24, 24, 24), 1.0), Grid.from_spacing((6, 6, 4), (1.0, 1.0, 3.0))
    slope, turn = np.array([0.3, -0.7, 1.1]), np.array([0.02, 0.0, 0.0, 0.5, -1.0, 0.3])
    A = acquisition(scan, reference=volume, motion=turn, slice_thickness=thickness)
    found = A(torch.tensor(volume.points() @ slope)[None, None])[0, 0].numpy()
    c, s = np.cos(turn[0]), np.sin(turn[0])
    turned = scan.points() @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T + turn[3:]
    np.testing.assert_allclose(found, turned @ slope, atol=0.01)
