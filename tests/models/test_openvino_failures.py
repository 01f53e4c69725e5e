"""Where OpenVINO fails or differs, PyTorch does the work and one warning says so."""

import warnings

import pytest
import torch
from engine_networks import OPENVINO, TORCH, both, image, made

from invsr.errors import InvsrWarning
from invsr.models import compiled, engines
from invsr.models.networks import Network

pytestmark = pytest.mark.usefixtures("fresh")


class Strange(Network):
    """A network that does other things with other sizes, which a trace does not see."""

    def __init__(self):
        super().__init__(3)
        self.config = {}
        self.layer = torch.nn.Conv3d(2, 1, 3, padding=1, bias=False)

    def body(self, x):
        return self.layer(x) if len(x) == 1 else x[:, :1]


def test_what_differs_from_pytorch_is_not_used(openvino):
    network = Strange().eval()
    x = image(network, 8, 8, 8)
    with pytest.warns(InvsrWarning, match=r"OpenVINO cannot run Strange \(its result differs by .*PyTorch does"):
        found, expected, ways = both(network, x)
    assert torch.equal(found, expected) and ways == [TORCH]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert both(made("UNet"), x)[2] == [TORCH]  # once is enough


def test_a_failure_that_does_not_come_back_costs_nothing(openvino, monkeypatch):
    converted, failures = compiled._converted, [RuntimeError("must be called on a Model with exactly one parameter")]

    def once(network):
        if failures:
            raise failures.pop()
        return converted(network)

    monkeypatch.setattr(compiled, "_converted", once)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InvsrWarning)
        found, expected, ways = both(made("UNet"), image(made("UNet"), 8, 8, 8))
    assert failures == [] and ways == [OPENVINO]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_package_that_does_not_load_is_named_once(openvino, monkeypatch):
    def broken(name):
        raise ImportError("libopenvino.so: no such file")

    monkeypatch.setattr(compiled, "import_module", broken)
    with pytest.warns(InvsrWarning, match="OpenVINO cannot run UNet .libopenvino.so: no such file.") as said:
        ways = [both(made("UNet"), image(made("UNet"), 8, 8, 8))[2] for _ in range(2)]
    assert ways == [[TORCH]] * 2 and len(said) == 1


def test_without_openvino_nothing_is_said(monkeypatch, machine):
    machine({TORCH: 10.0})
    monkeypatch.setattr(engines, "LEAST_VOXELS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert both(made("UNet"), image(made("UNet"), 8, 8, 8))[2] == [TORCH]
