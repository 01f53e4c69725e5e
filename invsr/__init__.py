"""Physics-driven MRI super-resolution: thick slices in, one isotropic volume out."""

from invsr import operators, priors, solvers
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.io.nifti import load, save
from invsr.pipeline.run import reconstruct
from invsr.testing.simulation import simulate
from invsr.volume import Volume

__all__ = [
    "Grid",
    "InvsrError",
    "InvsrWarning",
    "Volume",
    "load",
    "operators",
    "priors",
    "reconstruct",
    "save",
    "simulate",
    "solvers",
]
__version__ = "0.1.0"
