"""`uncertainty="predicted"`: for solvers whose errors a network knows, and in reports without being asked for."""

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.deviation import DeviationNetwork
from invsr.models.networks import UNet
from invsr.models.weights import save_weights
from invsr.motion import NONE
from invsr.pipeline.moved import estimate_motion
from invsr.pipeline.problem import build_problem
from invsr.pipeline.run import reconstruct
from invsr.pipeline.scan import Scan
from invsr.report import write_report
from invsr.solvers.trained import save_solver, unrolled_of
from invsr.testing.phantoms import shapes
from invsr.testing.simulation import simulate
from invsr.uncertainty.predicted import fingerprint, load_deviation
from invsr.volume import Volume

RANGES = {"thickness": [2.0, 6.0], "gap": 0.3, "noise": [0.005, 0.1]}


@pytest.fixture(scope="module")
def scan():
    grid = Grid.from_spacing((24, 24, 24), 1.0)
    return simulate(Volume(100 * shapes(grid, size=24.0), grid), slice_thickness=4.0, axis=2, noise=0.02)


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    save_solver(unrolled_of([UNet(channels=(4, 8))], n_steps=2), path, RANGES)
    known = DeviationNetwork(channels=(4, 8), detail=2)
    save_weights(known, path.with_name("w-deviation.safetensors"), {"solver_sha256": fingerprint(path)})
    return path


def test_the_result_has_a_deviation_in_its_units(scan, solver):
    plain = reconstruct(scan, model=solver)
    found = reconstruct(scan, model=solver, uncertainty="predicted")
    assert plain.std is None and found.std.shape == found.x.shape and torch.equal(plain.x, found.x)
    problem = found.problem
    shape = load_deviation(solver)(problem.operator, found.solution.x, problem.sigma) * problem.scale
    factors = found.std / shape
    torch.testing.assert_close(factors, factors.mean().expand_as(factors))
    torch.testing.assert_close(plain.predicted, found.std)


def test_a_cube_lies_where_it_lay_in_the_volume():
    """A ramp is seen at its world positions, by scans across other axes, one of them turned, none for the third."""
    grid = Grid((40, 36, 44), np.diag([1, 1, 1, 1]) + np.array([[0, 0, 0, 7], [0, 0, 0, -3], [0, 0, 0, 2], [0] * 4]))
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    turned = Grid((40, 9, 44), grid.affine @ oblique @ np.diag([1, 4, 1, 1]))
    away = Grid((12, 36, 11), grid.affine @ np.diag([1, 1, 4, 1]))
    slope = np.array([0.3, -0.2, 0.5])

    def ramp_on(one):
        return torch.from_numpy(50 + one.points() @ slope).float()[None, None]

    ramp = ramp_on(grid)
    scans = [
        Scan(Volume(ramp_on(one), one, f"{n}"), slice_thickness=4.0)
        for n, one in enumerate((Grid((40, 36, 11), grid.affine @ np.diag([1, 1, 4, 1])), turned, away))
    ]
    problem = build_problem(scans, grid, estimate_motion(scans, grid, NONE))
    weights = torch.zeros_like(ramp)
    weights[..., 20:30, 10:20, 25:30] = 1
    operator, cube = problem.cube(ramp * weights, 20)
    assert cube.shape == (1, 1, 20, 20, 20) and len(operator.operators) == 2
    assert bool((cube != 0).sum() == 500)  # all that is bright
    low = np.rint(grid.to_voxel(operator.domain.to_world([0, 0, 0]))).astype(int)
    i, j, k = (slice(n, n + 20) for n in low)
    for part, where, level in zip(operator(ramp[..., i, j, k]), operator.range, problem.levels[:2], strict=True):
        inside = torch.from_numpy(operator.domain.contains(where.points()))
        inner = tuple(slice(n // 2 - 1, n // 2 + 1) for n in where.shape)
        assert bool(inside[inner].all())
        torch.testing.assert_close(level * part[0, 0][inner], ramp_on(where)[0, 0][inner], atol=0.05, rtol=0)


@pytest.mark.parametrize("spacing", [(1, 1, 1.5), (4, 4, 4)])
def test_voxels_that_cannot_be_turned(scan, solver, spacing):
    with pytest.raises(InvsrError, match="uncertainty predicted: it takes isotropic voxels, 16 along each axis"):
        reconstruct(scan, model=solver, uncertainty="predicted", spacing=spacing)


def test_reports_show_it(scan, solver, tmp_path):
    write_report(tmp_path / "with", reconstruct(scan, model=solver))
    write_report(tmp_path / "without", reconstruct(scan, method="cubic"))
    with_it, without = ((tmp_path / name / "report.html").read_text() for name in ("with", "without"))
    assert '"standard deviation"' in with_it and '"standard deviation"' not in without


def test_reports_leave_it_out_where_the_solver_was_not_trained(scan, solver):
    with pytest.warns(match="noise"):
        result = reconstruct(scan, model=solver, noise=30.0)
    assert result.predicted is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "tv"}, "no network knows the errors of method tv: use uncertainty bootstrap"),
        ({"model": "mri-unrolled-joint"}, "no network knows the errors of method unrolled with mri-unrolled-joint"),
        ({"n_samples": 4}, r"uncertainty predicted takes no samples: leave n_samples \(4\) out"),
        ({"method": "posterior"}, "method posterior states its own uncertainty"),
        ({"method": "unrolled", "noise_model": "rician"}, "uncertainty predicted: it takes Gaussian noise"),
    ],
)
def test_what_cannot_be_predicted(scan, options, words):
    with pytest.raises(InvsrError, match=words):
        reconstruct(scan, uncertainty="predicted", **options)


def test_the_chosen_method_is_asked_too(scan):
    with pytest.raises(InvsrError, match="no network knows the errors of method tv"):
        reconstruct(scan, uncertainty="predicted", noise_model="l1")
