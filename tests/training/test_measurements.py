"""Training on thick-slice scans alone: patches fit their operator, it learns, and the losses are what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.io.nifti import save
from invsr.solvers.plug_and_play import smooth_guess
from invsr.solvers.trained import load_solver
from invsr.testing.phantoms import centred_grid, shapes
from invsr.testing.simulation import simulate
from invsr.training.measurements import ScanPatches, objective_without_truth
from invsr.training.recipe import SolverRecipe
from invsr.training.solver import train_solver
from invsr.volume import Volume

RECIPE = SolverRecipe(
    config={"dim": 3, "channels": [4, 8]}, steps=2, batch=2, patch=(18, 10, 12), n_steps=2, supervision="measurements"
)
GRID = centred_grid((28, 26, 24), 1.0)


@pytest.fixture
def truth():
    return Volume(shapes(GRID, n_samples=6, size=28.0), GRID)


@pytest.fixture
def paths(truth, tmp_path):
    found = []
    for axis, thickness in ((2, 3.0), (0, 4.0)):
        found.append(tmp_path / f"scan{axis}.nii.gz")
        save(simulate(truth, slice_thickness=thickness, axis=axis, noise=0.02, seed=axis), found[-1])
    return found


def test_patches_of_a_step_fit_its_operator(paths):
    scans, seen = ScanPatches(paths, RECIPE), set()
    for step in range(8):
        scan = scans.scan(step)
        seen.add(scan.thickness)
        assert scan.operator.domain.spacing == pytest.approx(1.0)
        for index in (2 * step, 2 * step + 1):
            y, number = scans[index]
            assert y.shape[1:] == scan.operator.range.shape and int(number) == step
            assert torch.equal(y, scans[index][0])
    assert seen == {3.0, 4.0}
    across = [one.operator.range.through_plane for one in scans.scans]
    assert across == [2, 0]
    ranges = scans.ranges()
    assert ranges["thickness"] == [3.0, 4.0] and ranges["gap"] == pytest.approx(0.0, abs=1e-6)
    assert 0.01 < ranges["noise"][0] <= ranges["noise"][1] < 0.04


def test_the_loss_prefers_a_good_solver_to_bad_ones(paths, truth):
    pytest.importorskip("deepinv", reason="the losses are deepinv's")
    scans = ScanPatches(paths[:1], replace(RECIPE, patch=(28, 28, 28)))
    objective = objective_without_truth(scans)
    scan = scans.scan(0)

    def judged(solver):
        value, figures = objective(solver, [scan.data, torch.tensor([0])])
        assert float(value) == pytest.approx(figures["sure"] + figures["ei"], rel=1e-5)
        return figures

    def smooth(operator, y, sigma, guess):
        return guess

    def blurred(operator, y, sigma, guess):
        return torch.nn.functional.avg_pool3d(guess, 5, 1, 2)

    def overfitted(operator, y, sigma, guess):
        return operator.solve(operator.adjoint(y), 1e-6, "gradient").x

    good, flat, noisy = judged(smooth), judged(blurred), judged(overfitted)
    assert good["sure"] < flat["sure"]
    assert good["ei"] < noisy["ei"] * 1.5
    # SURE estimates the error of the measured part without knowing it.
    operator, clean = scan.operator, simulate(truth, slice_thickness=3.0, axis=2).data
    clean = clean / (clean.abs().max() / scan.data.abs().max())
    for figures, solver in ((good, smooth), (flat, blurred)):
        x = solver(operator, scan.data, scan.sigma, smooth_guess(operator, scan.data))
        actual = float((operator(x) - clean).square().mean()) / scan.sigma**2
        assert figures["sure"] == pytest.approx(actual, abs=max(0.35, 0.5 * actual))


@pytest.mark.parametrize("kind", ["unrolled", "deq"])
def test_it_trains_and_what_it_writes_says_on_what(paths, tmp_path, kind):
    pytest.importorskip("deepinv", reason="the losses are deepinv's")
    out = tmp_path / "w.safetensors"
    entries = []
    train_solver(
        paths, out, replace(RECIPE, kind=kind), log=None, report=lambda step, steps, entry: entries.append(entry)
    )
    assert len(entries) == 2 and all(np.isfinite(one["loss"]) for one in entries)
    about = load_solver(out, kind)[1]
    assert about["data"] == "2 thick-slice scans" and about["thickness"] == [3.0, 4.0]


@pytest.mark.parametrize("kind", ["unrolled", "deq"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(paths, tmp_path, kind):
    pytest.importorskip("deepinv", reason="the losses are deepinv's")
    whole, parts, recipe = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors", replace(RECIPE, kind=kind)
    train_solver(paths, whole, recipe, log=None)
    torch.manual_seed(1)  # what others drew does not matter

    def stop(step, *_):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_solver(paths, parts, recipe, log=None, save_every=1, report=stop)
    train_solver(paths, parts, recipe, log=None)
    assert whole.read_bytes() == parts.read_bytes()


def test_scans_that_cannot_be_trained_on(tmp_path, truth):
    path = tmp_path / "two.nii"
    save(simulate(truth, slice_thickness=12.0, axis=2, noise=0.02), path)
    with pytest.raises(InvsrError, match=r"two.nii: has 2 slices: at least 3"):
        ScanPatches([path], RECIPE)
    with pytest.raises(InvsrError, match="supervision 'none'"):
        replace(RECIPE, supervision="none")
