"""OpenVINO finds what PyTorch finds, and keeps what it compiled with its network."""

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from engine_networks import BFLOAT16, NETWORKS, OPENVINO, TORCH, both, error, image, made
from torch.autograd import forward_ad

from invsr.models import compiled, engines
from invsr.models.gradient_step import GradientStep
from invsr.priors.denoiser import Denoiser
from invsr.priors.loading import pretrained

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_finds_the_same(openvino, name):
    network = made(name)
    for n, (batch, factors) in enumerate([(1, (2, 3, 4)), (1, (4, 3, 2)), (2, (3, 3, 2))]):
        x = image(network, *(4 * network.multiple * one for one in factors[: network.dim]), batch=batch, seed=n)
        found, expected, ways = both(network, x)
        assert ways == [OPENVINO]
        assert error(x[:, : found.shape[1]] - found, x[:, : found.shape[1]] - expected) < 1e-5
        assert torch.equal(both(network, x)[0], found)


@pytest.mark.parametrize("sides", [(17, 22, 19), (24, 16, 20)])
def test_openvino_runs_trained_denoisers_of_volumes_of_any_size(openvino, sides):
    prior = pretrained("mri-denoiser-fast", symmetries=False, bfloat16=False)
    v = image(prior.network, *sides)
    used = engines.record()
    with torch.no_grad():
        found = prior.prox(v, 0.05)
        assert used == {"UNet": [OPENVINO]}
        with engines.only_torch():
            expected = prior.prox(v, 0.05)
    assert error(found, expected) < 1e-5
    assert error(v - expected, v) > 1e-3


def test_a_noise_map_goes_through_openvino_too(openvino):
    network = made("UNet")
    x = image(network, 8, 12, 8)
    found, expected, ways = both(network, x, 0.1 * image(network, 8, 12, 8, seed=1))
    assert ways == [OPENVINO] and error(found, expected) < 1e-5


def test_weights_that_change_are_compiled_anew(openvino):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    first = both(network, x)[0]
    changes = [
        lambda: network.load_state_dict(made("UNet", 1).state_dict()),
        lambda: network.tail.weight.data.mul_(2),
        lambda: setattr(network.head.weight, "data", network.head.weight.data.flip(-1).clone()),
    ]
    for change in changes:
        change()
        found, expected, ways = both(network, x)
        assert ways == [OPENVINO]
        assert error(found, expected) < 1e-5 < error(found, first)
        first = found


def test_what_is_compiled_stays_with_its_network(openvino):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    expected = both(network, x)[0]
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    prior = pickle.loads(pickle.dumps(Denoiser(network, symmetries=False)))
    assert torch.equal(both(prior.network, x)[0], expected)
    with torch.no_grad():
        copies[0].tail.weight.mul_(2)
    assert error(both(copies[0], x)[0], expected) > 1e-3
    assert all(torch.equal(both(one, x)[0], expected) for one in (copies[1], network))
    gone = weakref.ref(copies.pop())
    gc.collect()
    assert gone() is None


def test_few_shapes_are_kept(openvino):
    network = made("UNet")
    for n in range(compiled.MOST_SHAPES + 3):
        both(network, image(network, 4, 4, 4 + 2 * n))
    assert len(compiled._bodies[network]._compiled) == compiled.MOST_SHAPES


def test_openvino_leaves_alone_what_it_cannot_do(openvino, monkeypatch):
    network = made("UNet")
    x = image(network, 8, 8, 8)
    used = engines.record()
    network(x, 0.1)  # its gradient may be asked for
    with torch.no_grad():
        network.train()(x, 0.1)
        network.eval()
        with torch.autocast("cpu", torch.bfloat16):
            network(x, 0.1)
        with forward_ad.dual_level():
            _, tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x, torch.ones_like(x)), 0.1))
        assert tangent is not None
        made("UNet").double()(x.double(), 0.1)
        GradientStep(network).cost(x, 0.1)
        monkeypatch.setattr(engines, "LEAST_VOXELS", 8**3 + 1)
        network(x, 0.1)
    assert used == {"UNet": [TORCH, BFLOAT16, "torch float64"]}


def test_threads_share_what_is_compiled(openvino):
    network = made("UNet")
    images = [image(network, 8, 8, 8, seed=n) for n in range(4)]
    expected = [both(network, x)[1] for x in images]
    found = [None] * 4

    def work(n):
        with torch.no_grad():
            found[n] = [network(images[n], 0.1) for _ in range(5)]

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(error(one, expected[n]) < 1e-5 for n in range(4) for one in found[n])


SIGNALLED = """
import gc, signal, torch
from invsr.models import compiled
from invsr.models.networks import UNet

networks = [UNet(3, (4, 8), 1).eval() for _ in range(3)]
for network in networks:
    assert compiled.run(network, torch.rand(1, 2, 8, 8, 8)) is not None
del network
while networks:
    networks.pop(0)
    gc.collect()
handled = []
signal.signal(signal.SIGINT, lambda *_: handled.append(1))
signal.raise_signal(signal.SIGINT)
print(handled)
"""


def test_signals_are_handled_after_networks_have_gone(openvino):
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr
