"""Training a denoiser: it learns, resumes and refuses."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import default_collate

from invsr.errors import InvsrError
from invsr.models.architectures import build
from invsr.models.weights import load_weights
from invsr.priors.loading import pretrained
from invsr.training.denoiser import Patches, Recipe, train_denoiser
from invsr.training.loop import ORIGINS, _loader, _rate
from invsr.training.synthesis import Anatomies

TINY = {"dim": 3, "channels": [4, 8]}
SHORT = Recipe(config=TINY, steps=12, patch=(8, 8, 8))


@pytest.fixture
def paths(folder):
    return [folder / "image.nii.gz", folder / "deeper" / "labels.nii.gz"]


def train(paths, out, recipe, **options):
    return train_denoiser(paths, out, recipe, device="cpu", bfloat16=False, **options)


def state(out):
    return torch.load(out.with_suffix(".ckpt"), weights_only=True)


def test_it_learns_to_denoise(paths, tmp_path):
    """On patches it has not seen it leaves a third of the squared error, where first weights add to it."""
    recipe = replace(SHORT, steps=50, batch=2, patch=(16, 16, 16), sigma=(0.2, 0.2), measured=0, rate=1e-2, average=0.5)
    trained, about = load_weights(train(paths, tmp_path / "w.safetensors", recipe))
    patches = Patches(Anatomies(paths), replace(recipe, seed=1))
    clean, noisy, sigma = default_collate([patches[n] for n in range(8)])
    with torch.no_grad():
        after, before = ((image - clean).square().mean() for image in (trained(noisy, sigma), noisy))
    assert after < 0.5 * before
    assert about["steps"] == 50 and about["recipe"]["rate"] == 1e-2 and about["data"] == "1 label maps, 1 volumes"
    noise = 0.1 * torch.randn((1, 1, 10, 11, 12), generator=torch.Generator().manual_seed(0))
    assert pretrained(tmp_path / "w.safetensors").prox(noise, 0.1).norm() < 0.5 * noise.norm()


def test_a_resumed_run_ends_as_one_that_was_not_stopped(paths, tmp_path):
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(paths, whole, SHORT)

    def stop(step, *_):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(paths, parts, SHORT, save_every=6, report=stop)
    assert state(parts)["step"] == 6
    steps = []
    train(paths, parts, SHORT, save_every=6, report=lambda step, *_: steps.append(step))
    assert steps == list(range(7, 13))
    assert whole.read_bytes() == parts.read_bytes()
    one, other = state(whole), state(parts)
    for name in ("model", "average"):
        for key, value in one[name].items():
            assert torch.equal(value, other[name][key]), key
    # And a third time there is nothing left to do but to write what is missing.
    parts.unlink()
    train(paths, parts, SHORT, report=lambda *_: pytest.fail("trained on"))
    assert whole.read_bytes() == parts.read_bytes()


def test_another_recipe_is_not_resumed(paths, tmp_path):
    out = train(paths, tmp_path / "w.safetensors", replace(SHORT, steps=1))
    wider = replace(SHORT, steps=1, config={"dim": 3, "channels": [6]})
    for other, words in ((SHORT, "steps 1, not 12"), (wider, "config .* not .*6")):
        with pytest.raises(InvsrError, match=words):
            train(paths, out, other)
    out.with_suffix(".ckpt").write_bytes(b"nothing")
    with pytest.raises(InvsrError, match="damaged"):
        train(paths, out, SHORT)


def test_other_files_or_weights_are_not_resumed(paths, tmp_path):
    short = replace(SHORT, steps=1)
    out = train(paths, tmp_path / "w.safetensors", short)
    before, other = out.read_bytes(), load_weights(out)[0]
    with pytest.raises(InvsrError, match=r"w.ckpt: belongs to another run \(other training files\)"):
        train(paths[:1], out, short)
    with pytest.raises(InvsrError, match=r"w.ckpt: belongs to another run \(other initial weights\)"):
        train(paths, out, short, start_from=other)
    assert out.read_bytes() == before
    copies = [tmp_path / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    train(copies, out, short, report=lambda *_: pytest.fail("trained on"))


def test_runs_of_earlier_versions_resume(paths, tmp_path):
    """Their checkpoints hold neither what they were trained on nor what they began with."""
    short = replace(SHORT, steps=1)
    out = train(paths, tmp_path / "w.safetensors", short)
    kept = state(out)
    kept["recipe"] = json.dumps(
        {name: value for name, value in json.loads(kept["recipe"]).items() if name not in ORIGINS}
    )
    torch.save(kept, out.with_suffix(".ckpt"))
    train(paths, out, short, report=lambda *_: pytest.fail("trained on"))


@pytest.mark.parametrize(
    "architecture, config",
    [
        ("UNet", {"dim": 2, "channels": [4, 8]}),
        ("UNet", {"dim": 2, "channels": [4, 8], "neighbours": 1}),
        ("DnCNN", {"dim": 3, "channels": 4, "depth": 3}),
        ("GradientStep", {"network": {"architecture": "UNet", "dim": 3, "channels": [4, 8], "activation": "elu"}}),
    ],
    ids=["slices", "slabs", "DnCNN", "gradient step"],
)
def test_other_networks_train(paths, tmp_path, architecture, config):
    recipe = replace(SHORT, architecture=architecture, config=config, steps=4, batch=2, average=0.0)
    trained, _ = load_weights(train(paths, tmp_path / "w.safetensors", recipe))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        first = build(architecture, config)
    moved = [float((a - b).detach().abs().max()) for a, b in zip(trained.parameters(), first.parameters(), strict=True)]
    assert min(moved) > 5e-4  # every layer, by more than half precision rounds
    image = torch.rand(2, 1 + 2 * trained.neighbours, *[8] * trained.dim)
    assert trained(image, 0.1).shape == (2, 1, *[8] * trained.dim)


def test_start_from(paths, tmp_path):
    start = build("UNet", TINY)
    out = train(paths, tmp_path / "w.safetensors", replace(SHORT, steps=1, rate=1e-9), start_from=start)
    trained, _ = load_weights(out)
    for a, b in zip(trained.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-3, atol=1e-5)
    with pytest.raises(InvsrError, match="weights to start from"):
        train(paths, tmp_path / "other.safetensors", SHORT, start_from=build("UNet", {"channels": [4]}))


@pytest.mark.parametrize(("log", "steps"), [("csv", 51), ("tensorboard", 2), (None, 2)])
def test_log(paths, tmp_path, log, steps):
    if log == "tensorboard":
        pytest.importorskip("tensorboard")
    train(paths, tmp_path / "w.safetensors", replace(SHORT, steps=steps), log=log)
    folder = tmp_path / "w_log"
    if log is None:
        assert not folder.exists()
    elif log == "tensorboard":
        assert list(folder.rglob("events*"))
    else:
        rows = list(csv.DictReader((folder / "metrics.csv").open()))
        assert [row["step"] for row in rows] == ["50", "51"] and set(rows[0]) == {"step", "loss", "gain_db", "rate"}
        rates = [SHORT.rate * _rate(step, 51) for step in (49, 50)]  # that of the 50th step and of the 51st
        assert [float(row["rate"]) for row in rows] == pytest.approx(rates) and rates[1] > 0


def test_several_processes_share_each_batch(paths):
    patches = Patches(Anatomies(paths), replace(SHORT, steps=3, batch=4))

    def sigmas(rank, size):
        fabric = SimpleNamespace(global_rank=rank, world_size=size, setup_dataloaders=lambda loader, **_: loader)
        return [sorted(sigma.tolist()) for _, _, sigma in _loader(fabric, patches, patches.recipe, first=1, workers=0)]

    shared = [sorted(one + other) for one, other in zip(sigmas(0, 2), sigmas(1, 2), strict=True)]
    assert shared == sigmas(0, 1) and len(shared) == 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"patch": (8, 8)}, "three sides"),
        ({"sigma": (0.0, 0.1)}, "above zero"),
        ({"sigma": (0.2, 0.1)}, "low first"),
        ({"measured": 2}, "share"),
        ({"rate": -1.0}, "learning rate"),
        ({"patch": (8, 8, 9)}, "8x8x9.* multiples of 2"),
        ({"config": {"dim": 2, "neighbours": 2, "channels": [4]}, "patch": (4, 8, 8)}, "4 slices.*needs 5"),
        (
            {
                "architecture": "GradientStep",
                "config": {"network": {"architecture": "UNet", "dim": 2, "neighbours": 1}},
            },
            "no neighbours",
        ),
        ({"rate": 1e30}, "lower rate"),
    ],
)
def test_bad_recipe(paths, tmp_path, change, words):
    with pytest.raises(InvsrError, match=words):
        train(paths, tmp_path / "w.safetensors", replace(SHORT, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, words",
    [
        ({"device": "abacus"}, "abacus"),
        ({"devices": 0}, "devices is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"save_every": 0}, "save_every is 0"),
        ({"log": "paper"}, "paper"),
    ],
)
def test_bad_option(paths, tmp_path, options, words):
    with pytest.raises(InvsrError, match=words):
        train_denoiser(paths, tmp_path / "w.safetensors", SHORT, **{"device": "cpu", **options})
    assert not list(tmp_path.iterdir())
