"""Parts of separable operators predict what the whole predicts."""

import numpy as np
import pytest
from registry import grid, noise, reoriented

from invsr.operators import acquisition
from invsr.operators.parts import part_of

SIDE = 24
VOLUME = grid((30, 28, 48))
SCAN = VOLUME.coarsen((1, 1, 4))
CASES = {
    "slices": acquisition(SCAN, reference=VOLUME),
    "gaps": acquisition(SCAN, reference=VOLUME, slice_thickness=2.5, slice_profile="boxcar"),
    "other order and direction": acquisition(reoriented(SCAN, (2, 0, 1), (1,)), reference=VOLUME),
    "finer pixels": acquisition(VOLUME.coarsen((0.6, 0.6, 4)), reference=VOLUME, in_plane="none"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("low", [(0, 0, 0), (5, 3, 10), (6, 4, 24)])
def test_samples_are_those_of_the_whole(name, low):
    A = CASES[name]
    part = part_of(A, low, [a + SIDE for a in low])
    x = noise(1, 1, *A.domain.shape)
    seen = x[(..., *part.voxels)]
    assert seen.shape[2:] == part.operator.domain.shape == (SIDE, SIDE, SIDE)
    expected = A(x)[(..., *part.samples)]
    assert float((part.operator(seen) - expected).abs().max()) < 5e-3 * float(expected.abs().max())
    assert part.operator.range.size >= SIDE**3 / 4 / 2  # of six slices, the outer ones see more
    np.testing.assert_allclose(part.operator.range.origin, A.range.to_world([one.start for one in part.samples]))


def test_an_axis_with_k_space_is_left_whole():
    A = acquisition(VOLUME.coarsen((2, 1, 4)), reference=VOLUME, through_plane=2)
    part = part_of(A, (4, 4, 4), (28, 28, 28))
    assert part.voxels == (slice(0, 30), slice(4, 28), slice(4, 28)) and part.samples[0] == slice(0, 15)
    x = noise(1, 1, *VOLUME.shape)
    found, expected = part.operator(x[(..., *part.voxels)]), A(x)[(..., *part.samples)]
    assert float((found - expected).abs().max()) < 5e-3 * float(expected.abs().max())
