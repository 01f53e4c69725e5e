"""deepinv: its own tests and algorithms on invsr operators, and its physics as operators."""

import importlib
import pickle
import sys

import numpy as np
import pytest
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.operators import Contrasts, Diagonal, KSpaceMask, Sampling, Stack, acquisition
from invsr.priors import TV
from invsr.solvers import ADMM, iterate

deepinv = pytest.importorskip("deepinv")
from invsr.interop.deepinv import from_deepinv, to_deepinv  # noqa: E402  # after the check that deepinv is there

CUBE = Grid((6, 5, 8), np.eye(4))
THICK = CUBE.coarsen((1, 1, 2))


def oblique(grid, degrees=20.0):
    turn = np.eye(4)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:2, :2] = [[c, -s], [s, c]]
    return Grid(grid.shape, turn @ grid.affine)


def some_weights():
    return (torch.rand(CUBE.shape, generator=torch.Generator().manual_seed(1)) > 0.4).double()


def some_coils():
    return torch.randn(3, *CUBE.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))


OPERATORS = {
    "separable": lambda: acquisition(THICK, reference=CUBE),
    "oblique": lambda: acquisition(oblique(THICK), reference=CUBE),
    "diagonal": lambda: Diagonal(CUBE, torch.linspace(0, 1, 8, dtype=torch.float64).reshape(1, 1, 8)),
    "stack": lambda: Stack([acquisition(CUBE.coarsen(s), reference=CUBE) for s in ((1, 1, 2), (3, 1, 1))], [1.0, 0.5]),
    "contrasts": lambda: Contrasts([acquisition(CUBE.coarsen(s), reference=CUBE) for s in ((1, 1, 2), (3, 1, 1))]),
    "complex": lambda: KSpaceMask(CUBE, some_weights()),
    "complex data of a real image": lambda: KSpaceMask(CUBE, some_weights(), real=True),
    "coils": lambda: KSpaceMask(CUBE, some_weights(), some_coils()),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def problem(name, batch=2, seed=0):
    physics = to_deepinv(OPERATORS[name](), tol=1e-12)
    generator = torch.Generator().manual_seed(seed)
    x, z = torch.randn(2, batch, *physics.img_size, dtype=torch.float64, generator=generator)
    return physics, physics.A(x), z


def plain(physics):
    """deepinv's own physics of the same operator: nothing of ours but A and its adjoint."""
    return deepinv.physics.LinearPhysics(A=physics.A, A_adjoint=physics.A_adjoint, max_iter=300, tol=1e-12)


@every_operator
def test_adjointness_test_of_deepinv(name):
    physics, _, z = problem(name)
    assert physics.adjointness_test(z, num_samples=4) < 1e-12
    assert physics.adjointness_test(num_samples=4) < 1e-5  # single precision, of the size that the physics states


@every_operator
@pytest.mark.filterwarnings("ignore:.*TensorList")
def test_prox_is_deepinvs(name):
    physics, y, z = problem(name)
    theirs = plain(physics)
    for gamma in (0.3, torch.tensor(20.0, dtype=torch.float64), torch.tensor([0.2, 5.0], dtype=torch.float64)):
        # Without its guard against division by zero, deepinv's CG reaches double precision.
        expected = theirs.prox_l2(z, y, gamma, solver="CG", eps=0.0)
        torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected, rtol=1e-8, atol=1e-8)


def test_prox_takes_what_deepinvs_takes():
    physics, y, z = problem("separable")
    each = torch.tensor([0.2, 5.0], dtype=torch.float64)
    torch.testing.assert_close(physics.prox_l2(None, y, 2.0), physics.prox_l2(torch.zeros_like(z), y, 2.0))
    torch.testing.assert_close(physics.prox_l2(1, y, 2.0), physics.prox_l2(torch.ones_like(z), y, 2.0))
    torch.testing.assert_close(physics.prox_l2(z, y, each.reshape(2, 1, 1, 1, 1)), physics.prox_l2(z, y, each))
    voxels = torch.full_like(z, 0.2)  # one per voxel: left to deepinv
    torch.testing.assert_close(physics.prox_l2(z, y, voxels, tol=1e-12), physics.prox_l2(z, y, 0.2))


