"""The XML header of ISMRMRD: matrix, field of view and centre of k-space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invsr.errors import InvsrError
from invsr.io.bounds import LARGEST_TEXT

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Encoding:
    """How k-space was sampled, along readout, phase encoding and partitions.

    Attributes
    ----------
    matrix : tuple of 3 int
        Samples that cover the encoded field of view, readout oversampling included.
    view, recon_view : tuple of 3 float, mm
        The encoded field of view, and the one that the scanner would have reconstructed.
    centres : tuple of 2 int
        Phase-encoding and partition step of frequency zero.
    partitions : int
        The last partition step that the header announces.
    trajectory : str
    multiband : int
        How many slices were excited at once.
    """

    matrix: tuple[int, int, int]
    view: Three
    recon_view: Three
    centres: tuple[int, int]
    partitions: int
    trajectory: str
    multiband: int

    @property
    def cropped(self) -> int:
        """Readout samples that cover the reconstructed field of view at the voxel spacing of the encoded one."""
        n = self.matrix[0]
        return min(n, max(1, round(n * self.recon_view[0] / self.view[0])))

    @property
    def spacing(self) -> Three:
        """Voxel spacing of the encoded matrix, mm; across slices, their thickness."""
        x, y, z = (view / n for view, n in zip(self.view, self.matrix, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Header:
    """What the reader needs of the header.

    Attributes
    ----------
    encodings : tuple of Encoding
    noise_bandwidth : float or None
        Variance of the noise scan as a share of that in the middle of the readout's field of view.
    """

    encodings: tuple[Encoding, ...]
    noise_bandwidth: float | None


def parse_header(path: Path, xml: bytes | str) -> Header:
    """The header of an ISMRMRD file, or the copy of it in a fastMRI file.

    Elements that the schema does not know are passed over; missing ones are an error.

    Raises
    ------
    InvsrError
        When it is not XML of this schema, or a matrix or field of view is not above zero.

    References
    ----------
    Inati et al., ISMRM Raw Data Format: a proposed standard for MRI raw datasets. MRM 77 (2017).
    """
    from ismrmrd.xsd import ismrmrdHeader
    from xsdata.exceptions import ConverterError, ParserError
    from xsdata.formats.dataclass.parsers import XmlParser
    from xsdata.formats.dataclass.parsers.config import ParserConfig

    text = xml.encode() if isinstance(xml, str) else bytes(xml)
    if len(text) > LARGEST_TEXT or b"<!DOCTYPE" in text:
        raise InvsrError(f"{path}: its header is longer than any scanner writes, or defines entities: export it again")
    parser = XmlParser(config=ParserConfig(fail_on_unknown_properties=False, fail_on_converter_warnings=True))
    try:
        header: Any = parser.from_bytes(text, ismrmrdHeader)
    except (ParserError, ConverterError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InvsrError(f"{path}: its header is not the XML of ISMRMRD ({reason}): export it again") from error
    if not header.encoding:
        raise InvsrError(f"{path}: its header describes no encoding: export it again")
    system = header.acquisitionSystemInformation
    share = getattr(system, "relativeReceiverNoiseBandwidth", None)
    return Header(tuple(_encoding(path, one) for one in header.encoding), share if share and 0 < share <= 1 else None)


def _encoding(path: Path, one: Any) -> Encoding:
    encoded, recon = one.encodedSpace, one.reconSpace
    matrix, view = _three(encoded.matrixSize), _three(encoded.fieldOfView_mm)
    recon_view = _three(recon.fieldOfView_mm)
    for what, values in (("matrix", matrix), ("field of view", view), ("reconstructed field of view", recon_view)):
        if not (np.isfinite(values).all() and min(values) > 0):
            size = "x".join(f"{value:g}" for value in values)
            raise InvsrError(f"{path}: the header gives a {what} of {size}, not all above zero: repair the header")
    limits = [getattr(one.encodingLimits, f"kspace_encoding_step_{n}", None) for n in (1, 2)]
    centres = [matrix[n] // 2 if limit is None else limit.center for n, limit in zip((1, 2), limits, strict=True)]
    multiband = getattr(one.parallelImaging, "multiband", None)
    return Encoding(
        (int(matrix[0]), int(matrix[1]), int(matrix[2])),
        view,
        recon_view,
        (int(centres[0]), int(centres[1])),
        0 if limits[1] is None else int(limits[1].maximum),
        str(one.trajectory.value),
        1 if multiband is None else int(multiband.multiband_factor),
    )


def _three(of: Any) -> Three:
    return of.x, of.y, of.z
