"""deepinv's denoisers as priors, and what is said where their weights cannot be had."""

import http.client
import struct
import sys
import urllib.error
import zipfile

import pytest
import torch
from saved_networks import made, volume

from invsr.errors import InvsrError
from invsr.models.registry import DEFAULT
from invsr.priors import pretrained


@pytest.fixture
def deepinv():
    return pytest.importorskip("deepinv", reason="deepinv's denoisers need deepinv")


@pytest.fixture
def dncnn(deepinv, tmp_path):
    """An untrained network of deepinv and a file with its weights."""
    torch.manual_seed(0)
    network = deepinv.models.DnCNN(in_channels=1, out_channels=1, pretrained=None)
    torch.save(network.state_dict(), tmp_path / "dncnn.pth")
    return network, tmp_path / "dncnn.pth"


def test_deepinv_with_weights_from_a_file_denoises_slices(dncnn):
    network, file = dncnn
    prior = pretrained(f"deepinv:DnCNN={file}", planes=1, symmetries=False, crop=False)
    assert (prior.name, prior.dim) == ("deepinv:DnCNN", 2)
    v = volume(8, 3, 16)
    with torch.no_grad():
        expected = torch.stack([network(v[:, :, :, n], sigma=0.1) for n in range(3)], 3)
        out = prior.prox(v, 0.1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert (out - v).abs().max() > 1e-3


def test_deepinv_moves_with_the_prior_and_is_not_trained(dncnn):
    _, file = dncnn
    prior = pretrained(f"deepinv:DnCNN={file}")
    parameters = list(prior.parameters())
    assert parameters and not any(parameter.requires_grad for parameter in parameters)
    v = volume(8, 3, 16)
    assert prior.to(torch.float64).prox(v.double(), 0.1).dtype == torch.float64


@pytest.mark.parametrize("name", ["Nothing", "", "__doc__", "Nothing=file.pth"])
def test_classes_that_deepinv_lacks_are_named(deepinv, name):
    with pytest.raises(InvsrError, match=f"deepinv:{name}: deepinv.models has no .*DRUNet"):
        pretrained(f"deepinv:{name}")


def test_deepinv_without_a_connection_says_what_to_do(deepinv, monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(InvsrError) as error:
        pretrained("deepinv:DnCNN")
    message = str(error.value)
    for part in ("Name or service not known", "connect to the internet", "deepinv:DnCNN=FILE", DEFAULT):
        assert part in message
    assert "\n" not in message


CONTENTS = {"empty": b"", "text": b"hello world", "zip": b"PK\x03\x04" + bytes(100), "missing": None}


@pytest.mark.parametrize("name", CONTENTS)
def test_deepinv_with_files_that_are_no_weights(deepinv, tmp_path, name):
    file = tmp_path / "weights.pth"
    if CONTENTS[name] is not None:
        file.write_bytes(CONTENTS[name])
    with pytest.raises(InvsrError, match="deepinv:DnCNN=.*weights.pth: its weights cannot be had"):
        pretrained(f"deepinv:DnCNN={file}")


@pytest.mark.parametrize(
    "error", [AssertionError, ZeroDivisionError, struct.error, zipfile.BadZipFile, http.client.IncompleteRead(b"")]
)
def test_whatever_is_raised_on_the_way_to_weights_is_one_line(deepinv, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(InvsrError, match="deepinv:DnCNN: its weights cannot be had"):
        pretrained("deepinv:DnCNN")


def test_deepinv_with_weights_of_another_network(deepinv, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(made().state_dict(), file)
    with pytest.raises(InvsrError, match="its weights cannot be had .*DnCNN"):
        pretrained(f"deepinv:DnCNN={file}")


def test_deepinv_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(InvsrError, match=r"deepinv is not installed: pip install \"invsr\[deepinv\]\", or use"):
        pretrained("deepinv:DRUNet")
