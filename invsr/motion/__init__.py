"""Motion of scans and slices: estimation by slice-to-volume registration, and files."""

from invsr.motion.joint import LEVELS, NONE, PACKAGES, SLICE, STACK, estimate
from invsr.motion.packages import estimate_packages
from invsr.motion.transforms import Motion, ScanMotion, load_motion, motion_files, save_motion

__all__ = [
    "LEVELS",
    "NONE",
    "PACKAGES",
    "SLICE",
    "STACK",
    "Motion",
    "ScanMotion",
    "estimate",
    "estimate_packages",
    "load_motion",
    "motion_files",
    "save_motion",
]
