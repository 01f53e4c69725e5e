"""Unrolled steps: plug-and-play at the start, gradients, memory, weights files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.models.networks import UNet
from invsr.numerics.levels import peak
from invsr.operators import acquisition
from invsr.operators.stack import Stack
from invsr.priors import TV, Denoiser, Prior
from invsr.solvers import ADMM, HQS, PGD, Huber, Status, Unrolled, discrepancy, iterate, observation
from invsr.solvers.plug_and_play import noise_schedule, smooth_guess
from invsr.solvers.trained import equilibrium_of, load_solver, save_solver, unrolled_of

F64 = torch.float64
STEPS = {"hqs": HQS(), "admm": ADMM(), "pgd": PGD()}


class Shrink(Prior):
    """A denoiser with one trained number: smaller where the noise is larger."""

    def __init__(self, strength=1.0):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength, dtype=F64))

    def prox(self, v, sigma):
        return v * (1 + 0.1 * torch.tanh(v)) / (1 + self.strength * sigma)


def problem(shape=(6, 5, 8), factor=2, dtype=F64):
    grid = Grid(shape, np.eye(4))
    operator = acquisition(grid.coarsen((1, 1, factor)), reference=grid)
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand((1, 1, *shape), dtype=dtype, generator=generator)
    y = operator(truth) + 0.05 * torch.randn((1, 1, *operator.range.shape), dtype=dtype, generator=generator)
    return operator, y / peak(y)


@pytest.mark.parametrize("name", STEPS)
def test_untrained_it_is_plug_and_play(name):
    operator, y = problem()
    schedule = noise_schedule(smooth_guess(operator, y), 0.05, n_steps=4)
    # Plug-and-play measures the peak, and raises the weight where chi2 is low; the network takes the peak to be 1.
    schedule = replace(schedule, start=0.07, automatic=False)
    prior = Shrink().requires_grad_(False)
    expected = iterate(STEPS[name], operator, y, prior, sigma=0.05, schedule=schedule, max_iter=4, rtol=0.0)
    found = Unrolled(STEPS[name], Shrink(), 4).double()
    if name == "pgd":  # plug-and-play sets its last level by the weight
        assert found(operator, y, 0.05).shape == expected.x.shape
    else:
        torch.testing.assert_close(found(operator, y, 0.05).detach(), expected.x.detach())


@pytest.mark.parametrize("name", STEPS)
def test_gradients(name):
    operator, y = problem((4, 3, 4))
    network = Unrolled(STEPS[name], Shrink(), 3).double()
    parameters = dict(network.named_parameters())
    names = list(parameters)
    values = [value.detach().clone().requires_grad_() for value in parameters.values()]

    def run(y, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (operator, y, 0.05))

    assert torch.autograd.gradcheck(run, (y.requires_grad_(), *values), atol=1e-6)
    # Which numbers matter: PGD's weight follows from its level.
    out = run(y, *values)
    found = dict(zip(names, torch.autograd.grad(out.square().sum(), values, allow_unused=True), strict=True))
    assert float(found["priors.0.strength"].abs()) > 1e-6 and float(found["level"].abs().min()) > 1e-9
    if name != "pgd":
        assert float(found["weight"].abs().min()) > 1e-9


def test_operators_parameters_get_gradients():
    operator, y = problem()
    operator.width.requires_grad_()
    Unrolled(HQS(), Shrink(), 2).double()(operator, y, 0.05).sum().backward()
    assert float(operator.width.grad.abs().max()) > 1e-6


def test_own_priors_are_used_in_turn():
    operator, y = problem()
    shared = Unrolled(HQS(), Shrink(2.0), 3).double()
    own = Unrolled(HQS(), [Shrink(2.0), Shrink(2.0), Shrink(2.0)], 3).double()
    torch.testing.assert_close(own(operator, y, 0.05), shared(operator, y, 0.05))
    with torch.no_grad():
        own.priors[1].strength.fill_(9.0)
    assert not torch.allclose(own(operator, y, 0.05), shared(operator, y, 0.05))


def test_saving_memory_changes_no_gradient():
    operator, y = problem()
    kept, found = [], []
    for save_memory in (False, True):
        network = Unrolled(HQS(), Shrink(), 6, save_memory=save_memory).double()
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, held=held: held.append(t.numel()) or t, lambda t: t):
            out = network(operator, y, 0.05)
        out.square().sum().backward()
        kept.append(sum(held))
        found.append([p.grad.clone() for p in network.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert kept[1] < 0.7 * kept[0]


@pytest.fixture
def any_chi2(monkeypatch):
    """The last step as it comes, whatever it leaves of the data."""
    monkeypatch.setattr(discrepancy, "CHI2_EXPECTED", (0.0, np.inf))


def test_solution_has_a_history(any_chi2):
    operator, y = problem()
    network = Unrolled(HQS(), Shrink(), 4).double()
    seen = []
    solution = network.solve(operator, y, 0.05, progress=lambda done, _: seen.append(done))
    torch.testing.assert_close(solution.x, network(operator, y, 0.05).detach())
    assert solution.status is Status.CONVERGED and len(solution.history) == 4 and seen[-1] == 1
    assert len(seen) >= 4 and (np.diff(seen) > 0).all()
    assert {"lam", "sigma", "chi2", "change", "split"} <= set(solution.history[0])
    levels = [entry["sigma"] for entry in solution.history]
    np.testing.assert_allclose(levels, np.geomspace(0.07, 0.25 * 0.05, 4))
    assert not solution.x.requires_grad and solution.chi2 == solution.history[-1]["chi2"]


def test_the_whole_volume_is_run_once(monkeypatch):
    monkeypatch.setattr(observation, "SIDE", 8)
    operator, y = problem((16, 12, 16))
    network, shapes = Unrolled(HQS(), Shrink(), 4).double(), []
    prox = Shrink.prox
    monkeypatch.setattr(
        Shrink, "prox", lambda self, v, sigma: shapes.append(tuple(v.shape[2:])) or prox(self, v, sigma)
    )
    solution = network.solve(operator, y, 0.05)
    assert shapes[-4:] == [(16, 12, 16)] * 4 and len(solution.history) == 4
    assert set(shapes[:-4]) == {(8, 8, 8)} and len(shapes) in (8, 12)


def test_other_likelihoods_retarget_the_data_as_in_plug_and_play(any_chi2):
    operator, y = problem()
    y[0, 0, 3, 3, 2] += 5.0
    schedule = replace(
        noise_schedule(smooth_guess(operator, y), 0.05, n_steps=4), start=0.07 * peak(y), automatic=False
    )
    prior, huber = Shrink().requires_grad_(False), Huber(0.05)
    expected = iterate(HQS(), operator, y, prior, sigma=0.05, schedule=schedule, likelihood=huber, max_iter=4, rtol=0.0)
    network = Unrolled(HQS(), prior, 4).double()
    found = network.solve(operator, y, 0.05, likelihood=huber)
    torch.testing.assert_close(found.x, expected.x)
    assert found.chi2 == pytest.approx(expected.chi2)
    assert not torch.allclose(network.solve(operator, y, 0.05).x, found.x)


def test_stacks():
    operator, _ = problem((6, 6, 6))
    other = acquisition(operator.domain.coarsen((2, 1, 1)), reference=operator.domain)
    stack = Stack([operator, other])
    data = stack(torch.rand(1, 1, 6, 6, 6, dtype=F64))
    out = Unrolled(HQS(), Shrink(), 2).double()(stack, data, 0.05)
    assert out.shape == (1, 1, 6, 6, 6) and bool(out.isfinite().all())


def test_bad_input():
    with pytest.raises(InvsrError, match="3 steps with 2 priors: give one prior, or one for each"):
        Unrolled(HQS(), [Shrink(), Shrink()], 3)
    with pytest.raises(InvsrError, match="needs a prior on the volume"):
        Unrolled(ADMM(), TV(), 3)
    operator, y = problem()
    with pytest.raises(InvsrError, match="sigma is 0.0"):
        Unrolled(HQS(), Shrink(), 2).double()(operator, y, 0.0)
    with pytest.raises(InvsrError, match="step 'red' cannot be trained: use one of hqs, admm, pgd"):
        unrolled_of([UNet(channels=(2, 4))], "red")


# Weights files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "n_networks"), [("hqs", 1), ("admm", 3)])
def test_weights_come_back(tmp_path, step, n_networks):
    solver = unrolled_of([UNet(channels=(2, 4)) for _ in range(n_networks)], step, 3)
    with torch.no_grad():
        solver.level += torch.tensor([0.5, 0.25, -0.5])
    path = tmp_path / "w.safetensors"
    save_solver(solver, path, {"thickness": [2.0, 8.0]})
    back, about = load_solver(path)
    assert about["thickness"] == [2.0, 8.0] and type(back.step) is type(solver.step) and len(back.priors) == n_networks
    for name, value in solver.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value.half().float())
    assert not any(p.requires_grad for p in back.parameters()) and not back.training


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "w.safetensors"
    save_solver(unrolled_of([UNet(channels=(2, 4))]), path, {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvsrError, match="is not a weights file of invsr, or a damaged one"):
        load_solver(path)
    from invsr.models.weights import load_weights, save_weights

    save_weights(UNet(channels=(2, 4)), path, {})
    with pytest.raises(InvsrError, match=r"w.safetensors: holds a denoiser: use it with --denoiser"):
        load_solver(path)
    path.write_bytes(content)
    with pytest.raises(InvsrError, match=r"w.safetensors: holds an unrolled solver: use it with --method unrolled"):
        load_weights(path)
    with pytest.raises(InvsrError, match="no unrolled 'mri-denoiser'"):
        load_solver("mri-denoiser")


@pytest.mark.parametrize("changes", [{"priors": 10**9}, {"n_steps": 10**9}, {"n_steps": 0}, {"priors": 2}])
def test_steps_that_a_file_cannot_hold_are_refused_before_they_are_made(tmp_path, changes):
    path = tmp_path / "w.safetensors"
    driver = {"kind": "unrolled", "step": "hqs", "n_steps": 5, "priors": 1} | changes
    save_solver(unrolled_of([UNet(channels=(2, 4))]), path, {"driver": driver})
    with pytest.raises(InvsrError, match="steps with .* networks: at most 100"):
        load_solver(path)


def test_equilibria_come_back(tmp_path):
    solver = equilibrium_of(UNet(channels=(2, 4)), "admm", 12)
    with torch.no_grad():
        solver.log_level += 0.5
    path = tmp_path / "w.safetensors"
    save_solver(solver, path, {})
    back, about = load_solver(path, "deq")
    assert type(back.step) is ADMM and back.max_iter == 12 and about["driver"]["kind"] == "deq"
    assert back.n_ending == solver.n_ending == 2
    for name, value in solver.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value.half().float())
    with pytest.raises(InvsrError, match="holds an equilibrium solver: use it with --method deq"):
        load_solver(path)


def test_equilibria_of_files_from_before_there_was_an_ending_have_none(tmp_path):
    path, driver = tmp_path / "w.safetensors", {"kind": "deq", "step": "hqs", "max_iter": 9}
    save_solver(equilibrium_of(UNet(channels=(2, 4)), n_ending=0), path, {"driver": driver})
    back, _ = load_solver(path, "deq")
    assert back.n_ending == 0 and back.max_iter == 9
    for n_ending in (-1, 10**9):
        save_solver(equilibrium_of(UNet(channels=(2, 4))), path, {"driver": driver | {"n_ending": n_ending}})
        with pytest.raises(InvsrError, match="steps after the fixed point: at most 100"):
            load_solver(path, "deq")


def test_trained_networks_are_not_turned_at_random():
    solver = unrolled_of([UNet(channels=(2, 4))])
    prior = solver.priors[0]
    assert isinstance(prior, Denoiser) and not prior.symmetries and not prior.crop


def test_what_noise_does_not_explain_is_mended_in_the_last_step():
    operator, y = problem()
    network = Unrolled(HQS(), Shrink(), 4).double()
    solution = network.solve(operator, y, 0.01)
    assert solution.chi2 == solution.history[-1]["chi2"]
    left = ((operator(network(operator, y, 0.01)) - y) / 0.01).square().mean().item()
    assert not 0.7 <= left <= 1.3
    assert 0.7 <= solution.chi2 <= 1.3
