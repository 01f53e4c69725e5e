"""Training of unrolled solvers: it learns, resumes, and what it writes serves."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.nifti import load
from invsr.models.architectures import build
from invsr.models.networks import UNet
from invsr.models.registry import holds_solver
from invsr.operators import Contrasts, acquisition
from invsr.pipeline.run import reconstruct
from invsr.solvers.trained import equilibrium_of, load_solver, unrolled_of
from invsr.testing.simulation import simulate
from invsr.training.recipe import SolverRecipe
from invsr.training.solver import SimulatedPatches, joint, network_of, train_solver
from invsr.training.synthesis import Anatomies

TINY = {"dim": 3, "channels": [4, 8]}
SHORT = SolverRecipe(config=TINY, steps=6, batch=2, patch=(16, 8, 8), n_steps=2, thickness=(2.0, 4.0), rate=1e-2)


@pytest.fixture
def paths(folder):
    return [folder / "image.nii.gz", folder / "deeper" / "labels.nii.gz"]


def test_samples_of_a_step_share_an_acquisition_and_fit_it(paths):
    patches = SimulatedPatches(Anatomies(paths), replace(SHORT, batch=3))
    axes = set()
    for step in range(6):
        acquisition = patches.acquisition(step)
        axes.add(acquisition.scans[0].axis)
        operator = acquisition.operator()
        for index in range(3 * step, 3 * step + 3):
            clean, y, number = patches[index]
            assert clean.shape[1:] == operator.domain.shape and y.shape[1:] == operator.range.shape
            assert int(number) == step
            residual = (y - operator(clean[None])[0]).std()
            assert float(residual) == pytest.approx(acquisition.sigma, rel=0.3)
            again = patches[index]
            assert torch.equal(clean, again[0]) and torch.equal(y, again[1])
    assert axes == {0, 1, 2}


def test_several_scans_are_measured_with_the_noise_of_their_weights(paths):
    patches = SimulatedPatches(Anatomies(paths), replace(SHORT, stacks=1.0, oblique=0.5, patch=(24, 16, 16)))
    for step in range(4):
        acquisition, (clean, slices, _) = patches.acquisition(step), patches[step * SHORT.batch]
        operator = acquisition.operator()
        assert clean.shape == (1, 16, 16, 16) and 2 <= len(slices) == len(acquisition.scans) <= 3
        for y, exact, scan in zip(slices, operator(clean[None]), acquisition.scans, strict=True):
            assert float((y - exact[0]).std()) == pytest.approx(acquisition.sigma, rel=0.3)
            assert operator.weights[acquisition.scans.index(scan)] == pytest.approx(scan.noise**-2)


def test_it_learns_from_stacks(paths, tmp_path):
    entries = []
    recipe = replace(SHORT, steps=10, thickness=(3.0, 3.0), gap=0.0, noise=(0.01, 0.01), average=0.5)
    recipe = replace(recipe, stacks=1.0, oblique=0.5, patch=(16, 16, 16))
    train_solver(paths, tmp_path / "w.safetensors", recipe, log=None, report=lambda s, n, e: entries.append(e))
    assert sum(one["loss"] for one in entries[-5:]) < 0.95 * sum(one["loss"] for one in entries[:5])
    assert load_solver(tmp_path / "w.safetensors")[1]["stacks"] == 1.0


CONTRASTS = replace(SHORT, architecture="JointUNet", contrasts=3, patch=(16, 16, 16), thickness=(3.0, 3.0), gap=0.0)


def test_contrasts_of_a_step_share_their_acquisitions(paths):
    patches = SimulatedPatches(Anatomies(paths), CONTRASTS)
    counts = set()
    for step in range(12):
        acquisition, (clean, slices, _) = patches.acquisition(step), patches[step * SHORT.batch]
        counts.add(len(clean))
        assert len(clean) == len(slices) == len(acquisition.members)
    assert counts == {1, 2, 3}


def test_it_learns_from_contrasts(paths, tmp_path):
    entries = []
    recipe = replace(CONTRASTS, steps=16, noise=(0.01, 0.01), average=0.5)
    out = tmp_path / "w.safetensors"
    train_solver(paths, out, recipe, log=None, report=lambda s, n, e: entries.append(e))
    assert sum(one["loss"] for one in entries[-8:]) < 0.95 * sum(one["loss"] for one in entries[:8])
    solver, about = load_solver(out)
    assert about["contrasts"] == 3 and solver.priors[0].joint


@pytest.mark.parametrize("kind", ["denoiser", "solver"])
def test_a_joint_network_starts_from_one_for_single_contrasts(kind):
    """The same result for each contrast, until it is trained, but from lower noise levels on."""
    network = UNet(**TINY).double()
    start = network if kind == "denoiser" else unrolled_of([network], n_steps=2)
    if kind == "solver":
        start.level.data, start.weight.data = torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.4])
    found = joint(start)
    if kind == "denoiser":
        found, start = (unrolled_of([one.double()], n_steps=2) for one in (found, start))
    if kind == "solver":
        torch.testing.assert_close(found.level - start.level, torch.tensor([0.5, 1.0]).log())
        start.level.data = found.level.data
    for solver in (found, start):
        solver.priors[0].coarse = False
    volume = Grid((12, 12, 12), np.eye(4))
    scans = [acquisition(volume.coarsen(steps), reference=volume) for steps in ((1, 1, 3), (3, 1, 1))]
    x = torch.rand(1, 2, 12, 12, 12, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.03], dtype=torch.float64)
    operator = Contrasts(scans)
    together = found.double()(operator, operator(x), sigma.reshape(2, 1, 1, 1))
    alone = [start.double()(one, one(x[:, n : n + 1]), float(sigma[n])) for n, one in enumerate(scans)]
    torch.testing.assert_close(together, torch.cat(alone, 1))


def test_a_joint_network_starts_from_a_unet_only():
    with pytest.raises(InvsrError, match="DnCNN: several contrasts take a UNet"):
        joint(build("DnCNN", {"dim": 3, "channels": 4, "depth": 3}))


def test_it_learns(paths, tmp_path):
    gains = []
    recipe = replace(SHORT, steps=60, thickness=(3.0, 3.0), gap=0.0, noise=(0.01, 0.01), average=0.5)
    train_solver(paths, tmp_path / "w.safetensors", recipe, log=None, report=lambda s, n, e: gains.append(e))
    first, last = gains[4]["loss"], sum(one["loss"] for one in gains[-5:]) / 5
    assert last < 0.9 * first and gains[-1]["gain_db"] > gains[4]["gain_db"]
    solver, about = load_solver(tmp_path / "w.safetensors")
    assert about["steps"] == 60 and about["thickness"] == [3.0, 3.0] and solver.n_steps == 2
    assert float(solver.level.abs().max()) > 1e-3  # the steps' numbers are trained, too


def test_resumed_as_if_never_stopped(paths, tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_solver(paths, whole, SHORT, log=None)

    class StopError(Exception):
        pass

    def stop(step, steps, entry):
        if step == 4:
            raise StopError

    with pytest.raises(StopError):
        train_solver(paths, parts, SHORT, log=None, save_every=2, report=stop)
    train_solver(paths, parts, SHORT, log=None)
    one, other = (load_solver(path)[0].state_dict() for path in (whole, parts))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_start_from_a_denoiser(paths, tmp_path):
    torch.manual_seed(3)
    network = build("UNet", TINY)
    recipe = replace(SHORT, steps=1, rate=1e-12, shared=False)
    train_solver(paths, tmp_path / "w.safetensors", recipe, start_from=network, log=None)
    solver, _ = load_solver(tmp_path / "w.safetensors")
    assert len(solver.priors) == 2
    for prior in solver.priors:
        for name, value in prior.network.state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], atol=1e-3, rtol=1e-2)
    with pytest.raises(InvsrError, match="the weights to start from belong to UNet"):
        train_solver(paths, tmp_path / "v.safetensors", recipe, start_from=UNet(channels=(2, 4)), log=None)


@pytest.mark.parametrize("kind", ["unrolled", "deq"])
def test_start_from_a_solver(paths, tmp_path, kind):
    first, again, other = (tmp_path / f"{name}.safetensors" for name in ("first", "again", "other"))
    train_solver(paths, first, replace(SHORT, kind=kind), log=None)
    assert holds_solver(first) and not holds_solver("mri-denoiser") and not holds_solver(tmp_path / "no.safetensors")
    start = load_solver(first, None)[0].requires_grad_(True)
    start.get_parameter("level" if kind == "unrolled" else "log_level").data += 0.25
    train_solver(paths, again, replace(SHORT, kind=kind, steps=1, rate=1e-12), start_from=start, log=None)
    for name, value in load_solver(again, kind)[0].state_dict().items():
        torch.testing.assert_close(value, start.state_dict()[name], atol=1e-3, rtol=1e-2)
    # The other kind takes its network.
    swapped = replace(SHORT, kind="deq" if kind == "unrolled" else "unrolled", steps=1, rate=1e-12)
    train_solver(paths, other, swapped, start_from=start, log=None)
    mine, theirs = network_of(start), network_of(load_solver(other, None)[0])
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(value, mine.state_dict()[name], atol=1e-3, rtol=1e-2)
    if kind == "unrolled":
        # What the steps shared each may begin with.
        own = replace(SHORT, steps=1, rate=1e-12, shared=False)
        train_solver(paths, tmp_path / "own.safetensors", own, start_from=start, log=None)
        apart = load_solver(tmp_path / "own.safetensors")[0]
        torch.testing.assert_close(apart.level, start.level, atol=1e-3, rtol=1e-2)
        for prior in apart.priors:
            for name, value in prior.network.state_dict().items():
                torch.testing.assert_close(value, mine.state_dict()[name], atol=1e-3, rtol=1e-2)
        with pytest.raises(InvsrError, match="other steps or networks"):
            train_solver(paths, tmp_path / "x.safetensors", replace(SHORT, n_steps=5), start_from=start, log=None)


def test_an_equilibrium_without_an_ending_gets_one(paths, tmp_path):
    out, start = tmp_path / "w.safetensors", equilibrium_of(build("UNet", TINY), n_ending=0)
    with torch.no_grad():
        start.log_level += 0.25
    train_solver(paths, out, replace(SHORT, kind="deq", steps=1, rate=1e-12), start_from=start, log=None)
    found = load_solver(out, "deq")[0]
    assert float(found.log_level) == pytest.approx(0.25, abs=1e-3)
    assert found.ending.level.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_weights_serve_reconstruct(paths, tmp_path):
    out = tmp_path / "w.safetensors"
    train_solver(paths, out, SHORT, log=None)
    truth = load(paths[0])
    scan = simulate(truth, slice_thickness=3.0, noise=0.02, axis=2)
    given = {"method": "unrolled", "model": out, "noise": 0.02 * float(truth.data.max())}
    solution = reconstruct(scan, reference=truth.grid, **given)
    assert solution.grid == truth.grid and len(solution.history) == 2 and bool(solution.x.isfinite().all())
    with pytest.warns(InvsrWarning, match=r"slices 6 target voxels thick: the network was trained on 2 to 4"):
        reconstruct(simulate(truth, slice_thickness=6.0, noise=0.02, axis=2), **given)


def test_equilibria_are_trained_by_the_same_recipe(paths, tmp_path):
    out = tmp_path / "w.safetensors"
    losses = []
    recipe = replace(
        SHORT, kind="deq", steps=32, n_steps=8, thickness=(3.0, 3.0), gap=0.0, noise=(0.01, 0.01), average=0.5
    )
    train_solver(paths, out, recipe, log=None, report=lambda s, n, e: losses.append(e["loss"]))
    assert sum(losses[-10:]) < 0.95 * sum(losses[2:12])
    truth = load(paths[0])
    scan = simulate(truth, slice_thickness=3.0, noise=0.01, axis=2)
    given = {"method": "deq", "model": out, "noise": 0.01 * float(truth.data.max()), "reference": truth.grid}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvsrWarning)  # so short a training need not lead to a fixed point
        solution = reconstruct(scan, **given)
        assert 1 <= len(solution.history) <= 8 and bool(solution.x.isfinite().all())
        with pytest.raises(InvsrError, match="method deq takes Gaussian noise in all voxels only"):
            reconstruct(scan, noise_model="rician", **given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_steps": 0}, "n_steps is 0: unroll at least one"),
        ({"loss": "l7"}, "no loss 'l7'"),
        ({"config": {"dim": 2, "channels": [2, 4]}}, "is trained on volumes"),
        ({"thickness": (4.0, 2.0)}, "thickness range"),
        ({"noise": (0.0, 0.1)}, "noise range"),
        ({"thin": 2.0}, "thin is 2: give a share"),
        ({"stacks": 1.2}, "stacks is 1.2: give a share"),
        ({"oblique": -0.1}, "oblique is -0.1: give a share"),
        ({"step": "red"}, "cannot be trained"),
        ({"contrasts": 5}, "contrasts is 5: train on one to four"),
        ({"contrasts": 2, "stacks": 0.5}, "kind unrolled, supervision truth, stacks and kspace 0"),
        ({"kspace": 1.5}, "kspace is 1.5: give a share between 0 and 1"),
        ({"kspace": 0.5, "loss": "l1 + physics"}, "a loss without physics"),
    ],
)
def test_bad_recipes(paths, tmp_path, change, words):
    with pytest.raises(InvsrError, match=words):
        train_solver(paths, tmp_path / "w.safetensors", replace(SHORT, **change), log=None)
    assert not list(tmp_path.iterdir())
