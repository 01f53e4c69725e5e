"""Motion of scans and slices: estimation by slice-to-volume registration, and files."""

from invsr.motion.joint import LEVELS, NONE, SLICE, STACK, estimate
from invsr.motion.transforms import Motion, ScanMotion, load_motion, motion_files, save_motion

__all__ = [
    "LEVELS",
    "NONE",
    "SLICE",
    "STACK",
    "Motion",
    "ScanMotion",
    "estimate",
    "load_motion",
    "motion_files",
    "save_motion",
]
