"""Coil arrays: their noise, virtual coils, and sensitivity maps."""

from invsr.coils.compression import compressed
from invsr.coils.maps import coil_maps
from invsr.coils.noise import NoiseEstimate, estimate_noise
from invsr.coils.noise_of_readouts import readout_noise
from invsr.coils.whitening import noise_covariance, whitened

__all__ = [
    "NoiseEstimate",
    "coil_maps",
    "compressed",
    "estimate_noise",
    "noise_covariance",
    "readout_noise",
    "whitened",
]
