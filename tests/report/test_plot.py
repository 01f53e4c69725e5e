"""Pictures: sides, sizes and slices where they belong."""

import numpy as np
import pytest
import torch

import invsr
from invsr.grid import Grid
from invsr.motion import Motion, ScanMotion
from invsr.operators.scan_model import slice_profile_of
from invsr.report.plot import (
    bright_centre,
    compare,
    convergence,
    motion,
    orthoviews,
    power_along,
    profile,
    slice_chi2,
    spectrum,
)


def images(figure):
    """The drawn arrays, row by row."""
    panels = [axes for axes in figure.axes if axes.images]
    return [np.asarray(axes.images[0].get_array()) for axes in panels], panels


@pytest.mark.parametrize("flip", [1, -1])
def test_sides_are_the_patients_not_the_arrays(flip):
    # Bright at the right, front and top of the patient, whichever way the array runs.
    affine = np.diag([flip * 1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 0 if flip > 0 else 19
    grid = Grid((20, 16, 8), affine)
    data = torch.from_numpy((grid.points() / np.array([19, 15, 14])).astype(np.float32))
    for axis, (sagittal, coronal, axial) in enumerate(
        [(None, "left", "left"), ("right", None, "top"), ("top", "top", None)]
    ):
        volume = invsr.Volume(data[..., axis].contiguous()[None, None], grid)
        found, panels = images(compare({"one": volume}))
        for image, side in zip(found, (sagittal, coronal, axial), strict=True):
            brightest = {
                None: None,
                "left": image[:, 0].mean() > image[:, -1].mean() + 0.5,
                "right": image[:, -1].mean() > image[:, 0].mean() + 0.5,
                "top": image[0].mean() > image[-1].mean() + 0.5,
            }[side]
            assert brightest is not False
        labels = [{text.get_text(): text.get_position()[0] for text in panel.texts} for panel in panels]
        assert labels[0]["P"] < labels[0]["A"] and labels[1]["R"] < labels[1]["L"] and labels[2]["R"] < labels[2]["L"]


def test_aspect_is_that_of_the_body_and_thick_slices_look_thick():
    grid = Grid((30, 20, 4), np.diag([1.0, 1.0, 5.0, 1.0]))
    volume = invsr.Volume(torch.rand(1, 1, 30, 20, 4), grid)
    (sagittal, coronal, axial), _ = images(compare({"one": volume}))
    assert sagittal.shape == (40, 40) and coronal.shape == (40, 60) and axial.shape == (40, 60)
    assert all((block == block[0]).all() for block in np.split(coronal, 4))  # 5 mm slices, 0.5 mm picture


def test_cuts_go_through_the_bright_part():
    data = torch.zeros(1, 1, 10, 10, 10)
    data[..., 6:9, 1:3, 4] = 1.0
    grid = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(bright_centre(invsr.Volume(data, grid)), [14, 3, 8])


def test_cuts_of_an_oblique_volume_lie_along_its_own_axes():
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = (3.0, -4.0, 5.0)
    data = torch.rand(1, 1, 12, 16, 20, generator=torch.Generator().manual_seed(0))
    oblique = invsr.Volume(data, Grid((12, 16, 20), affine))
    at = oblique.grid.to_world((5, 7, 9))
    (sagittal, coronal, axial), _ = images(compare({"one": oblique}, at=at))
    cuts = {
        "sagittal": data[0, 0, 5].T.flip(0),
        "coronal": data[0, 0, :, 7].T.flip(0, 1),
        "axial": data[0, 0, :, :, 9].T,
    }
    cuts["axial"] = cuts["axial"].flip(0, 1)
    for name, drawn in (("sagittal", sagittal), ("coronal", coronal), ("axial", axial)):
        np.testing.assert_array_equal(drawn[::2, ::2], cuts[name].numpy(), err_msg=name)  # two pixels a voxel


def test_side_by_side_has_a_column_for_each_volume():
    volume = some_volume()
    rows, _ = images(compare({"one": volume, "two": volume}))
    columns, panels = images(compare({"one": volume, "two": volume}, side_by_side=True))
    for n in range(3):
        np.testing.assert_array_equal(rows[n], columns[2 * n])
    assert [panel.get_title() for panel in panels[:2]] == ["one", "two"]
    assert [panel.get_title() for panel in images(compare({"one": volume}))[1]] == ["sagittal", "coronal", "axial"]
    assert [panel.get_ylabel() for panel in panels if panel.get_ylabel()] == ["sagittal", "coronal", "axial"]


def some_volume(shape=(12, 16, 20), spacing=(1.0, 1.0, 1.0)):
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    return invsr.Volume(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)), grid)


