"""Strategies for what a case is made of: images, weights, other files, options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from fuzz_files import TYPES, Content, Image, Weights
from fuzz_values import (
    DAMAGE,
    FIELDS,
    INF,
    LENGTHS,
    MASKS,
    NAN,
    OPTIONS,
    OUTPUTS,
    SHAPES,
    SIDECARS,
    SPACINGS,
    TIMINGS,
    VOXELS,
)
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]


def rarely(draw: Draw, one_in: int) -> bool:
    """True once in `one_in` cases."""
    return bool(draw(st.integers(1, one_in)) == one_in)


def one(draw: Draw, values: Any) -> Any:
    """One of the values."""
    return draw(st.sampled_from(list(values)))


def faulty(draw: Draw, image: Image, voxels: tuple[str, ...] = VOXELS) -> Image:
    """The image with one thing in it changed."""
    kinds = ("shape", "spacing", "type", "damage", "form", "form")
    what = one(draw, (*["fields"] * 4, *["voxels"] * 4, *kinds))
    if what == "fields":
        name, indices, values = one(draw, FIELDS)
        change = (name, one(draw, indices), one(draw, values))
        return dataclasses.replace(image, fields=(*image.fields, change))
    if what == "voxels":
        return dataclasses.replace(image, voxels=one(draw, voxels))
    if what == "shape":
        return dataclasses.replace(image, shape=one(draw, SHAPES))
    if what == "spacing":
        return dataclasses.replace(image, spacing=tuple(map(float, one(draw, SPACINGS))))
    if what == "type":
        return dataclasses.replace(image, datatype=one(draw, TYPES))
    if what == "form":
        return dataclasses.replace(
            image,
            nifti2=draw(st.booleans()),
            big_endian=draw(st.booleans()),
            order=one(draw, ((0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1))),
            origin=one(draw, ((0.0, 0.0, 0.0), (500.0, 0.0, 0.0), (-2.0, 1.0, 3.0), (1e7, 0.0, 0.0))),
            angle=one(draw, (0.0, 0.2, 1e-3, 1.5707963)),
        )
    return dataclasses.replace(image, damage=(*one(draw, DAMAGE), draw(st.floats(0, 1))))


def image_of(draw: Draw, image: Image, voxels: tuple[str, ...] = VOXELS) -> Image:
    """The image as it is in five of eight cases, with a fault or two in the others."""
    for _ in range(one(draw, (0, 0, 0, 0, 0, 1, 1, 2))):
        image = faulty(draw, image, voxels)
    return image


def sidecar(draw: Draw, name: str) -> Content:
    """The JSON beside an image."""
    name = name.removesuffix(".gz").removesuffix(".nii") + ".json"
    if rarely(draw, 3):
        return Content(name, one(draw, SIDECARS))
    entries = {
        "SliceThickness": one(draw, LENGTHS),
        "SpacingBetweenSlices": one(draw, LENGTHS),
        "SliceTiming": one(draw, TIMINGS),
        "SliceEncodingDirection": one(draw, ("k", "k-", "i", "x", "", None, 2, ["k"])),
    }
    kept = [key for key in entries if draw(st.booleans())]
    return Content(name, json.dumps({key: entries[key] for key in kept}).encode())


def weights(draw: Draw, kind: str, name: str = "w.safetensors") -> Weights | Content:
    """A weights file, in order in three of four cases."""
    if rarely(draw, 12):
        text = one(
            draw,
            (b"", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}", b"PK\x03\x04", (2**62).to_bytes(8, "little"), b"\x80\x04."),
        )
        return Content(name, text)
    if not rarely(draw, 4):
        return Weights(name, one(draw, (*[kind] * 6, "flat", "unrolled", "deq")))
    changes = (
        ("architecture", one(draw, ("DnCNN", "ResNet", None, 3, ["UNet"], "GradientStep"))),
        (
            "config",
            one(draw, (None, {}, [], {"dim": 9}, {"dim": 3, "channels": []}, {"dim": 3, "channels": [10**6, 10**6]})),
        ),
        ("config.dim", one(draw, (0, 1, 2, 4, -3, "3", None, 3.0))),
        ("config.channels", one(draw, ([], [0], [-4], [4], ["4"], 4, None, [4, 8], [2**40], [4] * 40))),
        ("config.blocks", one(draw, (0, -1, 10**9, "1", 2))),
        ("config.depth", one(draw, (0, 1, 10**9))),
        ("config.unheard", one(draw, (1,))),
        ("driver", one(draw, (None, [], {}, {"kind": "unrolled"}, "unrolled"))),
        ("driver.kind", one(draw, ("deq", "unrolled", None, 3))),
        ("driver.step", one(draw, ("admm", "red", None, []))),
        ("driver.n_steps", one(draw, (0, -1, 10**9, 1.5, None))),
        ("driver.max_iter", one(draw, (0, -1, None, "4"))),
        ("driver.priors", one(draw, (0, -1, 2, 10**9, None))),
        ("thickness", one(draw, (None, [2], "2-6", [NAN, NAN], 3))),
        ("gap", one(draw, (None, "0", NAN))),
        ("noise", one(draw, (None, [0], {}))),
    )
    what = one(draw, ("changes", "changes", "changes", "fill", "without", "damage"))
    if what == "changes":
        return Weights(name, kind, changes=(one(draw, changes),))
    if what == "fill":
        return Weights(name, kind, fill=one(draw, (NAN, INF, 0.0, 100.0, 6e4, -6e4)))
    if what == "without":
        return Weights(name, kind, without=True)
    return Weights(name, kind, damage=(*one(draw, (("flip",), ("cut",), ("append",))), draw(st.floats(0, 1))))


def transforms(draw: Draw, scans: list[Image]) -> Content:
    """A file of motion for these scans, one thing in it changed in half the cases."""
    rows = one(draw, ([0.0] * 6, [0.01, 0, 0, 1, -0.5, 0], [0, 0, 3, 0, 0, 0]))
    record: dict[str, Any] = {
        "format": "invsr motion",
        "version": 1,
        "centre": [4, 4, 6],
        "scans": [
            {
                "name": scan.name,
                "shape": scan.shape[:3],
                "affine": scan.affine.tolist(),
                "gain": 1.0,
                "bias": [0.0] * 9,
                "weights": [1.0] * scan.shape[2],
                "motion": [rows] * scan.shape[2],
            }
            for scan in scans
        ],
    }
    if draw(st.booleans()):
        key = one(draw, ("format", "centre", "scans", "shape", "affine", "gain", "bias", "weights", "motion", "name"))
        value = one(
            draw,
            (
                None,
                NAN,
                INF,
                0,
                -1,
                1e300,
                "text",
                [],
                {},
                [NAN] * 3,
                [INF] * 9,
                [0.0] * 4,
                [-1.0] * 4,
                [[INF] * 6] * 4,
                [[1e9] * 6] * 4,
                [1e300] * 9,
                [8, 7, -4],
                [8, 7, 10**12],
            ),
        )
        inside = record if key in record else record["scans"][0]
        inside[key] = value
        if rarely(draw, 4):
            del inside[key]
    text = json.dumps(record)
    if rarely(draw, 8):
        text = text[: draw(st.integers(0, len(text)))]
    return Content("motion.json", text.encode())


def profile(draw: Draw) -> Content:
    """A sampled slice profile."""
    return Content(
        "profile.txt",
        one(
            draw,
            (
                b"-2 0\n-1 1\n1 1\n2 0\n",
                b"-2,0\n0,1\n2,0\n",
                b"",
                b"1 2\n",
                b"a b\nc d\n",
                b"0 1\n0 1\n",
                b"-1 nan\n1 1\n",
                b"-1 -1\n1 -1\n",
                b"-1e300 1\n1e300 1\n",
                b"-1 1e308\n1 1e308\n",
                b"-500 1\n500 1\n",
                b"5 1\n9 1\n",
                b"\xff\xfe\x00",
                b"1 2 3\n4 5 6\n",
                b"-1e-9 1\n1e-9 1\n",
                b"-2 1\n0 -1.5\n2 1\n",
                b"# only words\n",
                b"-1 1\n\n\n1 1\n",
            ),
        ),
    )


def option(draw: Draw, name: str) -> tuple[str, ...]:
    """The option with a value that it takes, or in one of four cases with one that it should refuse."""
    good, bad = OPTIONS[name]
    if "nan" in bad and rarely(draw, 6):
        return name, repr(draw(st.floats()))
    return (name, one(draw, bad)) if rarely(draw, 4) else (name, *one(draw, good))


def output(draw: Draw, name: str = "out.nii.gz", others: tuple[str, ...] = OUTPUTS) -> tuple[str, tuple[str, ...]]:
    """The name to write to, and the names that are already there."""
    chosen = one(draw, others) if rarely(draw, 9) else name
    return chosen, ((name,) if chosen == name and rarely(draw, 4) else ())


SECOND = (
    Image("second.nii.gz", (8, 4, 11), (1, 1, 3), order=(0, 2, 1), seed=1),
    Image("second.nii.gz", (8, 7, 4), (1, 1, 3), origin=(0.0, 0.0, 1.5), seed=1),
    Image("second.nii.gz", (8, 7, 4), (1, 1, 3), angle=0.2, seed=1),
    Image("second.nii.gz", (8, 7, 4), (1, 1, 3), voxels="offset", seed=1),
    Image("second.nii.gz", (7, 8, 4), (1, 1, 3), order=(1, 0, 2), angle=-0.1, seed=1),
)

NAMES = ("scan.nii", "scän 1.nii.gz", "\udcff.nii.gz", "<b>&.nii.gz", "scan.nii.gz.nii", "SCAN.NII.GZ", "a.b.nii.gz")


def scans_of(draw: Draw, count: int) -> list[Image]:
    """Scans of one anatomy, more or less."""
    name = one(draw, NAMES) if rarely(draw, 12) else "scan.nii.gz"
    scans = [image_of(draw, Image(name, (8, 7, draw(st.integers(3, 5))), seed=draw(st.integers(0, 3))))]
    scans += [image_of(draw, dataclasses.replace(one(draw, SECOND), name=f"scan{n}.nii.gz")) for n in range(1, count)]
    return scans


def mask_of(draw: Draw, scan: Image, name: str) -> Image:
    """A mask for a scan."""
    inside = one(draw, MASKS[:3])
    plain = Image(name, scan.shape[:3], scan.spacing, scan.origin, scan.order, scan.angle, inside, 2)
    return image_of(draw, plain, MASKS)
