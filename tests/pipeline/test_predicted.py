"""`uncertainty="predicted"`: for solvers whose errors a network knows, and in reports without being asked for."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.deviation import DeviationNetwork
from invsr.models.networks import UNet
from invsr.models.weights import save_weights
from invsr.pipeline.run import reconstruct
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
    wanted = load_deviation(solver)(problem.operator, found.solution.x, problem.sigma) * problem.scale
    torch.testing.assert_close(found.std, wanted)
    torch.testing.assert_close(plain.predicted, wanted)


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
    ],
)
def test_what_cannot_be_predicted(scan, options, words):
    with pytest.raises(InvsrError, match=words):
        reconstruct(scan, uncertainty="predicted", **options)


def test_the_chosen_method_is_asked_too(scan):
    with pytest.raises(InvsrError, match="no network knows the errors of method tv"):
        reconstruct(scan, uncertainty="predicted", noise_model="l1")