def test_neurological_is_radiological_mirrored():
    volume = some_volume()
    radiological, _ = images(compare({"one": volume}))
    neurological, panels = images(compare({"one": volume}, convention="neurological"))
    np.testing.assert_array_equal(radiological[0], neurological[0])
    for a, b in zip(radiological[1:], neurological[1:], strict=True):
        np.testing.assert_array_equal(a, b[:, ::-1])
    for panel in panels[1:]:
        labels = {text.get_text(): text.get_position()[0] for text in panel.texts}
        assert labels["L"] < labels["R"]
    with pytest.raises(invsr.InvsrError, match="unknown convention 'both': use radiological or neurological"):
        compare({"one": volume}, convention="both")


def test_orthoviews_draw_the_window_that_is_asked_for():
    _, panels = images(orthoviews(some_volume(), window=(-1, 2), cmap="PuOr", title="here"))
    assert len(panels) >= 3
    assert all(
        panel.images[0].get_clim() == (-1, 2) and panel.images[0].get_cmap().name == "PuOr" for panel in panels[:3]
    )
    assert panels[0].get_ylabel() == "here"


def test_spectrum_shows_a_wave_at_its_frequency_along_its_axis():
    grid = Grid((8, 8, 60), np.diag([1.0, 1.0, 2.0, 1.0]))
    wave = torch.sin(2 * torch.pi * 0.1 * 2.0 * torch.arange(60)).expand(1, 1, 8, 8, 60)
    frequencies, power = power_along(invsr.Volume(wave, grid), 2)
    assert frequencies[power.argmax()] == pytest.approx(0.1, abs=0.01)
    assert frequencies[-1] == pytest.approx(0.25)  # half over 2 mm
    figure = spectrum({"wave": invsr.Volume(wave, grid)}, (0, 0, -1), measured=0.1)
    (panel,) = figure.axes
    assert panel.lines[0].get_xdata()[-1] == pytest.approx(0.25) and len(panel.patches) == 1
    # White noise is flat: its density does not depend on how many voxels there are.
    means = []
    for n in (40, 160):
        noise = torch.randn(1, 1, 30, 30, n, generator=torch.Generator().manual_seed(1))
        means.append(power_along(invsr.Volume(noise, Grid((30, 30, n), np.eye(4))), 2)[1].mean())
    assert means[0] == pytest.approx(means[1], rel=0.05)


def test_profiles_have_unit_area_and_their_width():
    (panel,) = profile({kind: slice_profile_of(kind, 4.0) for kind in ("boxcar", "gaussian")}, spacing=5.0).axes
    for line, width in zip(panel.lines[:2], (4.0, 4.0), strict=True):
        x, y = line.get_data()
        assert float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()) == pytest.approx(1.0, abs=0.02)
        above = x[y > y.max() / 2]
        assert above[-1] - above[0] == pytest.approx(width, abs=0.15)
    assert sorted(line.get_xdata()[0] for line in panel.lines[2:]) == [-5.0, 5.0]


def test_convergence_slices_and_motion_show_their_numbers():
    truth = some_volume((16, 16, 16))
    scan = invsr.simulate(truth, slice_thickness=4.0, axis=2, noise=0.01)
    solution = invsr.reconstruct(scan, method="tv", reference=truth.grid)
    left, right = convergence({"tv": solution}).axes
    assert left.get_yscale() == "log" and left.lines[0].get_label() == "tv"
    np.testing.assert_allclose(right.lines[0].get_ydata(), [entry["chi2"] for entry in solution.history])
    (panel,) = slice_chi2({"scan": [1.0, 2.0, float("nan")]}).axes
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), [1.0, 2.0, np.nan])
    found = Motion(
        np.zeros(3),
        (
            ScanMotion(
                "a", scan.grid, np.tile([0, 0, np.pi / 180, 1.0, 2.0, 3.0], (4, 1)), np.array([1.0, 1.0, 0.0, 1.0])
            ),
        ),
    )
    shift, turn = motion(found).axes
    assert [line.get_ydata()[0] for line in shift.lines[:3]] == [1.0, 2.0, 3.0]
    assert turn.lines[2].get_ydata()[0] == pytest.approx(1.0)  # degrees
    assert shift.lines[3].get_xdata()[0] == 2  # the slice that was left out
