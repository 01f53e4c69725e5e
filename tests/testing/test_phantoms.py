"""Phantoms: geometry in millimetres, partial volume, independence of the grid."""

from functools import partial

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.testing import phantoms

OBLIQUE = Grid((5, 4, 6), [[0.8, -0.6, 0, 3], [0.6, 0.8, 0, -2], [0, 0, -2.5, 7], [0, 0, 0, 1]])
# A quarter of the default samples: enough for what is compared here, and 64 times faster.
draw = partial(phantoms.shapes, n_samples=64, dtype=torch.float64)
COARSE = phantoms.centred_grid((16, 16, 16), 4.0)


@pytest.fixture(scope="module")
def coarse():
    return draw(COARSE)


def test_centred_grid():
    grid = phantoms.centred_grid((4, 5, 6), (1, 2, 3))
    np.testing.assert_allclose(grid.centre, 0, atol=1e-12)
    np.testing.assert_allclose(grid.spacing, [1, 2, 3])


def test_shepp_logan_lies_where_its_table_says():
    x, grid = phantoms.shepp_logan((64, 48, 40), (1, 1.5, 2))
    assert x.shape == (1, 1, 64, 48, 40) and x.dtype == torch.float32
    xyz = grid.points() / (grid.extent / 2)
    # The skull: 1 between two ellipsoids; the outer one has half-axes 0.69, 0.92, 0.81 of half the extent.
    outer = ((xyz / [0.69, 0.92, 0.81]) ** 2).sum(-1) <= 1
    np.testing.assert_array_equal(x[0, 0].numpy() != 0, outer & (x[0, 0].numpy() != 0))
    assert not x[0, 0].numpy()[~outer].any()
    inner = (((xyz - [0, -0.0184, 0]) / [0.6624, 0.874, 0.78]) ** 2).sum(-1) <= 1
    np.testing.assert_array_equal(x[0, 0].numpy()[outer & ~inner], 1)
    # The bright blob in front (+y) and below (-z), the ventricles to the sides.
    values = {
        place: float(x[(0, 0, *np.rint(grid.to_voxel(np.array(place) * grid.extent / 2)).astype(int))])
        for place in [(0, 0.4, -0.25), (0.25, 0, 0), (-0.25, 0, 0), (0, -0.8, 0)]
    }
    assert list(values.values()) == pytest.approx([0.3, 0, 0, 0.2])


def test_same_phantom_on_every_grid(coarse):
    # Flipping and permuting axes, or cropping, only re-orders voxels.
    turned = Grid((16, 16, 10), COARSE.affine @ [[0, -1, 0, 15], [0, 0, 1, 3], [1, 0, 0, 0], [0, 0, 0, 1]])
    found = draw(turned)
    index = np.rint(COARSE.to_voxel(turned.points())).astype(int)
    expected = coarse[0, 0][tuple(torch.from_numpy(np.moveaxis(index, -1, 0)))]
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-3)  # points on a face may change sides


def test_coarse_voxels_are_means_of_fine_ones(coarse):
    fine = phantoms.centred_grid((32, 32, 64), (2, 2, 1))
    assert fine.coarsen(4.0) == COARSE
    x = draw(fine)
    torch.testing.assert_close(torch.nn.functional.avg_pool3d(x, (2, 2, 4)), coarse, rtol=0, atol=1e-9)


def test_mean_does_not_depend_on_how_voxels_are_laid(coarse):
    # 64 samples are 1 mm apart, as thin as the thinnest sheets: their volume is only known to some percent.
    odd = draw(phantoms.centred_grid((13, 13, 13), 64 / 13))
    assert float(odd.mean()) == pytest.approx(float(coarse.mean()), rel=5e-3)


def test_bars_end_where_the_layout_says():
    _, solids = phantoms._layout(np.random.default_rng(0), 64.0)
    for solid in solids[:27:4]:
        for axis in range(3):
            # Two points 0.1 mm either side of the far face.
            step = np.eye(3)[axis]
            affine = np.diag([0.2, 0.2, 0.2, 1])
            affine[:3, 3] = solid.centre + step * (solid.half - 0.1)
            inside, outside = draw(Grid(1 + step.astype(int), affine)).flatten().tolist()
            assert inside - outside == pytest.approx(solid.amplitude, abs=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_range_seed_and_field_of_view(seed, coarse):
    x = draw(COARSE, seed, dtype=torch.float32)
    assert x.dtype == torch.float32 and x.shape == (1, 1, 16, 16, 16)
    assert x.min() >= 0 and 0.7 < x.max() <= 1.1
    assert not x[0, 0, [0, -1]].any()  # the phantom stays off the faces of its cube
    assert torch.equal(x, coarse.float()) == (seed == 0)


def test_size_scales_the_phantom(coarse):
    half = draw(phantoms.centred_grid((16, 16, 16), 2.0), size=32.0)
    torch.testing.assert_close(half, coarse, rtol=0, atol=1e-9)


def test_solids_never_overlap_and_stay_in_the_cube():
    for seed in range(20):
        _, solids = phantoms._layout(np.random.default_rng(seed), 64.0)
        assert len(solids) == 27 + 18  # nine cells hold three bars each
        low, high = [], []
        for solid in solids:
            reach = np.abs(solid.axes * solid.half).sum(1)
            low.append(solid.centre - reach)
            high.append(solid.centre + reach)
        assert np.min(low) > -32 and np.max(high) < 32
        apart = (np.array(low)[:, None] >= np.array(high)[None]).any(-1)
        assert (apart | apart.T | np.eye(len(solids), dtype=bool)).all()


def test_impulse_ramp_constant():
    x = phantoms.impulse(OBLIQUE, (1, 3, 5), torch.float64)
    assert x.sum() == 1 and x[0, 0, 1, 3, 5] == 1 and x.dtype == torch.float64
    r = phantoms.ramp(OBLIQUE, (0.5, -1, 2), torch.float64)
    assert r.shape == (1, 1, *OBLIQUE.shape)
    assert float(r[0, 0, 4, 1, 2]) == pytest.approx(float(OBLIQUE.to_world([4, 1, 2]) @ [0.5, -1, 2]))
    assert (phantoms.constant(OBLIQUE, 2.5) == 2.5).all()
    assert phantoms.ramp(OBLIQUE, (1, 0, 0)).dtype == phantoms.constant(OBLIQUE).dtype == torch.float32


def test_bad_input_gets_its_error():
    with pytest.raises(InvsrError, match=r"\(1, 3, 6\).*\(5, 4, 6\)"):
        phantoms.impulse(OBLIQUE, (1, 3, 6))
    with pytest.raises(InvsrError, match="three finite numbers"):
        phantoms.ramp(OBLIQUE, (1, 0))
    with pytest.raises(InvsrError, match=r"size 0\.0 mm"):
        draw(OBLIQUE, size=0.0)
    with pytest.raises(InvsrError, match="three positive"):
        phantoms.shepp_logan((8, 8))
    for bad in (0.0, (1, 2)):
        with pytest.raises(InvsrError, match="one number or three|above zero"):
            phantoms.centred_grid((4, 4, 4), bad)
