"""Unknown values continued smoothly from known ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate


def filled(data: Tensor, known: Tensor) -> Tensor:
    """Known values as they are; for the others, means of known ones nearby, of larger regions the further they are.

    Push and pull: means over 2 x 2 x 2 voxels of what is known, repeated until all is, then interpolated back level by
    level.

    Parameters
    ----------
    data : Tensor, shape (1, 1, i, j, k)
    known : Tensor of bool, shape of data
        Somewhere true.

    References
    ----------
    Gortler, Grzeszczuk, Szeliski & Cohen (1996), The lumigraph, SIGGRAPH, 43-54.
    """
    if bool(known.all()):
        return data
    sides = [min(2, side) for side in data.shape[2:]]

    def pooled(values: Tensor) -> Tensor:
        return avg_pool3d(values, sides, ceil_mode=True, count_include_pad=False)

    share = pooled(known.to(data))
    means = pooled(torch.where(known, data, 0.0)) / share.clamp(min=1e-30)
    coarse = filled(means, share > 0)
    return torch.where(known, data, interpolate(coarse, data.shape[2:], mode="trilinear"))
