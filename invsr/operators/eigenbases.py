"""Bases in which a Gram matrix and a Laplacian are diagonal together."""

from __future__ import annotations

import torch
from torch import Tensor

from invsr.numerics.axes import eigenbasis

# Two matrices commute, or a matrix is diagonal, when the rest is this small against their norms.
COMMUTES = 1e-9
# Tried in turn for the combination of two matrices whose eigenvectors are to diagonalise both.
JOINT_WEIGHTS = (0.6180339887, 1.3247179572, 0.8191725134, 2.2055694304)


class JointBasis:
    """Vectors that diagonalise a Gram matrix and a Laplacian at once, and both sets of eigenvalues."""

    def __init__(self, vectors: Tensor, gram: Tensor, laplacian: Tensor) -> None:
        self.vectors, self.gram, self.laplacian = vectors, gram, laplacian


def joint_eigenbasis(gram: Tensor | None, laplacian: Tensor) -> JointBasis | None:
    """The basis of both, or None where they do not commute; a Gram matrix of None is the identity."""
    if gram is None:
        values, vectors = eigenbasis(laplacian)
        return JointBasis(vectors, torch.ones_like(values), values.clamp(min=0))
    scale = torch.linalg.norm(gram) * torch.linalg.norm(laplacian)
    if torch.linalg.norm(gram @ laplacian - laplacian @ gram) > COMMUTES * scale:
        return None
    gram_norm, laplacian_norm = torch.linalg.norm(gram), torch.linalg.norm(laplacian).clamp(min=1e-30)
    # The eigenvectors of a combination serve both, unless two of its eigenvalues coincide that belong to unequal
    # pairs. No single weight rules that out, so each is checked.
    for weight in JOINT_WEIGHTS:
        _, vectors = eigenbasis(gram / gram_norm + weight * laplacian / laplacian_norm)
        g, lap = vectors.mH @ gram @ vectors, vectors.mH @ laplacian @ vectors
        if _off_diagonal(g) <= COMMUTES * gram_norm and _off_diagonal(lap) <= COMMUTES * laplacian_norm:
            return JointBasis(vectors, g.diagonal().real.clamp(min=0), lap.diagonal().real.clamp(min=0))
    return None


def _off_diagonal(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.norm(matrix - torch.diag(matrix.diagonal()))
    return norm
