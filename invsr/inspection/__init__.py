"""What a scan's data say of how it was acquired."""

from invsr.inspection.resolution import (
    PowerSpectrum,
    measured_matrix,
    measured_share,
    partial_fourier_share,
    power_spectrum,
)
from invsr.inspection.width import SliceWidth, slice_width

__all__ = [
    "PowerSpectrum",
    "SliceWidth",
    "measured_matrix",
    "measured_share",
    "partial_fourier_share",
    "power_spectrum",
    "slice_width",
]
