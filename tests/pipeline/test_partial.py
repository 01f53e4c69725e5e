"""Scans that show a part of the volume only: the rest is 0, and that is said."""

import numpy as np
import pytest
import torch

import invsr
from invsr.pipeline.contrasts import reconstruct_contrasts

SAID = "of the volume is outside the field of view of"


def slab(scan, first, count):
    """Some slices of a scan."""
    grid = scan.grid.part([0, 0, first], [*scan.grid.shape[:2], first + count])
    return scan.with_data(scan.data[..., first : first + count].contiguous(), grid)


def said(result):
    return [line for line in result.remarks() if SAID in line]


@pytest.mark.parametrize("method", ["cubic", "tv", "unrolled"])
def test_beyond_the_field_of_view_the_result_is_zero(small_scan, small_truth, method):
    part = slab(small_scan, 2, 3)
    found = invsr.reconstruct(part, reference=small_truth.grid, method=method, slice_thickness=4.0)
    (line,) = said(found)
    share = float((found.x == 0).float().mean())
    assert line.startswith(f"{share:.0%}") and share > 0.2
    inside = torch.from_numpy(part.grid.contains(small_truth.grid.points()))
    assert bool((found.x[0, 0][inside] != 0).all())


def test_a_contrast_that_shows_a_part_is_zero_elsewhere(small_scan, small_truth):
    other = small_scan.with_data(small_truth.data.max() - small_scan.data)
    part = slab(other, 2, 3)
    whole, partial = reconstruct_contrasts([small_scan, part], motion="none", spacing=1.0, slice_thickness=4.0)
    assert whole.grid == partial.grid and not said(whole) and len(said(partial)) == 1
    beyond = np.abs(partial.grid.points()[..., 2] - part.grid.centre[2]) > part.grid.extent[2] / 2 + 4
    assert beyond.any() and bool((partial.x[0, 0][torch.from_numpy(beyond)] == 0).all())
    assert float((whole.x == 0).float().mean()) < 0.01


def test_scans_that_show_everything_leave_nothing_out(small_scan, small_truth):
    across = invsr.simulate(small_truth, slice_thickness=4.0, axis=0, noise=0.01)
    for scans in (small_scan, [small_scan, across], [small_scan, slab(small_scan, 1, 2)]):
        found = invsr.reconstruct(scans, method="tv", spacing=1.0, slice_thickness=4.0, max_iter=5)
        assert not said(found) and not found.problem.is_partial
