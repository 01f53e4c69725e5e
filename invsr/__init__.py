"""Physics-driven MRI super-resolution: thick slices in, one isotropic volume out."""

from invsr import operators, priors, solvers
from invsr.errors import InvsrError, InvsrWarning
from invsr.grid import Grid
from invsr.reconstruct import reconstruct
from invsr.simulate import simulate
from invsr.volume import Volume, load, save

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
