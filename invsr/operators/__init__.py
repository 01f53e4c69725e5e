"""Forward models: what the scanner does to the anatomy."""

from invsr.noise.estimation import estimate_sigma
from invsr.noise.sampling import add_noise
from invsr.operators.base import Diagonal, LinearOperator
from invsr.operators.contrasts import Contrasts
from invsr.operators.kspace import KSpaceFilter, KSpaceMask
from invsr.operators.kspace_crop import KSpaceCrop, zero_fill
from invsr.operators.kspace_weights import apodisation, elliptic, partial_fourier, poisson_disc, random_mask
from invsr.operators.moving_slices import Slices
from invsr.operators.nonuniform import NonUniformKSpace
from invsr.operators.profiles import AxisProfile
from invsr.operators.sampling import Sampling
from invsr.operators.scan_model import acquisition
from invsr.operators.separable import Identity, Separable
from invsr.operators.stack import Stack
from invsr.operators.trajectories import density_weights, kooshball, radial, spiral
from invsr.operators.transforms import Affine, Displacement, Rigid
from invsr.operators.warp import Resample

__all__ = [
    "Affine",
    "AxisProfile",
    "Contrasts",
    "Diagonal",
    "Displacement",
    "Identity",
    "KSpaceCrop",
    "KSpaceFilter",
    "KSpaceMask",
    "LinearOperator",
    "NonUniformKSpace",
    "Resample",
    "Rigid",
    "Sampling",
    "Separable",
    "Slices",
    "Stack",
    "acquisition",
    "add_noise",
    "apodisation",
    "density_weights",
    "elliptic",
    "estimate_sigma",
    "kooshball",
    "partial_fourier",
    "poisson_disc",
    "radial",
    "random_mask",
    "spiral",
    "zero_fill",
]
