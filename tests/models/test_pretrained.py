"""Weights files: the round trip, damage of every kind, and what comes with the package."""

import hashlib
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_networks import NETWORKS, made, volume

from invsr.errors import InvsrError
from invsr.models.architectures import multiply_adds
from invsr.models.networks import DnCNN, UNet
from invsr.priors import Denoiser, card, load_weights, models, pretrained, save_weights
from invsr.solvers.trained import load_solver
from invsr.testing.phantoms import centred_grid, shapes
from invsr.uncertainty.predicted import load_deviation

MEGABYTE = 1_000_000
# The function pretrained hides the module of that name.
module = sys.modules["invsr.models.registry"]


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(made(), path, {"for": "tests"})
    return path


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Two models in the place of those that come with the package."""
    entries = {}
    for name, kind in (("brain", "UNet 3-D"), ("slices", "DnCNN")):
        path = tmp_path / f"{name}-1.safetensors"
        save_weights(made(kind), path, {})
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entries[name] = {"file": path.name, "kind": "denoiser", "sha256": sha256, "for": kind}
        (tmp_path / f"{name}.md").write_text(f"# {name}: trained on nothing, 3 µm\n", encoding="utf-8")
    (tmp_path / "models.json").write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.setattr(module, "ROOM", tmp_path)
    return tmp_path


def refused(path, match, **options):
    """The message of the refusal: one line, and it says which file."""
    with pytest.raises(InvsrError, match=match) as error:
        load_weights(path, **options)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# The round trip -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_come_back_as_they_were_but_for_rounding(name, tmp_path):
    network = made(name)
    description = {"sigma": [0.0, 0.2], "data": "simulated, µ", "recipe": {"steps": 3}}
    save_weights(network, tmp_path / "a.safetensors", description)
    again, about = load_weights(tmp_path / "a.safetensors")
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]
    assert type(again) is type(network)
    assert {key: about[key] for key in description} == description
    assert about["architecture"] == type(network).__name__
    assert about["config"] == json.loads(json.dumps(network.config))
    expected = network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for key, value in again.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[key].half().float())
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_saving_leaves_the_network_alone_and_replaces_the_file(tmp_path):
    network, path = made(), tmp_path / "a.safetensors"
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    path.write_bytes(b"what was there before")
    save_weights(network, str(path), {})
    assert load_file(path)["tail.weight"].dtype == torch.float16
    assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())
    assert network.tail.weight.dtype == torch.float32 and network.tail.weight.requires_grad


def test_weights_file_as_a_prior(weights):
    network, _ = load_weights(weights)
    v = volume(5, 6, 7)
    for name in (weights, str(weights)):
        prior = pretrained(name, symmetries=False, bfloat16=False)
        assert (prior.name, prior.dim, prior.symmetries) == ("weights", 3, False)
        expected = Denoiser(network, symmetries=False, bfloat16=False).prox(v, 0.1)
        assert torch.equal(prior.prox(v, 0.1), expected)


# Damage ---------------------------------------------------------------------------------------------


def test_checksum_is_checked(weights):
    content = weights.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    load_weights(weights, sha256)
    for position in (9, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        weights.write_bytes(changed)
        refused(weights, "SHA-256 .* as published: .* install invsr again", sha256=sha256)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -500, -1])
def test_truncated_files_are_refused(weights, kept):
    weights.write_bytes(weights.read_bytes()[:kept])
    refused(weights, "not a weights file of invsr, or a damaged one")


def test_files_with_more_than_weights_are_refused(weights):
    weights.write_bytes(weights.read_bytes() + b"more")
    refused(weights, "not a weights file of invsr, or a damaged one")


@pytest.mark.parametrize("content", [b"hello", b"{}", bytes(1000), b"\xff" * 1000, b"# A card\n" * 50])
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "notes.safetensors"
    path.write_bytes(content)
    refused(path, "not a weights file of invsr")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    refused(tmp_path / "missing.safetensors", "cannot be read as weights .No such file")
    refused(tmp_path, "cannot be read as weights")
    with pytest.raises(InvsrError, match="missing.safetensors: cannot be read"):
        pretrained(tmp_path / "missing.safetensors")


DESCRIPTIONS = {
    "none": None,
    "someone else's": {"format": "pt"},
    "not JSON": {"invsr": "UNet"},
    "a text": {"invsr": '"UNet"'},
    "a list": {"invsr": "[1, 2]"},
    "nothing": {"invsr": "null"},
    "empty": {"invsr": "{}"},
    "no configuration": {"invsr": '{"architecture": "UNet"}'},
    "configuration is a list": {"invsr": '{"architecture": "UNet", "config": [3]}'},
    "unknown network": {"invsr": '{"architecture": "Transformer", "config": {}}'},
    "unknown option": {"invsr": '{"architecture": "UNet", "config": {"width": 3}}'},
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_weights_without_a_description_are_refused(tmp_path, name):
    path = tmp_path / "foreign.safetensors"
    save_file(made().state_dict(), path, DESCRIPTIONS[name])
    refused(path, "not a weights file of invsr")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("tail.weight"),
        lambda tensors: tensors.update(bias=torch.zeros(1)),
        lambda tensors: tensors.update({"tail.weight": torch.zeros(1, 5, 3, 3, 3)}),
    ],
    ids=["missing", "too many", "another shape"],
)
def test_weights_that_do_not_fit_their_description_are_refused(tmp_path, change):
    network, path = made(), tmp_path / "other.safetensors"
    tensors = network.state_dict()
    change(tensors)
    save_file(tensors, path, {"invsr": json.dumps({"architecture": "UNet", "config": network.config})})
    refused(path, "not a weights file of invsr, or a damaged one .*UNet")


# The package's models -------------------------------------------------------------------------------


def test_models_by_name(room):
    assert list(models()) == ["brain", "slices"]
    prior = pretrained("slices", planes=2, seed=3)
    assert (prior.name, prior.dim, prior.planes) == ("slices", 2, 2)
    assert isinstance(prior.network, DnCNN)
    assert isinstance(pretrained("brain").network, UNet)
    assert card("brain") == "# brain: trained on nothing, 3 µm\n"


@pytest.mark.parametrize(
    ("read", "words"),
    [(pretrained, "no denoiser '{}': use one of brain, slices, a .safetensors file, or"), (card, "no model '{}': use")],
)
@pytest.mark.parametrize("name", ["heart", "", "brain-1", "../brain"])
def test_unknown_models_list_the_known_ones(room, read, words, name):
    with pytest.raises(InvsrError, match=words.format(name)):
        read(name)


def test_damaged_models_are_refused(room):
    path = room / "brain-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvsrError, match="brain-1.safetensors: SHA-256"):
        pretrained("brain")
    path.unlink()
    with pytest.raises(InvsrError, match="brain-1.safetensors: cannot be read"):
        pretrained("brain")
    pretrained("slices")


def test_what_comes_with_the_package():
    there = models()
    assert module.DEFAULT in there
    files = {}
    for name, entry in there.items():
        path = module.ROOM / entry["file"]
        content = path.read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
        files[path.name] = len(content)
        if entry["kind"] == "denoiser":
            network, _ = load_weights(path, entry["sha256"])
            assert multiply_adds(network) > 0
        elif entry["kind"] == "deviation":
            network = load_deviation(name.removesuffix("-deviation")).network
        else:
            network, about = load_solver(name, entry["kind"])
            assert {"thickness", "gap", "noise"} <= set(about), name
        assert sum(parameter.numel() for parameter in network.parameters()) == entry["parameters"], name
        assert all(parameter.isfinite().all() for parameter in network.parameters()), name
        low, high = entry["sigma"]
        assert 0 <= low < high <= 1, name
        assert entry["for"].strip() and card(name).strip(), name
    denoisers = sum(files[entry["file"]] for entry in models("denoiser").values())
    assert denoisers <= 12 * MEGABYTE and max(files.values()) <= 8 * MEGABYTE
    kept = {path.name for path in module.ROOM.glob("*.safetensors")}
    assert kept == set(files)


def test_what_comes_with_the_package_removes_noise():
    clean = shapes(centred_grid((40, 40, 40)), size=40.0, n_samples=16)
    sigma = 0.05
    noisy = clean + sigma * volume(40, 40, 40)
    for name, entry in models("denoiser").items():
        assert entry["sigma"][0] <= sigma <= entry["sigma"][1], name
        with torch.no_grad():
            out = pretrained(name).prox(noisy, sigma)
        assert float((out - clean).square().mean().sqrt()) < 0.9 * sigma, name
