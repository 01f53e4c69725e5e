"""The code in README and the guide pages runs as it stands."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import invsr
from invsr.solvers import iterate
from invsr.testing import check_operator
from invsr.testing.phantoms import centred_grid, shapes

ROOT = Path(__file__).parent.parent


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)


@pytest.fixture
def truth():
    grid = centred_grid((24, 20, 20), 1.0)
    return invsr.Volume(shapes(grid, n_samples=16, size=24.0), grid)


@pytest.fixture
def scan(truth, tmp_path, monkeypatch):
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


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """Run a page's code as a module of somebody else's package: written to a file, imported, public names only."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(name):
        (code,) = blocks(f"docs/guide/{name}.md")
        tree = ast.parse(code)
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        written = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert {one for one in used if one.startswith("_") and one != "__init__"} == set()
        assert {one for one in written if one.startswith("_")} <= {"__init__", "__call__", "_forward"}
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        assert classes and all(node.end_lineno - node.lineno + 1 < 20 for node in classes)
        (tmp_path / f"guide_{name}.py").write_text(code)
        module = importlib.import_module(f"guide_{name}")
        monkeypatch.delitem(sys.modules, module.__name__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return run


def test_an_operator_of_ones_own(guide, capsys):
    page = guide("operator")
    assert "adjoint: " in capsys.readouterr().out
    assert page.A.domain == page.grid and page.A.range == page.thick
    b = page.A.adjoint(torch.ones(1, 1, *page.thick.shape))
    torch.testing.assert_close(page.A.normal(page.x, 0.1), b, rtol=1e-4, atol=1e-4)
    assert page.slope.shape == page.rate.shape and bool((page.slope < 0).all())  # faster decay, less signal
    assert check_operator(page.decay).deviations["gradient in parameters"] < 1e-6


def test_priors_of_ones_own(guide, scan, truth):
    page = guide("prior")
    assert page.sparse.status is page.denoised.status is invsr.solvers.Status.CONVERGED
    assert page.denoised.chi2 == pytest.approx(1, abs=0.4) and page.denoised.gain == pytest.approx(1, abs=0.05)
    cubic = invsr.solvers.cubic(scan.data, scan.grid, truth.grid)
    assert (page.denoised.x - truth.data).norm() < (cubic - truth.data).norm()
    v = torch.tensor([-2.0, -0.1, 0.1, 2.0]).reshape(1, 1, 1, 1, 4)
    assert page.L1().prox(v, 0.5).flatten().tolist() == [-1.75, 0.0, 0.0, 1.75]


def test_a_step_of_ones_own(guide, scan):
    page = guide("step")
    assert page.solution.status is invsr.solvers.Status.CONVERGED

    def objective(x):
        return float(0.5 * (page.A(x) - scan.data).square().sum() + 5e-3 * page.L1().cost(x))

    # FISTA is far ahead of ISTA after as many iterations: the least value there is, nearly.
    fista = iterate(
        invsr.solvers.PGD(accelerate=True), page.A, scan.data, page.L1(), lam=5e-3, max_iter=2000, rtol=1e-6
    )
    assert objective(fista.x) < objective(page.solution.x) < 1.02 * objective(fista.x)
    assert objective(page.A.adjoint(scan.data)) > 2 * objective(fista.x)


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
