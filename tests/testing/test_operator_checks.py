"""A check of operators finds what is wrong with them, and says it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import KSpaceMask, LinearOperator, acquisition
from invsr.testing import OperatorCheckError, check_operator

GRID = Grid.from_spacing((4, 3, 5), 1.0)


class Decay(LinearOperator):
    """An operator that is right; each test breaks one part of it."""

    def __init__(self):
        super().__init__(GRID, GRID)
        self.rate = nn.Parameter(torch.linspace(0.1, 1, 60, dtype=torch.float64).reshape(GRID.shape))

    def _forward(self, x):
        return torch.exp(-self.rate.to(x.dtype)) * x


class WrongShape(Decay):
    def _forward(self, x):
        return x[..., 1:]


class Offset(Decay):
    def _forward(self, x):
        return super()._forward(x) + 1


class WrongAdjoint(Decay):
    def _adjoint(self, y):
        return 2 * y


class Cut(Decay):
    def _forward(self, x):
        return torch.exp(-self.rate.detach().to(x.dtype)) * x


class CutFromTheVolume(Decay):
    def _forward(self, x):
        return super()._forward(x.detach())

    def _adjoint(self, y):
        return super()._forward(y.detach())


class WrongGram(Decay):
    def gram(self, x):
        return x


class WrongSolve(Decay):
    def _solve(self, b, rho, regulariser, x0, rtol, max_iter):
        found = super()._solve(b, rho, regulariser, x0, rtol, max_iter)
        return type(found)(1.001 * found.x)


class Wide(Decay):
    def _forward(self, x):
        return torch.exp(-self.rate) * x

    def _adjoint(self, y):
        return torch.exp(-self.rate) * y


class Forgetful(Decay):
    def __getstate__(self):
        return self.__dict__ | {"_parameters": {"rate": nn.Parameter(torch.zeros(GRID.shape))}}


class InPlace(Decay):
    def _forward(self, x):
        y = super()._forward(x)
        with torch.no_grad():
            x.zero_()
        return y

    def _adjoint(self, y):
        return super()._forward(y)


class LosesAdjoint(Decay):
    @property
    def H(self):
        return Decay()


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (WrongShape, {"shapes"}),
        (Offset, {"linear", "solve, identity", "solve, gradient"}),
        (WrongAdjoint, {"adjoint", "adjoint in single precision", "gradient", "dense matrix"}),
        (Cut, {"gradient in parameters"}),
        (CutFromTheVolume, {"gradient"}),
        (WrongGram, {"gram"}),
        (WrongSolve, {"solve, identity", "solve, gradient"}),
        (Wide, {"single precision"}),
        (Forgetful, {"pickle"}),
        (InPlace, {"input"}),
        (LosesAdjoint, {"adjoint operator"}),
    ],
)
def test_finds_what_is_broken(broken, names):
    with pytest.raises(OperatorCheckError) as caught:
        check_operator(broken())
    for name in names:
        assert f"{name} (" in str(caught.value)
    assert broken.__name__ in str(caught.value)


class InPlaceWithoutAdjoint(Decay):
    def _forward(self, x):
        return super()._forward(x.mul_(1.0))


class CutWithoutAdjoint(Decay):
    def _forward(self, x):
        return super()._forward(x.detach())


@pytest.mark.parametrize("broken", [InPlaceWithoutAdjoint, CutWithoutAdjoint])
def test_errors_of_torch_are_findings(broken):
    with pytest.raises(OperatorCheckError, match=rf"{broken.__name__}: A x or A\* y fails: .*graph|in-place"):
        check_operator(broken())


def test_errors_are_assertions_and_input_errors():
    with pytest.raises(AssertionError, match=r"adjoint .*deviates by \d\.\de.\d\d, limit 1e-10"):
        check_operator(WrongAdjoint())
    assert issubclass(OperatorCheckError, InvsrError)


def test_report():
    report = check_operator(Decay())
    assert report.failures == [] and report.operator == "Decay" and report.skipped == {}
    assert report.deviations["solve, gradient"] < 1e-7
    assert "adjoint: " in str(report) and "(limit 1e-10)" in str(report)


def test_what_cannot_be_checked_is_said():
    large = acquisition(Grid.from_spacing((12, 12, 5), (1, 1, 3)))
    report = check_operator(large)
    assert "2160 unknowns" in report.skipped["dense matrix"]
    assert report.deviations["solve, identity"] < 1e-7  # by the residual
    assert "no parameter" in report.skipped["gradient in parameters"]
    stack_adjoint = check_operator(acquisition(Grid.from_spacing((4, 4, 2), (1, 1, 2))).H)
    assert "solve, identity" in stack_adjoint.deviations


def test_complex_volumes():
    weights = torch.rand(GRID.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_operator(KSpaceMask(GRID, weights), complex_domain=True)
    with pytest.raises(OperatorCheckError, match="shapes"):  # the adjoint of complex data is complex
        check_operator(KSpaceMask(GRID, weights))
    check_operator(KSpaceMask(GRID, weights, real=True), channels=2)


def test_import_stays_light():
    """The package and its testing tools import none of the libraries that are used in places only."""
    heavy = ["skimage", "torchmetrics", "sigpy", "matplotlib", "deepinv", "nilearn"]
    code = f"import sys, invsr.testing, invsr.interop; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
