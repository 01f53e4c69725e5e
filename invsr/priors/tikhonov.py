"""Quadratic priors."""

from __future__ import annotations

from torch import Tensor

from invsr.errors import InvsrError
from invsr.priors.base import GRADIENT, IDENTITY, Prior


class Tikhonov(Prior):
    """``R(x) = 1/2 ||x||^2`` or ``1/2 ||grad x||^2`` (per mm, hence independent of the voxel shape).

    Parameters
    ----------
    analysis : {"gradient", "identity"}

    Raises
    ------
    InvsrError
        When the analysis is unknown.

    References
    ----------
    Tikhonov (1963), Soviet Math. Dokl. 4, 1035-1038.

    Examples
    --------
    >>> import torch
    >>> Tikhonov("identity").prox(torch.tensor([2.0]), 1.0)
    tensor([1.])
    """

    quadratic = True

    def __init__(self, analysis: str = GRADIENT) -> None:
        super().__init__()
        if analysis not in (IDENTITY, GRADIENT):
            raise InvsrError(f"unknown analysis {analysis!r}: use 'identity' or 'gradient'")
        self.analysis = analysis

    def prox(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        return v / (1 + sigma**2)

    def cost(self, z: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        return 0.5 * z.abs().square().sum()
