"""What a scan's data say of how it was acquired."""

from invsr.inspection.resolution import PowerSpectrum, measured_matrix, measured_share, power_spectrum

__all__ = ["PowerSpectrum", "measured_matrix", "measured_share", "power_spectrum"]
