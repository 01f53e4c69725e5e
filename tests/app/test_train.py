"""`invsr train` as a user meets it."""

import errno
import hashlib
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from invsr.models.architectures import build
from invsr.models.weights import load_weights, save_weights
from invsr.priors import pretrained
from invsr.solvers.trained import load_solver

QUICK = ("--patch", 8, "--channels", "4 8", "--steps", 2, "--device", "cpu")


def train(run, folder, out, *options):
    return run("train", "denoiser", "--data", folder, "--out", out, *options)


def refused(result, out, *words):
    """Exit code not 0, one line on standard error with these words, and nothing written."""
    code, _, err = result
    assert code != 0 and len(err.strip().splitlines()) == 1, err
    for word in ("invsr: error: ", *words):
        assert word in err
    assert not out.exists() and not list(out.parent.glob(".invsr*"))


def test_train_and_use(run, folder, tmp_path, write):
    out, scan = tmp_path / "w.safetensors", tmp_path / "scan.nii"
    code, said, err = train(run, folder, out, *QUICK)
    assert code == 0, err
    assert said == f"wrote {out}: use it with: invsr reconstruct SCAN --method pnp --denoiser {out}\n"
    write(scan, np.random.default_rng(0).random((12, 12, 6)))
    code, _, err = run(
        "reconstruct", scan, "-o", tmp_path / "o.nii", "--method", "pnp", "--denoiser", out, "--max-iter", 2
    )
    assert code == 0 and (tmp_path / "o.nii").exists(), err


def test_options_reach_the_recipe(run, folder, tmp_path):
    out = tmp_path / "w.safetensors"
    code, _, err = train(
        run,
        folder,
        out,
        *("--steps", 1, "--batch", 2, "--patch", 6, 8, 8, "--channels", 4, 8, "--dim", 2, "--neighbours", 1),
        *("--architecture", "UNet", "--sigma-range", 0.1, 0.2, "--measured", 0.25, "--rate", 0.01, "--seed", 3),
        *("--log", "none", "--workers", 1, "--save-every", 1, "--device", "cpu"),
    )
    assert code == 0, err
    recipe = load_weights(out)[1]["recipe"]
    assert recipe == {
        "architecture": "UNet",
        "config": {"dim": 2, "neighbours": 1, "channels": [4, 8]},
        "steps": 1,
        "batch": 2,
        "patch": [6, 8, 8],
        "sigma": [0.1, 0.2],
        "measured": 0.25,
        "rate": 0.01,
        "seed": 3,
        "average": 0.998,
    }
    assert not (tmp_path / "w_log").exists()


@pytest.mark.parametrize(
    "options, kind, activation",
    [
        (("--channels", "4,8", "--architecture", "GradientStep"), "GradientStep", "elu"),
        (("--channels", "4", "--architecture", "DnCNN"), "DnCNN", None),
        (("--channels", "4,8", "--architecture", "ShuffledUNet"), "ShuffledUNet", None),
    ],
)
def test_architectures(run, folder, tmp_path, options, kind, activation):
    out = tmp_path / "w.safetensors"
    assert train(run, folder, out, "--steps", 1, "--patch", 8, "--device", "cpu", *options)[0] == 0
    network = pretrained(out).network
    assert type(network).__name__ == kind
    assert network.config.get("network", {}).get("activation") == activation


@pytest.mark.parametrize("kind", ["unrolled", "deq"])
def test_whole_solvers(run, folder, tmp_path, write, kind):
    first, out, scan = tmp_path / "d.safetensors", tmp_path / "w.safetensors", tmp_path / "scan.nii"
    save_weights(build("UNet", {"dim": 3, "channels": [4, 8]}), first, {})
    own = ("--n-steps", 2, "--loss", "l1 + 0.5 edge", "--own") if kind == "unrolled" else ("--max-iter", 4)
    code, said, err = run(
        *("train", kind, "--data", folder, "--out", out, "--start-from", first, "--steps", 2, "--batch", 2),
        *("--patch", 16, 8, 8, "--thickness", 2, 3, "--gap", 0.1, "--noise-range", 0.01, 0.02, "--rate", 0.001),
        *("--step", "admm", "--seed", 3, "--log", "none", "--device", "cpu"),
        *own,
    )
    assert code == 0, err
    assert said == f"wrote {out}: use it with: invsr reconstruct SCAN --method {kind} --model {out}\n"
    recipe = load_solver(out, kind)[1]["recipe"]
    expected = {
        "kind": kind,
        "step": "admm",
        "steps": 2,
        "batch": 2,
        "patch": [16, 8, 8],
        "thickness": [2.0, 3.0],
        "gap": 0.1,
        "noise": [0.01, 0.02],
        "rate": 0.001,
        "seed": 3,
        "config": {"dim": 3, "channels": [4, 8]},
    }
    recipe["config"] = {key: recipe["config"][key] for key in ("dim", "channels")}
    assert {key: recipe[key] for key in expected} == expected
    image = np.zeros((24, 24, 10))
    image[4:20, 4:20, 1:9] = 100 + 100 * (np.indices((16, 16, 8)).sum(0) > 20)
    write(scan, image + np.random.default_rng(0).normal(0, 2, image.shape))
    code, _, err = run("reconstruct", scan, "-o", tmp_path / "o.nii", "--method", kind, "--model", out)
    assert code == 0 and (tmp_path / "o.nii").exists(), err