@pytest.mark.parametrize("name", ["separable", "oblique", "complex data of a real image"])
def test_gradient_of_prox(name):
    physics, y, z = problem(name)
    gamma = torch.tensor([0.7, 2.0], dtype=torch.float64, requires_grad=True)
    inputs = (z.requires_grad_(), y.detach().requires_grad_(), gamma)
    assert torch.autograd.gradcheck(lambda *a: physics.prox_l2(*a), inputs, fast_mode=True)


class Shrinkage(torch.nn.Module):
    """Tikhonov's prox in the place of a denoiser."""

    def forward(self, x, sigma):
        return x / (1 + sigma**2)


@pytest.mark.parametrize(
    ("name", "plug_and_play"),
    # deepinv's L2 has no cost of a TensorList, which an explicit prior asks for: several scans need the other kind.
    [
        ("separable", False),
        ("oblique", False),
        ("complex data of a real image", False),
        ("stack", True),
        ("contrasts", True),
    ],
)
@pytest.mark.parametrize("algorithm", ["HQS", "ADMM"])
def test_algorithms_of_deepinv_reach_the_closed_form(name, algorithm, plug_and_play):
    physics, y, _ = problem(name, batch=1)
    lam, step = 0.5, 2.0
    model = getattr(deepinv.optim, algorithm)(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.prior.PnP(Shrinkage()) if plug_and_play else deepinv.optim.prior.Tikhonov(),
        g_param=(lam * step) ** 0.5,
        lambda_reg=lam,
        stepsize=step,
        max_iter=300,
        thres_conv=1e-10,
        early_stop=True,
    )
    back = physics.A_adjoint(y)
    if algorithm == "ADMM":  # argmin 1/2 |Ax - y|^2 + lam/2 |x|^2
        expected = physics.operator.solve(back, lam, rtol=1e-12).x
    else:  # x is the fixed point x = u / (1 + lam step), u = prox(x)
        expected = physics.operator.solve(back, (1 - 1 / (1 + lam * step)) / step, rtol=1e-12).x / (1 + lam * step)
    torch.testing.assert_close(model(y, physics), expected, rtol=1e-6, atol=1e-7)


def test_admm_of_deepinv_with_tv_agrees_with_ours():
    A = OPERATORS["separable"]()
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 1, *CUBE.shape, dtype=torch.float64)
    truth[..., 1:4, 1:3, 2:6] = 1
    y = A(truth)
    y = y + 0.05 * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    lam = 0.05
    theirs = deepinv.optim.ADMM(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.prior.TVPrior(def_crit=1e-7, n_it_max=300),
        lambda_reg=lam,
        stepsize=5.0,
        max_iter=20,
    )(y, to_deepinv(A))
    ours = iterate(ADMM(), A, y, TV(), lam=lam, max_iter=400, rtol=1e-7).x

    def objective(x):  # Neumann boundary and unit spacing, as deepinv's TV has them
        steps = [torch.diff(x, dim=n, append=x.narrow(n, x.shape[n] - 1, 1)) for n in (2, 3, 4)]
        return float(0.5 * (A(x) - y).square().sum() + lam * torch.stack(steps).square().sum(0).sqrt().sum())

    assert A.boundary == ("neumann",) * 3
    assert abs(objective(theirs) / objective(ours) - 1) < 1e-3
    assert (theirs - ours).abs().max() < 0.02


def test_pseudo_inverse_of_deepinv():
    physics, y, _ = problem("separable")
    torch.testing.assert_close(physics.A(physics.A_dagger(y)), y, rtol=1e-5, atol=1e-5)


@every_operator
def test_pickle_and_clone(name):
    physics, y, z = problem(name)
    for copy in (pickle.loads(pickle.dumps(physics)), physics.clone()):
        torch.testing.assert_close(copy.prox_l2(z, y, 1.0), physics.prox_l2(z, y, 1.0))


