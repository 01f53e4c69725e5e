"""Parts of separable operators predict what the whole predicts."""

import numpy as np
import pytest
import torch
from small_grids import grid as make_grid
from small_grids import noise, reoriented

from invsr.operators import acquisition
from invsr.operators.parts import part_of

SIDE = 24
VOLUME = make_grid((30, 28, 48))
SCAN = VOLUME.coarsen((1, 1, 4))
CASES = {
    "slices": acquisition(SCAN, reference=VOLUME),
    "gaps": acquisition(SCAN, reference=VOLUME, slice_thickness=2.5, slice_profile="boxcar"),
    "other order and direction": acquisition(reoriented(SCAN, (2, 0, 1), (1,)), reference=VOLUME),
    "k-space": acquisition(VOLUME.coarsen((2, 0.6, 4)), reference=VOLUME, through_plane=2),
    "finer pixels": acquisition(VOLUME.coarsen((0.6, 0.6, 4)), reference=VOLUME, in_plane="none"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("low", [(0, 0, 0), (5, 3, 10), (6, 4, 24)])
def test_voxels_of_the_part_and_beyond_make_up_its_samples(name, low):
    A = CASES[name]
    part = part_of(A, low, [a + SIDE for a in low])
    x = noise(1, 1, *A.domain.shape)
    seen, beyond = x[(..., *part.voxels)], x.clone()
    beyond[(..., *part.voxels)] = 0
    samples = (..., *part.samples)
    assert seen.shape[2:] == part.operator.domain.shape == (SIDE, SIDE, SIDE)
    torch.testing.assert_close(part.operator(seen) + A(beyond)[samples], A(x)[samples], rtol=0, atol=1e-12)
    # Little comes from beyond; all but the outermost slices and pixels belong to the part.
    assert float(A(beyond)[samples].norm()) < 0.4 * float(A(x)[samples].norm())
    share = SIDE**3 / A.domain.size
    assert part.operator.range.size > 0.7 * share * A.range.size
    for grid, at, whole in (
        (part.operator.range, part.samples, A.range),
        (part.operator.domain, part.voxels, A.domain),
    ):
        np.testing.assert_allclose(grid.origin, whole.to_world([one.start for one in at]))


def test_no_sample_belongs_to_a_part_thinner_than_a_slice():
    assert part_of(CASES["slices"], (0, 0, 10), (24, 24, 12)) is None
