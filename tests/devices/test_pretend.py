"""The pretended device keeps a GPU's rules: what fails on a GPU fails on it, what works gives the CPU's numbers."""

import copy
import pickle

import numpy as np
import pytest
import torch
from pretend import CUDA, pretended_cuda
from torch import nn


@pytest.fixture(scope="module", autouse=True)
def cuda():
    with pretended_cuda():
        yield


def on_cuda(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to("cuda")


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x + torch.ones(4),
        lambda x: torch.ones(4) * x,
        lambda x: torch.ones(4) * x.sum(),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: torch.where(x > 0.5, x, torch.zeros(4)),
        lambda x: x @ torch.eye(4),
        lambda x: nn.Linear(4, 1)(x),
        lambda x: torch.ones(4)[x > 0.5],
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: torch.rand(4, device="cuda", generator=torch.Generator()),
        lambda x: x.normal_(generator=torch.Generator()),
    ],
)
def test_faults_of_a_gpu(fault):
    with pytest.raises(RuntimeError):
        fault(on_cuda(4))


def test_what_a_gpu_allows():
    x = on_cuda(4)
    here = x.cpu()
    assert (x.device, here.device.type) == (CUDA, "cpu")
    for f in (
        lambda x: x * torch.tensor(2.0),
        lambda x: x[torch.tensor([1, 2])],
        lambda x: torch.zeros_like(x).copy_(here),
        lambda x: x.masked_fill(x > 0.5, torch.tensor(1.0)),
        lambda x: torch.fft.rfft(x).conj().imag,
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.arange(3, device=x.device),
    ):
        assert f(x).device == CUDA and torch.equal(f(x).cpu(), f(here))
    assert float(x.sum()) == float(here.sum()) and x.tolist() == here.tolist()


def test_changes_in_place_and_views():
    x = on_cuda(4)
    part = x[1:]
    part += 5
    x[0] = 7
    assert x.cpu()[0] == 7 and float(x[1:].min()) >= 5


def test_gradients_modules_and_copies():
    net = nn.Linear(4, 2).to("cuda")
    assert isinstance(net.weight, nn.Parameter)
    net(on_cuda(3, 4)).square().sum().backward()
    assert net.weight.grad.device == CUDA
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.weight.device == CUDA and torch.equal(other.weight.cpu(), net.weight.cpu())
    w = on_cuda(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: w * w.sin(), w)


def test_autocast_calculates_products_in_half_precision():
    with torch.autocast("cuda", torch.bfloat16):
        assert nn.Linear(4, 2).to("cuda")(on_cuda(3, 4)).dtype == torch.bfloat16