def test_parameters_are_the_operators():
    A = OPERATORS["separable"]()
    physics = to_deepinv(A)
    assert physics.operator is A
    assert [id(p) for p in physics.parameters()] == [id(p) for p in A.parameters()]


# The other way --------------------------------------------------------------------------------------


def blur(padding="valid"):
    kernel = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = torch.einsum("i,j,k->ijk", kernel, kernel, kernel)[None, None] / 64
    return deepinv.physics.Blur(filter=kernel, padding=padding)


def test_physics_as_operator():
    A = from_deepinv(blur("circular"), CUBE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 1, *CUBE.shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)
    eye = torch.eye(CUBE.size, dtype=torch.float64).reshape(-1, 1, *CUBE.shape)
    dense = A(eye).reshape(CUBE.size, -1).T
    expected = torch.linalg.solve(dense.T @ dense + 0.1 * torch.eye(CUBE.size).double(), x.flatten())
    torch.testing.assert_close(A.solve(x, 0.1, rtol=1e-12).x.flatten(), expected, rtol=1e-8, atol=1e-8)
    assert A.measured_coordinates(y).numel() == y.numel()
    composed = acquisition(THICK, reference=CUBE) @ A
    assert composed(x).shape[2:] == THICK.shape


def test_physics_with_a_range_of_its_own():
    inner = Grid((4, 3, 6), np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1.0]]))
    A = from_deepinv(blur("valid"), CUBE, inner)
    assert A(torch.ones(1, 1, *CUBE.shape, dtype=torch.float64)).shape == (1, 1, 4, 3, 6)
    assert A.range == inner
    with pytest.raises(InvsrError, match="do not fit the grid of its images"):
        from_deepinv(blur("valid"), CUBE)
    with pytest.raises(InvsrError, match="do not fit the range"):
        from_deepinv(blur("valid"), CUBE, THICK)


def test_mri_of_deepinv():
    mask = torch.ones(1, 2, *CUBE.shape)
    mask[..., ::2] = 0
    A = from_deepinv(deepinv.physics.MRI(mask=mask, img_size=(2, *CUBE.shape), three_d=True), CUBE)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 2, *CUBE.shape, generator=generator)
    torch.testing.assert_close((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-4, atol=1e-4)
    assert A.measured_coordinates(y).numel() == y.numel() // 2
    # Two channels, real and imaginary part, through the preconditioned solve too.
    b = A.normal(x, 0.2, "gradient")
    found = A.solve(b, 0.2, "gradient", rtol=1e-6).x
    torch.testing.assert_close(A.normal(found, 0.2, "gradient"), b, rtol=1e-3, atol=1e-3)


def test_there_and_back():
    A = OPERATORS["separable"]()
    B = from_deepinv(to_deepinv(A), A.domain, A.range)
    x = torch.randn(1, 1, *CUBE.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(B(x), A(x))
    torch.testing.assert_close(B.gram(x), A.gram(x))


def test_physics_that_does_not_fit_is_refused():
    with pytest.raises(InvsrError, match="only linear physics"):
        from_deepinv(deepinv.physics.Haze(), CUBE)
    with pytest.raises(InvsrError, match="does not take volumes of shape"):
        from_deepinv(deepinv.physics.Inpainting((1, 4, 4, 4)), CUBE)
    with pytest.raises(InvsrError, match="only volumes"):
        from_deepinv(deepinv.physics.LinearPhysics(A=lambda x: x.flatten(1), A_adjoint=lambda y: y), CUBE)
    with pytest.raises(InvsrError, match="as a TensorList"):
        from_deepinv(to_deepinv(OPERATORS["stack"]()), CUBE)


def test_without_deepinv_the_extra_to_install_is_named(monkeypatch):
    # That it is imported where used only, test_sigpy.py tests in a process of its own.
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.delitem(sys.modules, "invsr.interop.deepinv")
    with pytest.raises(InvsrError, match=r'pip install "invsr\[deepinv\]"'):
        importlib.import_module("invsr.interop.deepinv")


def test_sampling_is_what_acquisition_gives():
    assert isinstance(OPERATORS["separable"](), Sampling)  # else the exact solve above is not what is tested
