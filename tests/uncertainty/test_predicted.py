"""Predicted deviations: what the network is told, its weights files, its calibration."""

import math

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.deviation import TOLD, DeviationNetwork
from invsr.models.networks import UNet
from invsr.models.registry import models
from invsr.models.weights import load_weights, save_weights
from invsr.operators import Identity, Stack, acquisition
from invsr.solvers.trained import load_solver, save_solver, unrolled_of
from invsr.uncertainty.predicted import (
    PredictedDeviation,
    fingerprint,
    knows_deviation,
    load_deviation,
    read_deviation,
    told,
)

GRID = Grid((12, 16, 12), np.eye(4))
SLICES = acquisition(GRID.coarsen((1, 1, 3)), reference=GRID)
ALONG = (torch.arange(12.0) - 5.5).expand(1, 1, 12, 16, 12)


def tiny(seed=0):
    torch.manual_seed(seed)
    return DeviationNetwork(channels=(4, 8), detail=2).eval().requires_grad_(False)


@pytest.fixture
def solver(tmp_path):
    """A solver's weights file, and beside it those of a network for its errors."""
    path = tmp_path / "w.safetensors"
    save_solver(unrolled_of([UNet(channels=(4, 8))], n_steps=2), path, {})
    save_weights(tiny(), tmp_path / "w-deviation.safetensors", {"solver_sha256": fingerprint(path)})
    return path


def test_what_slices_show_is_no_detail_and_what_they_hide_is():
    smooth, waves = 0.5 + 0.02 * ALONG, torch.sin(ALONG * (2 * math.pi / 3))
    shown, hidden = (told(SLICES, x)[:, 1:2] for x in (smooth, 0.1 * waves))
    inner = (..., slice(3, -3))
    assert float(shown[inner].abs().max()) < 0.02 < 0.4 < float(hidden[inner].abs().max())


def test_what_is_known_of_an_acquisition():
    x = torch.rand(2, 1, *GRID.shape)
    other = acquisition(GRID.coarsen((4, 1, 1)), reference=GRID)
    for operator, unknowns in ((SLICES, 3.0), (Stack([SLICES, other]), 1 / (1 / 3 + 1 / 4))):
        found = told(operator, x)
        assert found.shape == (2, TOLD, *GRID.shape)
        torch.testing.assert_close(found[:, :1], x)
        assert float(found[:, 2].mean()) == pytest.approx(0, abs=1e-5)
        assert float(found[:, 3].min()) == float(found[:, 3].max()) == pytest.approx(math.log(unknowns))
    gaps = acquisition(GRID.coarsen((1, 1, 3)), reference=GRID, slice_thickness=1.0)
    seen = told(gaps, x)[0, 2, 6, 8]
    # The middles of thin slices are seen, what lies between them is not.
    assert float(seen[1::3].min()) > 0.5 > -0.5 > float(seen[0::3].max())


def test_volumes_go_through_in_parts_as_whole(monkeypatch):
    network, x = tiny(), torch.rand(1, TOLD, 24, 16, 16)
    with torch.no_grad():
        whole = network(x, 0.01)
        monkeypatch.setattr("invsr.models.networks.LEAST_VOXELS", 1)
        monkeypatch.setattr("invsr.models.deviation.AT_ONCE", 1024)
        torch.testing.assert_close(network(x, 0.01), whole)
    assert whole.shape == (1, 1, 24, 16, 16) and float(whole.min()) > 0


def test_any_size_and_the_noise_counts():
    grid = Grid((9, 11, 10), np.eye(4))
    operator = acquisition(grid.coarsen((1, 1, 2)), reference=grid)
    known, x = PredictedDeviation(tiny(), {}), torch.rand(1, 1, *grid.shape)
    found = known(operator, x, 0.01)
    assert found.shape == x.shape and not torch.allclose(found, known(operator, x, 0.03))


def test_common_factors_between_acquisitions_of_the_table():
    table = {"unknowns": [2.0, 8.0], "noise": [0.01, 0.04], "factors": [[1.0, 2.0], [4.0, 8.0]]}
    known = PredictedDeviation(tiny(), {"calibration": table})
    for unknowns, noise, wanted in (
        *((2, 0.01, 1), (8, 0.04, 8), (4, 0.01, 2), (2, 0.02, math.sqrt(2)), (4, 0.02, math.sqrt(8))),
        *((1, 0.001, 1), (30, 0.3, 8)),
    ):
        assert known.common_factor(unknowns, noise) == pytest.approx(wanted)
    assert PredictedDeviation(tiny(), {}).common_factor(3, 0.01) == 1


@pytest.mark.parametrize("calibration", [None, {"unknowns": [1.0], "noise": [0.01], "factors": [[1.5]]}])
def test_the_factor_of_a_scan_is_that_with_which_intervals_hold(monkeypatch, calibration):
    """Data that are returned as they are: the error is their noise."""
    monkeypatch.setattr(DeviationNetwork, "forward", lambda self, x, sigma: torch.full_like(x[:, :1], 0.02))
    grid = Grid((32, 32, 32), np.eye(4))
    known = PredictedDeviation(tiny(), {"calibration": calibration})
    found = known.factor(lambda y: y, Identity(grid), torch.ones(1, 1, *grid.shape), 0.05)
    assert found == pytest.approx(2.5 * (1.5 if calibration else 1.0), rel=0.02)


def test_it_lies_beside_its_solver(solver, tmp_path):
    assert knows_deviation(solver) and not knows_deviation(tmp_path / "v.safetensors")
    found = load_deviation(solver)
    for name, value in found.network.state_dict().items():
        torch.testing.assert_close(value, tiny().state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_network_for_other_weights_is_refused(solver):
    save_solver(unrolled_of([UNet(channels=(4, 8))], n_steps=3), solver, {})
    with pytest.raises(InvsrError, match=r"w-deviation.safetensors: was trained on the errors of other weights"):
        load_deviation(solver)


def test_other_weights_are_refused(solver):
    with pytest.raises(InvsrError, match=r"w.safetensors: holds an unrolled solver: use it with --method unrolled"):
        read_deviation(solver)
    for load in (load_weights, load_solver):
        with pytest.raises(InvsrError, match=r"w-deviation.safetensors: holds a network for error bars"):
            load(solver.with_name("w-deviation.safetensors"))


@pytest.mark.parametrize("name", list(models("deviation")))
def test_those_of_the_package_belong_to_its_solvers(name):
    found = load_deviation(name.removesuffix("-deviation"))
    assert found.about["calibration"]["factors"]
