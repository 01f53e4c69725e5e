"""Physics-driven MRI super-resolution: thick slices in, one isotropic volume out."""

import os

# Before PyTorch is imported: threads that spin while they wait lose their turns where other programs run, and small
# operations then take hundreds of times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from invsr import operators, priors, solvers
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.nifti import load, save
from invsr.io.raw import load_raw
from invsr.noncartesian import NonCartesianData
from invsr.pipeline import (
    InverseProblem,
    Reconstruction,
    Scan,
    methods,
    reconstruct,
    reconstruct_contrasts,
    reconstruct_raw,
    register,
    solve,
)
from invsr.raw import RawData
from invsr.testing.simulation import simulate
from invsr.volume import Volume

__all__ = [
    "Grid",
    "InverseProblem",
    "InvsrError",
    "InvsrWarning",
    "NonCartesianData",
    "RawData",
    "Reconstruction",
    "Scan",
    "Volume",
    "load",
    "load_raw",
    "methods",
    "operators",
    "priors",
    "reconstruct",
    "reconstruct_contrasts",
    "reconstruct_raw",
    "register",
    "save",
    "simulate",
    "solve",
    "solvers",
]
__version__ = "0.1.0"
