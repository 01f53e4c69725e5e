"""What a file is, by its name and its first bytes: whatever cannot be read is called by its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from invsr.errors import InvsrError

START = 352
GZIP = b"\x1f\x8b"
# What begins with these bytes, and the remedy. The remedy of gzip depends on the file's name.
SIGNATURES = {
    b"BZh": ("is compressed by bzip2", "unpack it with bunzip2, or compress it with gzip"),
    b"\xfd7zXZ\x00": ("is compressed by xz", "unpack it with unxz, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("is compressed by zstd", "unpack it with unzstd, or compress it with gzip"),
    b"PK\x03\x04": ("is a zip archive", "unpack it and name the scan inside"),
    b"CDF": ("is a MINC file", "convert it to NIfTI first (mnc2nii)"),
    b"\x89HDF\r\n\x1a\n": ("is an HDF5 file (MINC 2 or raw data)", "convert it to NIfTI first (MINC: mnc2nii)"),
    b"<?xml": ("is an XML file (GIFTI surface?), not a volume", "name a NIfTI file"),
}
DICOM = ("is a DICOM file", "convert its folder to NIfTI first (dcm2niix)")
# AFNI's volumes have no signature.
ENDINGS = {
    (".dcm", ".ima"): DICOM,
    (".head", ".brik", ".brik.gz"): ("is one of AFNI's two files", "convert it to NIfTI first (3dAFNItoNIFTI)"),
}
# The two files of a pair.
PARTNERS = {".hdr": ".img", ".img": ".hdr"}


def require_readable(path: Path) -> bytes:
    """The first bytes of a file that is there, regular, readable and not empty.

    Raises
    ------
    InvsrError
        When it is none of these; pipes and devices are not opened, as reading them might never end.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InvsrError(f"{path}: is a folder: name one NIfTI file (dcm2niix converts DICOM folders)")
        if not stat.S_ISREG(mode):
            raise InvsrError(f"{path}: is a pipe or a device, not a regular file: copy the scan into a file")
        with open(path, "rb") as file:
            start = file.read(START)
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            target = f"it is a link to {os.readlink(path)}, which is missing"
            raise InvsrError(f"{path}: cannot be opened ({target}): restore the file or name it directly") from error
        raise InvsrError(f"{path}: cannot be opened ({error.strerror}): check the path and permissions") from error
    except InvsrError:
        raise
    except ValueError as error:  # a NUL, or characters that the file system has no bytes for
        raise InvsrError(f"{str(path)!r}: is no file name ({error}): check the path") from error
    if not start:
        raise InvsrError(f"{path}: is empty (0 bytes): copy or export it again")
    return start


def require_nifti_like(path: Path, start: bytes) -> None:
    """Raise where a file is known not to be NIfTI: another format, another compression, half of a pair, Analyze.

    Parameters
    ----------
    path : Path
    start : bytes
        What the file begins with.

    Raises
    ------
    InvsrError
        It says what the file is and what to do.
    """
    found = next((what for bytes_, what in SIGNATURES.items() if start.startswith(bytes_)), None)
    found = found or next((what for endings, what in ENDINGS.items() if path.name.lower().endswith(endings)), None)
    if start[128:132] == b"DICM":
        found = DICOM
    if found is not None:
        raise InvsrError(f"{path}: {found[0]}, which is not read: {found[1]}")
    compressed = start.startswith(GZIP)
    if compressed and path.suffix.lower() != ".gz":
        raise InvsrError(f"{path}: is gzip-compressed but its name does not end in .gz: rename it to end in .gz")
    if not compressed and path.suffix.lower() == ".gz":
        raise InvsrError(f"{path}: is not gzip-compressed but named in .gz: remove .gz from its name if it is a NIfTI")
    ending = path.suffix.lower()
    if ending in PARTNERS:
        _require_pair(path, ending)


def _require_pair(path: Path, ending: str) -> None:
    partner = path.with_suffix(PARTNERS[ending].upper() if path.suffix.isupper() else PARTNERS[ending])
    if not any(os.path.exists(f"{partner}{gz}") for gz in ("", ".gz")):
        what = {".hdr": "the header", ".img": "the voxels"}
        raise InvsrError(
            f"{path}: is {what[ending]} of a pair, and {partner.name}, {what[PARTNERS[ending]]}, is missing: "
            "put it beside"
        )
    header = path if ending == ".hdr" else partner
    if not os.path.exists(header):
        return  # compressed
    start = require_readable(header)
    if 348 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")) and start[344:347] != b"ni1":
        raise InvsrError(
            f"{path}: is Analyze 7.5, whose header does not say how the patient lies: convert it to NIfTI with a tool "
            "that knows where it came from"
        )
