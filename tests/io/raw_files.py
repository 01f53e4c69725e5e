"""Files of k-space for tests, of a Gaussian blob whose Fourier transform is known."""

import dataclasses

import ismrmrd
import nibabel as nib
import numpy as np
import pytest
from scipy.fft import fftshift, ifftn, ifftshift

from invsr.errors import InvsrError
from invsr.io.raw import load_raw
from invsr.volume import Volume

LPS = np.array([-1.0, -1.0, 1.0])


@dataclasses.dataclass
class Acquisition:
    """A Cartesian scan of one blob, in the patient's LPS and mm; readout, phase encoding, slices or partitions."""

    matrix: tuple = (48, 21, 5)
    view: tuple = (96.0, 63.0, 4.0)
    recon: float = 48.0
    directions: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    position: tuple = (0.0, 0.0, 0.0)
    blob: tuple = (3.0, -5.0, 2.0)
    width: float = 5.0
    slice_spacing: float | None = 6.0
    coils: tuple = (1.0, 0.5j)

    @property
    def flat(self):
        return self.slice_spacing is not None

    def centre_of(self, k):
        """Of a slice, counted along the normal; the slab's own."""
        if not self.flat:
            return np.array(self.position)
        return np.array(self.position) + (k - (self.matrix[2] - 1) / 2) * self.slice_spacing * self.directions[:, 2]

    def signal(self, x, y, k):
        """Of frequencies x and y in cycles per field of view, and slice k or frequency k; shape (coils, len(x))."""
        away = (np.array(self.blob) - self.centre_of(k)) @ self.directions
        z = 0 if self.flat else k / self.view[2]
        x, y = np.asarray(x) / self.view[0], y / self.view[1]
        decay = np.exp(-2 * (np.pi * self.width) ** 2 * (x**2 + y**2 + z**2))
        phase = np.exp(-2j * np.pi * (x * away[0] + y * away[1] + z * away[2]))
        through = np.exp(-(away[2] ** 2) / (2 * self.width**2)) if self.flat else 1
        return (np.array(self.coils)[:, None] * decay * phase * through).astype(np.complex64)

    def line(self, step, at, first=0, stop=None, **head):
        """One line: phase-encoding step, slice or partition step, and which samples of the readout."""
        n = self.matrix[0]
        sizes = np.array(self.matrix) // 2
        data = self.signal(np.arange(n)[first:stop] - n // 2, step - sizes[1], at if self.flat else at - sizes[2])
        idx = {"kspace_encode_step_1": step, "slice" if self.flat else "kspace_encode_step_2": at}
        head = {"position": self.centre_of(at), "center_sample": n // 2 - first, "idx": idx, **head}
        return one_line(data, self.directions, **head)

    def lines(self, **head):
        return [self.line(j, k, **head) for k in range(self.matrix[2]) for j in range(self.matrix[1])]

    def header(self, **changes):
        matrix = (*self.matrix[:2], 1 if self.flat else self.matrix[2])
        return header(matrix, self.view, (self.recon, *self.view[1:]), **changes)


def one_line(data, directions, *, flags=(), idx=(), **head):
    line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data))
    for name, direction in zip(("read_dir", "phase_dir", "slice_dir"), np.transpose(directions), strict=True):
        getattr(line, name)[:] = direction
    line.sample_time_us = 5.0
    for name, value in head.items():
        if name == "position":
            line.position[:] = value
        else:
            setattr(line, name, value)
    for name, value in dict(idx).items():
        setattr(line.idx, name, value)
    for flag in flags:
        line.setFlag(flag)
    return line