@pytest.mark.parametrize("by_name", [True, False])
def test_start_from(run, folder, tmp_path, monkeypatch, by_name):
    start, out = tmp_path / "start.safetensors", tmp_path / "w.safetensors"
    save_weights(build("UNet", {"dim": 2, "channels": [6]}), start, {})
    sha256 = hashlib.sha256(start.read_bytes()).hexdigest()
    shipped = {"small": {"file": start.name, "kind": "denoiser", "sha256": sha256}}
    (tmp_path / "models.json").write_text(json.dumps(shipped))
    monkeypatch.setattr(importlib.import_module("invsr.models.registry"), "ROOM", tmp_path)
    options = ("--start-from", "small" if by_name else start, "--steps", 1, "--patch", 5, "--device", "cpu")
    refused(train(run, folder, out, *options, "--dim", 2), out, "--start-from", "--dim")
    for wrong in ("nothing", "deepinv:Nothing", tmp_path / "none.safetensors"):
        refused(train(run, folder, out, "--start-from", wrong), out, str(wrong))
    assert train(run, folder, out, *options)[0] == 0
    assert load_weights(out)[0].config["channels"] == (6,)


def test_interrupted(run, folder, tmp_path, monkeypatch):
    out = tmp_path / "w.safetensors"

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("invsr.training.denoiser.train_denoiser", stopped)
        result = train(run, folder, out, *QUICK)
        refused(result, out, "before the first save", "--save-every")
        assert result[0] == 130
        out.with_suffix(".ckpt").touch()
        refused(train(run, folder, out, *QUICK), out, "same command again", "w.ckpt")


def test_another_recipe(run, folder, tmp_path):
    out = tmp_path / "w.safetensors"
    assert train(run, folder, out, *QUICK)[0] == 0
    before = out.read_bytes()
    code, _, err = train(run, folder, out, *QUICK, "--seed", 1)
    assert code == 1 and "seed 0, not 1" in err and len(err.splitlines()) == 1
    assert out.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "cut short", "recipe alone"])
def test_a_damaged_checkpoint_is_one_line_of_error(run, folder, tmp_path, damage):
    out, checkpoint = tmp_path / "w.safetensors", tmp_path / "w.ckpt"
    assert train(run, folder, out, *QUICK)[0] == 0
    if damage == "text":
        checkpoint.write_bytes(b"text")
    elif damage == "cut short":
        checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    else:
        torch.save({"recipe": torch.load(checkpoint, weights_only=True)["recipe"]}, checkpoint)
    before = out.read_bytes()
    code, _, err = train(run, folder, out, *QUICK)
    assert (
        code == 1 and err == f"invsr: error: {checkpoint}: is not the state of a training run, or damaged: delete it\n"
    )
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "options, words",
    [
        (["--patch", "8", "8"], "--patch 8 8"),
        (["--patch", "50"], "50x50x50 voxels: the network needs sides that are multiples of 4"),
        (["--channels", "4 x"], "--channels 4 x"),
        (["--channels", "4", "8", "--architecture", "DnCNN"], "one width"),
        (["--architecture", "Transformer"], "Transformer"),
        (["--dim", "4"], "dim is 4"),
        (["--steps", "0"], "steps is 0"),
        (["--device", "abacus"], "abacus"),
        (["--log", "paper"], "paper"),
    ],
)
def test_bad_option(run, folder, tmp_path, options, words):
    out = tmp_path / "w.safetensors"
    refused(train(run, folder, out, "--steps", 1, "--device", "cpu", *options), out, words)
    assert not list(tmp_path.iterdir())


def test_bad_folders(run, folder, tmp_path):
    out, empty = tmp_path / "w.safetensors", tmp_path / "empty"
    empty.mkdir()
    refused(train(run, empty, out), out, "empty", "holds no .nii")
    refused(train(run, tmp_path / "none", out), out, "none", "is no folder")
    wrong = tmp_path / "w.pt"
    refused(train(run, folder, wrong), wrong, "w.pt", "must end in .safetensors")
    nowhere = tmp_path / "nowhere" / "w.safetensors"
    refused(train(run, folder, nowhere), nowhere, "nowhere", "does not exist")
    (empty / "broken.nii").write_text("not an image")
    refused(train(run, empty, out), out, "broken.nii")


def test_write_protected_folder(run, folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    out = tmp_path / "w.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)  # root may write anywhere
        result = train(run, folder, out)
    refused(result, out, "not writable (Permission denied)")


def test_help_needs_no_training_package():
    code = (
        "import sys; import invsr.app.command_line; "
        "print([name for name in ('lightning_fabric', 'invsr.training.denoiser', 'nibabel') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
