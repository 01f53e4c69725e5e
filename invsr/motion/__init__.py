"""Where scans and their slices lay: estimated together with the volume, kept in files."""

from invsr.motion.joint import LEVELS, NONE, SLICE, STACK, estimate
from invsr.motion.transforms import Motion, ScanMotion, load_motion, save_motion

__all__ = ["LEVELS", "NONE", "SLICE", "STACK", "Motion", "ScanMotion", "estimate", "load_motion", "save_motion"]
