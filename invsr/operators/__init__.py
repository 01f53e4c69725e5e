"""Forward models: what the scanner does to the anatomy."""

from invsr.operators.acquisition import Sampling, acquisition
from invsr.operators.base import Diagonal, LinearOperator, Scaling
from invsr.operators.kspace import KSpaceCrop, KSpaceFilter, KSpaceMask, zero_fill
from invsr.operators.kspace_weights import apodisation, elliptic, partial_fourier, random_mask
from invsr.operators.noise import add_noise, estimate_sigma
from invsr.operators.profiles import AxisProfile
from invsr.operators.separable import Identity, Separable
from invsr.operators.slices import Slices
from invsr.operators.stack import Stack
from invsr.operators.warp import Affine, Displacement, Resample, Rigid

__all__ = [
    "Affine",
    "AxisProfile",
    "Diagonal",
    "Displacement",
    "Identity",
    "KSpaceCrop",
    "KSpaceFilter",
    "KSpaceMask",
    "LinearOperator",
    "Resample",
    "Rigid",
    "Sampling",
    "Scaling",
    "Separable",
    "Slices",
    "Stack",
    "acquisition",
    "add_noise",
    "apodisation",
    "elliptic",
    "estimate_sigma",
    "partial_fourier",
    "random_mask",
    "zero_fill",
]
