"""The code in README, CONTRIBUTING and the pages runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import invsr
from invsr.priors import TV
from invsr.solvers import iterate
from invsr.testing.phantoms import centred_grid, shapes

ROOT = Path(__file__).parent.parent


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)


@pytest.fixture
def scan(tmp_path, monkeypatch):
    grid = centred_grid((24, 20, 20), 1.0)
    truth = invsr.Volume(shapes(grid, n_samples=16, size=24.0), grid)
    low = invsr.simulate(truth, slice_thickness=5.0, axis=2, noise=0.01)
    invsr.save(low, tmp_path / "flair.nii.gz")
    monkeypatch.chdir(tmp_path)
    return low


def test_readme(scan):
    space = {}
    (block,) = blocks("README.md")
    exec(block, space)
    assert invsr.load("iso.nii.gz").grid == scan.grid.refine(1.0)
    assert space["result"].status is invsr.solvers.Status.CONVERGED


def test_trained_solvers():
    space = {}
    (block,) = blocks("docs/trained-solvers.md")
    exec(block, space)
    network = space["network"]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    assert isinstance(space["deq"], invsr.solvers.Equilibrium)


def test_guides_for_new_operators_priors_and_solvers(scan):
    space = {"torch": torch, "nn": nn}
    for block in blocks("CONTRIBUTING.md"):
        exec(block, space)
    grid = scan.grid
    rate = torch.rand(grid.shape, dtype=torch.float64)
    decay = space["SignalDecay"](grid, rate, 0.5)
    x, y = (torch.randn(1, 1, *grid.shape, dtype=torch.float64) for _ in range(2))
    assert torch.allclose((decay(x) * y).sum(), (x * decay.H(y)).sum())
    b = decay.solve(x, 0.1)
    assert torch.allclose(decay.normal(b.x, 0.1), x, atol=1e-4)

    operator = invsr.operators.acquisition(grid, 1.0)
    for prior in (space["L1"](), TV()):
        step = space["HQS"]() if prior.analysis == "identity" else invsr.solvers.ADMM()
        found = iterate(step, operator, scan.data, prior, lam=1e-4, x0=operator.adjoint(scan.data))
        assert np.isfinite(found.history[-1]["chi2"]) and abs(found.gain - 1) < 0.05


def test_a_method_of_ones_own(scan):
    (block,) = blocks("docs/guide/method.md")
    lines = block.split("@dataclass")[1].split("\n\n\nscan")[0].splitlines()
    assert len([line for line in lines if line.strip()]) < 20 and not re.search(r"\b_\w", block.replace("_steps", ""))
    space = {}
    exec(block, space)
    found = space["result"]
    cubic = invsr.reconstruct(scan, method="cubic")
    assert str(found.method) == "landweber" and found.chi2 < cubic.chi2
    assert invsr.load("iso.nii.gz").grid == found.grid
