"""Small matrices along axes: what cannot be decomposed is an error that names the axis."""

import pytest
import torch

from invsr.errors import InvsrError
from invsr.numerics.axes import eigenbasis, one_thread


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