def header(matrix, view, recon, *, centres=None, trajectory="cartesian", noise_bandwidth=None, n_encodings=1):
    """XML of ISMRMRD; centres of phase encoding and partitions."""
    xsd = ismrmrd.xsd

    def space(size, mm):
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=size[0], y=size[1], z=size[2]),
            fieldOfView_mm=xsd.fieldOfViewMm(x=mm[0], y=mm[1], z=mm[2]),
        )

    centres = [n // 2 for n in matrix[1:]] if centres is None else centres
    limits = [
        xsd.limitType(minimum=0, maximum=n - 1, center=centre) for n, centre in zip(matrix[1:], centres, strict=True)
    ]
    encoding = xsd.encodingType(
        encodedSpace=space(matrix, view),
        reconSpace=space((max(1, matrix[0] // 2), *matrix[1:]), recon),
        encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=limits[0], kspace_encoding_step_2=limits[1]),
        trajectory=xsd.trajectoryType(trajectory),
    )
    system = xsd.acquisitionSystemInformationType(relativeReceiverNoiseBandwidth=noise_bandwidth)
    experiment = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123000000)
    return xsd.ismrmrdHeader(
        experimentalConditions=experiment, encoding=[encoding] * n_encodings, acquisitionSystemInformation=system
    )


def write_mrd(path, lines, xml, name="dataset"):
    """`xml` is a header or text; None leaves it out."""
    with ismrmrd.Dataset(str(path), name) as dataset:
        if xml is not None:
            dataset.write_xml_header(xml if isinstance(xml, bytes) else xml.toXML().encode())
        if lines:
            dataset.append_acquisition(lines[0])
            append_at_once(dataset._dataset["data"], lines[1:])
    return path


def append_at_once(data, lines):
    """As `append_acquisition`, which takes about 30 times as long for each line."""
    values = np.empty(len(lines), data.dtype)
    for value, line in zip(values, lines, strict=True):
        value["head"] = np.frombuffer(line.getHead(), data.dtype["head"])[0]
        value["data"], value["traj"] = line.data.view(np.float32).ravel(), line.traj.ravel()
    first = len(data)
    data.resize(first + len(lines), 0)
    data[first:] = values


def write_cfl(path, samples):
    """Of shape (coils, i, j, k); returns the .cfl."""
    values = np.moveaxis(np.asarray(samples, np.complex64), 0, -1)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, [*values.shape, *[1] * 12])) + "\n")
    path.with_suffix(".cfl").write_bytes(values.tobytes(order="F"))
    return path.with_suffix(".cfl")


def image_of(raw):
    """(coils, i, j, k), by the transform that `RawData` names."""
    axes = [n + 1 for n in raw.axes]
    samples = raw.samples[0].numpy()
    return fftshift(ifftn(ifftshift(samples, axes), axes=axes, norm="ortho"), axes)


def blob_of(raw, coil=0):
    """Centre of gravity of the image, world mm."""
    weight = np.abs(image_of(raw)[coil]) ** 2
    voxel = [float((weight * index).sum() / weight.sum()) for index in np.indices(weight.shape)]
    return raw.grid.to_world(voxel)


TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
FLAT = Acquisition(directions=TURN, position=(12.0, -31.0, 22.0), blob=(14.5, -26.2, 20.3))
SLAB = dataclasses.replace(FLAT, matrix=(48, 21, 16), view=(96.0, 63.0, 64.0), slice_spacing=None)
SMALL = dataclasses.replace(FLAT, matrix=(16, 6, 2), view=(32.0, 18.0, 4.0), recon=16.0)


def changed(scan, **values):
    return dataclasses.replace(scan, **values)


def another(tmp_path, scan, lines=None, **options):
    """As `read`, of a file beside the first."""
    (tmp_path / "another").mkdir()
    return read(tmp_path / "another", scan, lines, **options)


def read(tmp_path, scan, lines=None, **options):
    index = options.pop("index", None)
    header = scan.header(**options)
    return load_raw(write_mrd(tmp_path / "scan.h5", scan.lines() if lines is None else lines, header), index=index)


def refused(tmp_path, match, lines=None, scan=SMALL, xml=None, **options):
    path = write_mrd(tmp_path / "scan.h5", scan.lines() if lines is None else lines, xml or scan.header(**options))
    with pytest.raises(InvsrError, match=match) as caught:
        load_raw(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and said.count(str(path)) == 1 and "\n" not in said and ": " in said
    return said


def blob(grid, at, width=4.0):
    """A Gaussian at a world position, mm."""
    distance = np.linalg.norm(grid.points() - at, axis=-1)
    return Volume.from_array(np.exp(-0.5 * (distance / width) ** 2), affine=grid.affine)


def centre_of(volume):
    weights = volume.numpy().astype(float) ** 2
    return (volume.grid.points() * weights[..., None]).sum((0, 1, 2)) / weights.sum()
