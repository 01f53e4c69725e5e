"""`invsr benchmark`: a row for each volume and method."""

import numpy as np
import pytest

import invsr
from invsr.app.benchmark import benchmark
from invsr.testing import metrics
from invsr.testing.phantoms import centred_grid, shapes


def test_benchmark_prints_a_row_for_each_volume_and_method(run, tmp_path):
    grid = centred_grid((24, 24, 24))
    for n in (1, 2):
        invsr.save(invsr.Volume(shapes(grid, size=22.0, seed=n, n_samples=32), grid), tmp_path / f"{n}.nii.gz")
    code, out, err = run("benchmark", tmp_path / "1.nii.gz", tmp_path / "2.nii.gz", "--method", "tv", "--noise", "0.01")
    rows = [line.split(" | ") for line in out.splitlines() if ".nii.gz" in line]
    assert code == 0, err
    assert [(row[0][2:], row[1]) for row in rows] == [(f"{n}.nii.gz", m) for n in (1, 2) for m in ("cubic", "tv")]
    assert rows[0][4] == "+0.00" and float(rows[1][4]) > 0.5 and float(rows[3][4]) > 0.5
    assert 0.6 < float(rows[1][6]) < 1.2


def test_gains_are_over_the_same_volume_where_files_have_one_name(run, tmp_path):
    grid = centred_grid((24, 24, 24))
    paths = [tmp_path / folder / "T1w.nii.gz" for folder in "ab"]
    for n, path in enumerate(paths):
        path.parent.mkdir()
        invsr.save(invsr.Volume(shapes(grid, size=22.0, seed=n, n_samples=32), grid), path)
    code, out, err = run("benchmark", *paths, "--method", "tikhonov")
    rows = [line.split(" | ") for line in out.splitlines() if ".nii.gz" in line]
    assert code == 0, err
    assert len(rows) == 4 and rows[0][2] != rows[2][2]
    for cubic, other in (rows[:2], rows[2:]):
        assert (cubic[4], cubic[5]) == ("+0.00", "+0.0000")
        assert float(other[4]) == pytest.approx(float(other[2]) - float(cubic[2]), abs=0.011)


@pytest.mark.parametrize("axis", [0, 2])
def test_what_lies_past_the_last_slice_is_no_part_of_the_score(axis):
    """Slices of 9 mm fill 18 of 24 mm."""
    grid = centred_grid((24, 24, 24))
    truth = invsr.Volume(shapes(grid, size=40.0, seed=1, n_samples=32), grid)
    (score,) = benchmark([truth], ["cubic"], slice_thickness=9.0, axis=axis, noise=0.01)
    scan = invsr.simulate(truth, slice_thickness=9.0, axis=axis, noise=0.01)
    found = invsr.reconstruct(scan, method="cubic", reference=grid).volume.numpy()
    mask = metrics.head_mask(truth.numpy())
    seen = mask & (np.indices(grid.shape)[axis] < 18)
    assert 0 < seen.sum() < mask.sum()
    assert score.psnr == pytest.approx(metrics.evaluate(found, truth.numpy(), seen, quick=True)["psnr"], abs=1e-3)


def test_benchmark_refuses_methods_and_axes_that_are_none(run, tmp_path):
    grid = centred_grid((12, 12, 12))
    invsr.save(invsr.Volume(shapes(grid, size=10.0, n_samples=16), grid), tmp_path / "a.nii.gz")
    code, _, err = run("benchmark", tmp_path / "a.nii.gz", "--method", "best")
    assert code == 1 and "unknown method 'best': use some of cubic" in err
    code, _, err = run("benchmark", tmp_path / "a.nii.gz", "--axis", "x")
    assert code == 1 and "--axis x: use i, j or k" in err
