"""Files that a fuzz case needs, as plain records that print whole and can be written again."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    32: "c8",
    64: "f8",
    128: "V3",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
    1792: "c16",
    2304: "V4",
}


@dataclass(frozen=True)
class Image:
    """A NIfTI file: shape, mm, what the voxels hold, and header fields (name, index or None, value) set afterwards."""

    name: str
    shape: tuple[int, ...] = (8, 7, 4)
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    order: tuple[int, int, int] = (0, 1, 2)
    angle: float = 0.0
    voxels: str = "head"
    datatype: int = 16
    fields: tuple[tuple[str, int | None, Any], ...] = ()
    nifti2: bool = False
    big_endian: bool = False
    damage: tuple[Any, ...] = ()
    seed: int = 0

    @property
    def affine(self) -> np.ndarray:
        """From voxels to mm."""
        turned = np.eye(3)
        turned[:2, :2] = [[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]]
        affine = np.eye(4)
        affine[:3, :3] = (turned * self.spacing)[:, list(self.order)]
        affine[:3, 3] = self.origin
        return affine

    def write(self, folder: Path) -> None:
        """Header by hand, so that any number fits into any field; then the damage."""
        kind = nib.Nifti2Header if self.nifti2 else nib.Nifti1Header
        header = kind(endianness=">" if self.big_endian else "<")
        header.set_data_shape(self.shape)
        dtype = np.dtype(TYPES[self.datatype]).newbyteorder(">" if self.big_endian else "<")
        header["datatype"], header["bitpix"] = self.datatype, 8 * dtype.itemsize
        header.set_sform(self.affine, 1)
        header.set_qform(self.affine, 1)
        header["xyzt_units"] = 2
        header["vox_offset"] = 544 if self.nifti2 else 352
        with np.errstate(all="ignore"):
            for field, index, value in self.fields:
                header[field][... if index is None else index] = value
            values = made(self.voxels, self.shape[:3], self.seed)
            values = np.stack([values] * int(np.prod(self.shape[3:])), -1)
            if dtype.kind in "iu":
                limits = np.iinfo(dtype)
                values = np.clip(np.nan_to_num(values), float(limits.min), float(limits.max) / 2)
            if dtype.kind == "V":
                content = bytes(dtype.itemsize) * values.size
            else:
                content = values.astype(dtype).tobytes(order="F")
        content = header.binaryblock + b"\0\0\0\0" + content
        (folder / self.name).write_bytes(damaged(content, self.damage, self.name.endswith(".gz")))


@dataclass(frozen=True)
class Content:
    """A file of these bytes."""

    name: str
    content: bytes

    def write(self, folder: Path) -> None:
        (folder / self.name).write_bytes(self.content)


@dataclass(frozen=True)
class Folder:
    """An empty folder."""

    name: str

    def write(self, folder: Path) -> None:
        (folder / self.name).mkdir(exist_ok=True)


@dataclass(frozen=True)
class Weights:
    """A weights file of a small network: its description changed by (key, value), its numbers filled, damaged."""

    name: str
    kind: str = "denoiser"
    changes: tuple[tuple[str, Any], ...] = ()
    fill: float | None = None
    without: bool = False
    damage: tuple[Any, ...] = ()

    def write(self, folder: Path) -> None:
        from safetensors.torch import save

        tensors, about = small_network(self.kind)
        about = json.loads(json.dumps(about))
        for path, value in self.changes:
            *parents, last = path.split(".")
            inside = about
            for key in parents:
                inside = inside.setdefault(key, {})
            inside[last] = value
        if self.fill is not None:
            tensors = {name: value * 0 + self.fill for name, value in tensors.items()}
        if self.without:
            tensors.popitem()
        content = save(tensors, {"invsr": json.dumps(about)})
        (folder / self.name).write_bytes(damaged(content, self.damage, False))


_NETWORKS: dict[str, Any] = {}


def small_network(kind: str) -> Any:
    """Tensors in half precision and description of a small network, untrained, made once."""
    import torch

    from invsr.models.architectures import build
    from invsr.models.weights import describe
    from invsr.solvers.trained import equilibrium_of, unrolled_of

    if kind not in _NETWORKS:
        torch.manual_seed(0)
        config = {"dim": 2, "channels": 4, "depth": 2} if kind == "flat" else {"dim": 3, "channels": [4, 4]}
        network: Any = build("DnCNN" if kind == "flat" else "UNet", config)
        about: dict[str, Any] = describe(network)
        ranges = {"thickness": [2, 6], "gap": 0.2, "noise": [0.0, 0.1]}
        if kind == "unrolled":
            network = unrolled_of([network], "hqs", 2)
            about |= {"driver": {"kind": kind, "step": "hqs", "n_steps": 2, "priors": 1}, **ranges}
        elif kind == "deq":
            network = equilibrium_of(network, "hqs", 4)
            about |= {"driver": {"kind": kind, "step": "hqs", "max_iter": 4}, **ranges}
        _NETWORKS[kind] = {name: value.half() for name, value in network.state_dict().items()}, about
    tensors, about = _NETWORKS[kind]
    return dict(tensors), about


def made(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Voxels of a kind, float64."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(0, 1, shape)
    x, y, z = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    distance = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 / 4
    head = np.where(distance < 0.8, 600 + 300 * (distance < 0.2), 0) + 15 * noise
    middle = tuple(n // 2 for n in shape)
    if kind in ("nan", "inf", "1e13", "1e30", "-1e38", "3e38"):
        head[middle] = float(kind)
        return head
    if kind == "one voxel" or kind == "one":
        return np.where(np.arange(head.size).reshape(shape) == head.size // 2, 1.0, 0.0)
    kinds = {
        "head": head,
        "negative": -np.abs(head) - 1,
        "offset": head + 1e6,
        "small": 1e-30 * head,
        "smallest": 1e-42 * head,
        "large": 1e30 * head,
        "noise": 100 * noise,
        "zeros": 0 * head,
        "constant": 0 * head + 5,
        "all nan": head * np.nan,
        "some slices": np.where(np.arange(shape[2]) % 2 == 0, head, 0),
        "nan slice": np.where(np.arange(shape[2]) == 0, np.nan, head),
        "chess": np.indices(shape).sum(0) % 2 * 1000.0,
        "pixels": np.round(head.clip(0) / 500),
        "ones": 0 * head + 1,
        "box": np.where((np.abs(x)[:, None, None] < 0.7) & (np.abs(y)[:, None] < 0.7) & (np.abs(z) < 2), 1, 0),
        "half": np.where(x[:, None, None] + 0 * head > 0, 1, 0),
    }
    return np.asarray(kinds[kind], dtype=np.float64)


def damaged(content: bytes, damage: tuple[Any, ...], compress: bool) -> bytes:
    """File content after gzip and damage: ("cut", share), ("flip", share), ("raw flip", share), ("append",), ..."""
    what, share = (*damage, None, None)[:2]
    if what == "raw flip":
        content = _flipped(content, share)
    if compress != (what == "other compression"):
        content = gzip.compress(content, 1, mtime=0)
    if what == "twice":
        content = gzip.compress(content, 1, mtime=0)
    if what == "cut":
        content = content[: int(share * len(content))]
    if what == "flip":
        content = _flipped(content, share)
    return content + b"\x80 more" if what == "append" else content


def _flipped(content: bytes, share: float) -> bytes:
    at = int(share * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
