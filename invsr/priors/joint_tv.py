"""Total variation of several contrasts of one anatomy: their edges lie in the same places."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invsr.errors import InvsrError
from invsr.priors.tv import TV

NUCLEAR, EUCLIDEAN = "nuclear", "euclidean"
# Eigenvalues that differ by less than this share of the largest count as equal.
EQUAL = 1e-9


class JointTV(TV):
    """``R(x) = sum_v |J x|_v``, J x the 3 x C matrix of the gradients of C contrasts, in intensity per mm.

    The nuclear norm, the sum of singular values, is least where the gradients are parallel, of either sign: what one
    contrast knows of the direction of an edge holds for the others. The Euclidean norm of all entries only knows where
    edges are. For one contrast both are total variation. With ``huber > 0``, Huber's function of each singular value,
    or of the norm.

    Parameters
    ----------
    huber : float
        In scaled intensity per mm, as of `TV`.
    norm : {"nuclear", "euclidean"}

    Shape
    -----
    v : (3, batch, contrast, i, j, k)

    Raises
    ------
    InvsrError
        When the norm is unknown, or as `TV`.

    References
    ----------
    Holt (2014), IEEE Trans. Image Process. 23, 3975-3989 (nuclear). Blomgren, Chan (1998), IEEE Trans. Image Process.
    7, 304-309, and Brudfors, Balbastre, Nachev, Ashburner (2018), MIUA, CCIS 894, 217-228 (Euclidean).

    Examples
    --------
    >>> parallel = torch.tensor([[3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]).reshape(3, 1, 2, 1, 1, 1)
    >>> crossed = torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]).reshape(3, 1, 2, 1, 1, 1)
    >>> [round(float(JointTV().cost(v)), 3) for v in (parallel, crossed)]
    [4.243, 6.0]
    >>> [round(float(JointTV(norm="euclidean").cost(v)), 3) for v in (parallel, crossed)]
    [4.243, 4.243]
    """

    def __init__(self, huber: float = 0.0, norm: str = NUCLEAR) -> None:
        super().__init__(huber)
        if norm not in (NUCLEAR, EUCLIDEAN):
            raise InvsrError(f"unknown norm {norm!r}: use {NUCLEAR} or {EUCLIDEAN}")
        self.norm = norm

    def _residual(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        threshold = sigma**2
        least = (threshold + self.huber) ** 2
        if self.norm == EUCLIDEAN or v.shape[2] == 1:
            square = v.abs().square().sum((0, 2), keepdim=True)
            return v * (threshold / square.clamp(min=least).sqrt())
        # Each singular value s is shortened by min(s, threshold): a function of the square matrix J J*.
        gram = _gram(v)
        eigen = _eigenvalues(gram)
        shares = [threshold / one.clamp(min=least).sqrt() for one in eigen]
        return _applied(gram, eigen, shares, v)

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        if self.norm == EUCLIDEAN or z.shape[2] == 1:
            lengths = z.abs().square().sum((0, 2)).sqrt()
        else:
            # As many as there are contrasts: the others are 0 but for rounding, which a root makes large.
            squares = _eigenvalues(_gram(z))[: z.shape[2]]
            lengths = torch.stack([one.clamp(min=1e-30).sqrt() for one in squares]).to(z.dtype)
        if not self.huber:
            return lengths.sum()
        core = lengths.clamp(max=self.huber) ** 2 / (2 * self.huber)
        return (core + (lengths - self.huber).clamp(min=0)).sum()


# The entries of symmetric 3 x 3 matrices, one for each voxel: (00, 11, 22, 01, 02, 12).
Matrices = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _gram(v: Tensor) -> Matrices:
    """``J J*``, each entry (batch, 1, i, j, k), in double precision: small singular values are roots of its entries."""
    if v.is_complex():
        raise InvsrError("the nuclear norm takes real contrasts: take magnitudes, or the Euclidean norm")
    a, b, c = v.double()

    def inner(p: Tensor, q: Tensor) -> Tensor:
        return (p * q).sum(1, keepdim=True)

    return inner(a, a), inner(b, b), inner(c, c), inner(a, b), inner(a, c), inner(b, c)


def _eigenvalues(gram: Matrices) -> tuple[Tensor, Tensor, Tensor]:
    """Those of positive semidefinite matrices, largest first, by Cardano's formula.

    Smith (1961), Comm. ACM 4, 168.
    """
    xx, yy, zz, xy, xz, yz = gram
    mean = (xx + yy + zz) / 3
    x, y, z = xx - mean, yy - mean, zz - mean
    off = xy * xy + xz * xz + yz * yz
    p = ((x * x + y * y + z * z + 2 * off) / 6).clamp(min=1e-300).sqrt()
    determinant = x * (y * z - yz * yz) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)
    # Away from the ends, where the derivative of the arc cosine is infinite.
    angle = torch.acos((determinant / (2 * p**3)).nan_to_num(0.0).clamp(-1 + 1e-15, 1 - 1e-15)) / 3
    largest = mean + 2 * p * torch.cos(angle)
    least = mean + 2 * p * torch.cos(angle + 2 * math.pi / 3)
    return largest.clamp(min=0), (3 * mean - largest - least).clamp(min=0), least.clamp(min=0)


def _applied(gram: Matrices, eigen: tuple[Tensor, Tensor, Tensor], values: list[Tensor], v: Tensor) -> Tensor:
    """``f(G) v``, f given by its values at the eigenvalues: Newton's interpolation, exact for a 3 x 3 matrix."""
    (first, second, third), (f1, f2, f3) = eigen, values
    equal = EQUAL * first + 1e-300
    # Where two eigenvalues are equal, so are the values: any slope will do.
    slope12 = torch.where(first - second > equal, (f2 - f1) / (second - first - equal), 0.0)
    slope23 = torch.where(second - third > equal, (f3 - f2) / (third - second - equal), 0.0)
    curve = torch.where(first - third > equal, (slope23 - slope12) / (third - first - equal), 0.0)
    once = [a - first * b for a, b in zip(_times(gram, v), v, strict=True)]
    twice = [a - second * b for a, b in zip(_times(gram, once), once, strict=True)]
    found = [f1 * one + slope12 * a + curve * b for one, a, b in zip(v, once, twice, strict=True)]
    return torch.stack(found).to(v.dtype)


def _times(gram: Matrices, v: Tensor | list[Tensor]) -> list[Tensor]:
    xx, yy, zz, xy, xz, yz = gram
    a, b, c = v
    return [xx * a + xy * b + xz * c, xy * a + yy * b + yz * c, xz * a + yz * b + zz * c]
