"""Volumes for losses, and how exactly these are known."""

import numpy as np
import pytest
import torch

from invsr.grid import Grid

GRID = Grid((12, 12, 12), np.eye(4))


def volume(seed=0, shape=(2, 1, 12, 13, 11), dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def approx(value, rel=1e-6):
    return pytest.approx(value, rel=rel, abs=1e-12)
