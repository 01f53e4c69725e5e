"""Small matrices along axes: what cannot be decomposed is an error that names the axis."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.numerics import axes
from invsr.numerics.axes import eigenbasis, gaussian_means, multiply, one_thread, rotate


def test_a_basis_diagonalises():
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = matrix @ matrix.T
    values, vectors = eigenbasis(matrix)
    torch.testing.assert_close(vectors @ torch.diag(values) @ vectors.T, matrix)


def test_a_matrix_that_cannot_be_decomposed_is_one_line():
    with pytest.raises(InvsrError, match="matrix of an axis of 4 voxels has no eigenvectors"):
        eigenbasis(torch.full((4, 4), torch.nan, dtype=torch.float64))


def test_one_thread_is_given_back_after_an_error_too():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="inside"), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("inside")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_gaussian_means_have_no_denormal_numbers():
    means = gaussian_means(120, 4.0)
    single = means.float()
    assert not ((single > 0) & (single < torch.finfo(torch.float32).tiny)).any()
    torch.testing.assert_close(means.sum(1), torch.ones(120, dtype=torch.float64))


@pytest.mark.parametrize("slab", [1, 50, 10**6])
@pytest.mark.parametrize("owned", [True, False])
def test_matrices_applied_in_place_a_slab_at_a_time(slab, owned, monkeypatch):
    monkeypatch.setattr(axes, "SLAB", slab)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 5, 4, dtype=torch.complex128, generator=generator)
    matrices = [torch.randn(n, n, dtype=x.dtype, generator=generator) for n in (4, 6, 5)]
    expected, given = x, x.clone()
    for matrix, n in zip(matrices, (2, 0, 1), strict=True):
        expected = multiply(matrix, expected, n)
    with torch.no_grad():
        found = rotate(matrices, x, (2, 0, 1), owned)
    torch.testing.assert_close(found, expected)
    assert (found.data_ptr() == x.data_ptr()) is owned
    assert owned or torch.equal(x, given)
