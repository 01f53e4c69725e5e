"""sigpy's apps on invsr operators, and sigpy's linear operators as ours."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from invsr.errors import InvsrError
from invsr.grid import Grid
from invsr.interop.sigpy import from_sigpy, to_sigpy
from invsr.operators import KSpaceMask, Stack, acquisition
from invsr.testing import check_operator

GRID = Grid.from_spacing((4, 5, 6), 1.0)
THICK, TALL = GRID.coarsen((1, 1, 2)), GRID.coarsen((2, 1, 1))
RNG = np.random.default_rng(0)


def noise(*shape, is_complex=False):
    x = RNG.standard_normal(shape)
    return x + 1j * RNG.standard_normal(shape) if is_complex else x


def coils():
    return noise(2, *GRID.shape, is_complex=True)


OPERATORS = {
    "separable": lambda: acquisition(THICK, reference=GRID),
    "stack": lambda: Stack([acquisition(g, reference=GRID) for g in (THICK, TALL)], [1.0, 0.3]),
    "k-space": lambda: KSpaceMask(GRID, torch.ones(GRID.shape).double(), torch.from_numpy(coils())),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name):
    L = to_sigpy(OPERATORS[name]())
    is_complex = name == "k-space"
    x, y = noise(*L.ishape, is_complex=is_complex), noise(*L.oshape, is_complex=is_complex)
    np.testing.assert_allclose(np.vdot(y, L(x)), np.vdot(L.H(y), x), rtol=1e-10)
    np.testing.assert_allclose(L.N(x), L.H(L(x)), rtol=1e-10)
    assert L.H.H.ishape == L.ishape


def test_shapes():
    assert to_sigpy(OPERATORS["k-space"]()).oshape == [2, *GRID.shape]
    assert to_sigpy(OPERATORS["stack"]()).oshape == [THICK.size + TALL.size]
    assert to_sigpy(OPERATORS["separable"](), channels=3).ishape == [3, *GRID.shape]


@pytest.mark.parametrize("name", OPERATORS)
def test_least_squares_of_sigpy(name):
    A = OPERATORS[name]()
    L = to_sigpy(A)
    is_complex, weight = name == "k-space", 0.3
    y = noise(*L.oshape, is_complex=is_complex)
    found = sigpy.app.LinearLeastSquares(L, y, lamda=weight, max_iter=300, show_pbar=False).run()
    b = torch.from_numpy(L.H(y)).reshape(1, 1, *GRID.shape)
    expected = A.solve(b, weight, rtol=1e-12, max_iter=2000).x
    np.testing.assert_allclose(found, expected.numpy()[0, 0], atol=1e-7)


def test_sense_of_sigpy_is_ours():
    maps = coils()
    weights = (RNG.random(GRID.shape) > 0.3).astype(float)
    linop = sigpy.mri.linop.Sense(maps, weights=weights)
    theirs = from_sigpy(linop, GRID)
    ours = KSpaceMask(GRID, torch.from_numpy(np.sqrt(weights)), torch.from_numpy(maps))
    x = torch.from_numpy(noise(2, 1, *GRID.shape, is_complex=True))
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(theirs.gram(x), ours.gram(x), rtol=1e-6, atol=1e-6)
    assert theirs.complex_range


def test_linear_operators_of_sigpy_keep_the_contract():
    shape = list(GRID.shape)
    check_operator(from_sigpy(sigpy.linop.FFT(shape), GRID), complex_domain=True)
    crop = sigpy.linop.Resize((2, 5, 6), shape)
    check_operator(from_sigpy(crop, GRID, Grid.from_spacing((2, 5, 6), 1.0)), channels=2)
    maps = sigpy.linop.Multiply(shape, coils())
    check_operator(from_sigpy(maps, GRID), complex_domain=True)


def test_there_and_back():
    A = OPERATORS["separable"]()
    again = from_sigpy(to_sigpy(A), GRID, THICK)
    x = torch.from_numpy(noise(2, 3, *GRID.shape))
    torch.testing.assert_close(again(x), A(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(again))(x), A(x))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvsrError, match="does not fit the domain"):
        from_sigpy(sigpy.linop.FFT((4, 5)), GRID)
    with pytest.raises(InvsrError, match="does not fit the range"):
        from_sigpy(sigpy.linop.Resize((2, 5, 6), list(GRID.shape)), GRID)
    maps = from_sigpy(sigpy.linop.Multiply(list(GRID.shape), coils()), GRID)
    with pytest.raises(InvsrError, match="takes 1 channels, not 3"):
        maps(torch.ones(1, 3, *GRID.shape))


def test_libraries_are_imported_where_they_are_used():
    code = (
        "import sys, torch, invsr; from invsr import interop; heavy = ('deepinv', 'sigpy', 'matplotlib', 'sympy')\n"
        "scan = invsr.Volume.from_array(torch.rand(12, 12, 4) + 1, (1, 1, 3))\n"
        "invsr.reconstruct(scan, method='unrolled')\n"
        "assert not any(m in sys.modules for m in heavy)\n"
        "assert interop.sigpy.to_sigpy and 'sigpy' in sys.modules and 'deepinv' not in sys.modules\n"
        "try: interop.nothing\n"
        "except AttributeError: print('right')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "right"


def test_only_what_was_sampled_is_measured():
    kept = RNG.random(GRID.shape) > 0.6
    masked = sigpy.linop.Multiply(GRID.shape, kept.astype(float)) * sigpy.linop.FFT(GRID.shape)
    several = sigpy.mri.linop.Sense(coils(), weights=kept.astype(float))
    for linop, n in ((masked, kept.sum()), (several, 2 * kept.sum())):
        A = from_sigpy(linop, GRID)
        assert A.measured_coordinates(A(torch.ones(1, 1, *GRID.shape, dtype=torch.complex128))).numel() == n


def test_volumes_of_several_channels_are_measured_whole():
    A = from_sigpy(sigpy.linop.Identity((2, *GRID.shape)), GRID)
    assert A.measured_coordinates(torch.ones(1, 2, *GRID.shape)).numel() == 2 * GRID.size
