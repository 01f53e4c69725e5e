"""Finite differences: adjoint, Laplacian, spectrum, and what they do to ramps."""

import numpy as np
import pytest
import torch
from scipy import fft

from invsr.numerics.differences import gradient, gradient_adjoint, laplacian, laplacian_matrix, laplacian_spectrum

SPACING = [1.0, 0.5, 3.0]


@pytest.mark.parametrize("boundary", [("neumann",) * 3, ("periodic",) * 3, ("neumann", "periodic", "neumann")])
@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 6, 2)])
def test_adjoint_and_laplacian(boundary, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, *shape, dtype=torch.float64, generator=generator)
    g = torch.randn(3, 2, 1, *shape, dtype=torch.float64, generator=generator)
    left = (gradient(x, SPACING, boundary) * g).sum()
    right = (x * gradient_adjoint(g, SPACING, boundary)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    expected = 0
    for n in (0, 1, 2):
        matrix = torch.from_numpy(laplacian_matrix(shape[n], SPACING[n], boundary[n]))
        expected = expected + torch.movedim(torch.tensordot(x, matrix, ([n + 2], [1])), -1, n + 2)
    torch.testing.assert_close(laplacian(x, SPACING, boundary), expected)


def test_ramp_has_its_slope_per_millimetre():
    index = torch.arange(4, dtype=torch.float64)
    x = (3.0 * index * SPACING[2]).expand(1, 1, 4, 4, 4)
    g = gradient(x, SPACING, ("neumann",) * 3)
    assert not g[:2].any()
    assert torch.equal(g[2][..., :-1], torch.full((1, 1, 4, 4, 3), 3.0, dtype=torch.float64))
    assert not g[2][..., -1].any()


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_spectrum(size):
    cosines = fft.idct(np.eye(size), type=2, norm="ortho", axis=0)
    found = cosines.T @ laplacian_matrix(size, 0.7, "neumann") @ cosines
    np.testing.assert_allclose(found, np.diag(laplacian_spectrum(size, 0.7, "neumann")), atol=1e-10)
    waves = fft.ifft(np.eye(size), norm="ortho", axis=0)
    found = waves.conj().T @ laplacian_matrix(size, 0.7, "periodic") @ waves
    np.testing.assert_allclose(found, np.diag(laplacian_spectrum(size, 0.7, "periodic")), atol=1e-10)
