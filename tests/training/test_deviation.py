"""Training of networks that know a solver's errors: intervals that hold, patches that are reconstructed once."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import invsr
from invsr.errors import InvsrError
from invsr.models.networks import UNet
from invsr.solvers.trained import save_solver, unrolled_of
from invsr.training.deviation import Errors, objective, train_deviation
from invsr.training.recipe import DeviationRecipe
from invsr.uncertainty.predicted import load_deviation

RANGES = {"thickness": [2.0, 4.0], "gap": 0.3, "noise": [0.005, 0.03], "stacks": 0.3}


@pytest.fixture
def paths(folder):
    return [folder / "image.nii.gz", folder / "deeper" / "labels.nii.gz"]


@pytest.fixture
def recipe(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_solver(unrolled_of([UNet(channels=(4, 8))], n_steps=2), path, RANGES)
    return DeviationRecipe(solver=str(path), draws=4, channels=(8, 8), steps=8, side=16, rate=1e-2)


def test_its_intervals_hold_where_it_learned(paths, recipe, tmp_path):
    figures, out = [], tmp_path / "w-deviation.safetensors"
    recipe = replace(recipe, steps=120, average=0.9)
    train_deviation(paths, out, recipe, log=None, report=lambda s, n, entry: figures.append(entry))
    assert figures[-1]["loss"] < figures[0]["loss"]
    found = load_deviation(recipe.solver)
    assert found.about["steps"] == 120 and found.about["data"] == "1 label maps, 1 volumes"
    draws = [load_file(path) for path in (tmp_path / "w-deviation_draws").glob("*.safetensors")]
    assert len(draws) == recipe.draws
    batch = [torch.stack([one[name] for one in draws]).float() for name in ("known", "error", "clean", "sigma")]
    with torch.no_grad():
        _, shares = objective(found.network, batch)
    assert shares["within 68%"] == pytest.approx(0.68, abs=0.06)
    assert shares["within 95%"] == pytest.approx(0.95, abs=0.04)


def test_resumed_with_the_patches_that_are_there(paths, recipe, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_deviation(paths, whole, recipe, log=None)

    class StopError(Exception):
        pass

    def stop(step, steps, entry):
        if step == 4:
            raise StopError

    with pytest.raises(StopError):
        train_deviation(paths, parts, recipe, log=None, save_every=2, report=stop)

    def again(*_):
        raise AssertionError("reconstructed again")

    monkeypatch.setattr(Errors, "_reconstructed", again)
    train_deviation(paths, parts, recipe, log=None)
    assert whole.read_bytes() == parts.read_bytes()
    for one, other in ((paths, replace(recipe, seed=1)), (paths[:1], recipe)):
        with pytest.raises(InvsrError, match="parts_draws: its patches belong to another solver, recipe or data"):
            train_deviation(one, parts, other, log=None)
    save_solver(unrolled_of([UNet(channels=(4, 8))], n_steps=3), recipe.solver, RANGES)
    with pytest.raises(InvsrError, match="parts_draws: its patches belong to another solver"):
        train_deviation(paths, parts, recipe, log=None)


def test_patches_belong_to_the_files_wherever_they_lie(paths, recipe, tmp_path):
    """Not to their names: of other volumes under the same names they were the old ones."""
    out = tmp_path / "w-deviation.safetensors"
    train_deviation(paths, out, recipe, log=None)
    moved = [shutil.copy(path, tmp_path / path.name) for path in paths]
    train_deviation(moved, out, recipe, log=None)
    image = invsr.load(paths[0])
    invsr.save(image.with_data(image.data.flip(2)), paths[0])
    out.with_suffix(".ckpt").unlink()
    with pytest.raises(InvsrError, match="w-deviation_draws: its patches belong to another solver, recipe or data"):
        train_deviation(paths, out, recipe, log=None)


def test_the_loss_is_least_where_the_shares_are_right():
    """Of errors that are normally distributed with a known deviation."""
    torch.manual_seed(0)
    true, clean = torch.full((1, 1, 32, 32, 32), 0.03), torch.ones(1, 1, 32, 32, 32)
    error = (true * torch.randn(true.shape)).abs()
    sigma = torch.tensor([0.01])

    def loss(factor):
        return objective(lambda known, _: factor * known, [true, error, clean, sigma])

    right, figures = loss(1.0)
    assert all(loss(factor)[0] > right for factor in (0.8, 0.9, 1.1, 1.25))
    assert figures == {"within 68%": pytest.approx(0.683, abs=0.01), "within 95%": pytest.approx(0.95, abs=0.01)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"side": 20}, "side is 20"),
        ({"rate": 0.0}, "rate 0"),
        ({"solver": "mri-unrolled-kspace"}, "mri-unrolled-kspace: was trained on other data"),
        ({"solver": "mri-denoiser"}, "no unrolled 'mri-denoiser'"),
    ],
)
def test_what_cannot_be_trained(paths, recipe, tmp_path, change, words):
    with pytest.raises(InvsrError, match=words):
        train_deviation(paths, tmp_path / "o.safetensors", replace(recipe, **change), log=None)
    assert not (tmp_path / "o.safetensors").exists()
