"""Files in and out: NIfTI, sidecars, and one way to write a file whole."""

from invsr.io.files import check_writable
from invsr.io.nifti import load, save

__all__ = ["check_writable", "load", "save"]
