"""Strategies: most of a case is in order, and one or two things in it are not."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from fuzz_files import TYPES, Content, Folder, Image, Weights
from fuzz_run import Case
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
NAN, INF = math.nan, math.inf
NUMBERS = (NAN, INF, -INF, 0, -1, 1e-20, 1e20, 1e38)

# Header fields, which of their numbers, and what is put there.
FIELDS: tuple[tuple[str, tuple[int | None, ...], tuple[Any, ...]], ...] = (
    ("dim", (0,), (0, 1, 2, 4, 5, 7, 8, -1)),
    ("dim", (1, 2, 3), (0, 1, 2, -1, 5, 32767)),
    ("dim", (None,), ([3, 32767, 32767, 32767, 1, 1, 1, 1], [3, 32767, 32767, 1, 1, 1, 1, 1], [7, *[1] * 7])),
    ("dim", (4, 5), (0, 2, -1, 32767)),
    ("datatype", (None,), (0, 1, 2, 4, 8, 64, 128, 1536, 2048, 9999, -1)),
    ("bitpix", (None,), (0, 8, 64)),
    ("pixdim", (0,), (-1, 0, 5, NAN)),
    ("pixdim", (1, 2, 3), (*NUMBERS, 1e-6, 1000, 3)),
    ("vox_offset", (None,), (0, 1, 100, 353, 1e9, 1e18, -1)),
    ("scl_slope", (None,), (*NUMBERS, 1e-38, 1e30, 0.5)),
    ("scl_inter", (None,), (*NUMBERS, 1e30, -1000)),
    ("sform_code", (None,), (0, 2, 9, -1)),
    ("qform_code", (None,), (0, 2, 9, -1)),
    ("srow_x", (0, 1, 2, 3), (*NUMBERS, 150, 0.3)),
    ("srow_y", (0, 1, 2, 3), (*NUMBERS, 150, 0.3)),
    ("srow_z", (0, 1, 2, 3), (*NUMBERS, 150, 0.3)),
    ("quatern_b", (None,), (1, 2, *NUMBERS)),
    ("quatern_d", (None,), (1, -0.3, *NUMBERS)),
    ("qoffset_x", (None,), NUMBERS),
    ("xyzt_units", (None,), (0, 1, 3, 7, 255)),
    ("dim_info", (None,), (16, 32, 48, 57, 255)),
    ("magic", (None,), (b"ni1", b"n+2", b"", b"n+9")),
    ("sizeof_hdr", (None,), (0, 540, -1)),
    ("intent_code", (None,), (1001, 3006, -1)),
)
VOXELS = (
    "nan",
    "inf",
    "1e13",
    "1e30",
    "-1e38",
    "3e38",
    "one voxel",
    "negative",
    "offset",
    "small",
    "smallest",
    "large",
    "noise",
    "zeros",
    "constant",
    "all nan",
    "some slices",
    "nan slice",
    "chess",
    "pixels",
)
MASKS = ("ones", "box", "half", "one voxel", "zeros", "all nan", "nan slice", "negative")
DAMAGE = (("raw flip",), ("flip",), ("cut",), ("append",), ("twice",), ("other compression",))
SHAPES = ((1, 7, 4), (8, 1, 4), (8, 7, 1), (1, 1, 1), (2, 2, 2), (3, 2, 9), (8, 7, 2), (8, 7, 4, 1), (8, 7, 4, 2))
SPACINGS = ((1, 1, 1), (3, 1, 1), (1, 1, 9), (1e-3, 1e-3, 3e-3), (300, 300, 900), (1, 1.3, 3.7), (0.9, 0.9, 0.95))

NASTY = ("0", "-1", "nan", "inf", "-inf", "1e-300", "1e300", "1e9", "", "text", "1,5", "0x10", "1e-9", "٣")
THICKNESS = (("3",), ("auto",), ("3", "auto"), ("2.5",), ("6",), ("3", "3"), ("3", "3", "3", "3"), ("15",), ("0.05",))
# Options of `reconstruct`: what they take and what they should refuse.
OPTIONS: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "--lam": ((("0.01",), ("auto",), ("3",), ("1e-6",)), (*NASTY, "1e-30", "1e30")),
    "--huber": ((("0.05",), ("0",)), NASTY),
    "--solver": ((("hqs",), ("admm",), ("pgd",), ("red",)), ("", "HQS", "newton")),
    "--denoiser": (
        (("mri-denoiser-fast",), ("mri-denoiser",)),
        ("", "none", "missing.safetensors", "deepinv:None", "."),
    ),
    "--model": ((("mri-unrolled",), ("mri-deq",)), ("", "mri-denoiser", "missing.safetensors", "../x")),
    "--spacing": (
        (("1",), ("0.8",), ("1x1x1",), ("2",), ("1x1x0.5",), ("7",)),
        (*NASTY, "1x1", "1x1x1x1", "axbxc", "1e-3"),
    ),
    "--slice-thickness": (THICKNESS, NASTY),
    "--slice-profile": ((("gaussian",), ("boxcar",), ("sinc",), ("slr",)), ("", "square", ".", "missing.txt")),
    "--in-plane": ((("kspace",), ("gaussian",), ("none",)), ("", "sinc")),
    "--noise": ((("20",), ("1",), ("5", "5"), ("1e3",)), NASTY),
    "--noise-model": ((("gaussian",), ("rician",), ("huber",), ("l1",)), ("", "poisson")),
    "--slice-axis": ((("i",), ("j",), ("k",), ("0",)), ("", "x", "3", "-1")),
    "--geometry": ((("sform",), ("qform",), ("pixdim",)), ("", "affine")),
    "--zero-filling": ((("auto",), ("keep",)), ("", "no")),
    "--faults": ((("auto",), ("keep",)), ("", "no")),
    "--motion": ((("none",), ("stack",)), ("", "some", "slice")),
    "--volume": ((("0",), ("1",)), ("-1", "9", "1e3", "", "99999999999999999999")),
    "--device": ((("cpu",), ("auto",)), ("", "cuda", "cuda:99", "meta", "gpu", "cpu:1", "mps")),
    "--seed": ((("0",), ("7",)), ("-1", "9223372036854775808", "99999999999999999999999", "1.5", "")),
    "--samples": ((("2",), ("3",)), ("0", "1", "-1", "10000000", "2.5", "")),
    "--uncertainty": ((("bootstrap",), ("replicas",), ("predicted",)), ("", "posterior")),
    "--max-iter": ((("1",), ("2",)), ("0", "-1", "2.5", "99999999999999999999", "")),
    "--unknown": ((("1",),), ("",)),
    "--quiet": (((),), ("yes",)),
    "--adapt": (((),), ("yes",)),
    "--report": ((("report",),), ("", "scan.nii.gz", "scan.nii.gz/x", "missing/report")),
}
OUTPUTS = (
    "out.nii",
    "out.NII.GZ",
    "out",
    "out.nii.gz.txt",
    "missing/out.nii.gz",
    "folder",
    "scan.nii.gz",
    "./scan.nii.gz",
    "n" * 260 + ".nii.gz",
    "n" * 240 + ".nii.gz",
    "ö 脑 out.nii.gz",
    "\udcff.nii.gz",
    ".nii.gz",
    "",
    "-",
    "scan.json",
    "new\nline.nii",
    "/dev/null",
    "scan.nii.gz/out.nii.gz",
)
SIDECARS = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"{}" * 2,
    b"[" * 100000,
    b'{"SliceThickness": ' + b"9" * 5000 + b"}",
    b'{"SliceThickness": 1e999}',
    b'{"SliceThickness": NaN}',
    b"\x00",
    b'{"SliceThickness": 3, "SliceThickness": 2}',
    '{"Größe": 1}'.encode("latin-1"),
)
LENGTHS = (3, 3.0, 2, 0, -3, "3", None, [3], {"mm": 3}, True, 1e300, 3000, 0.003, 50, 10**30, 1e-300)
TIMINGS = (
    [0, 1, 2, 3],
    [3, 1, 0, 2],
    [0, 0, 0, 0],
    [1],
    [],
    "text",
    [None] * 4,
    [1e300] * 4,
    [[0]] * 4,
    {},
    [-1, -2, -3, -4],
)


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


# Options that one method or another takes, and those that nearly always end a case.
NOT_OF_ALL = (
    "--lam",
    "--huber",
    "--solver",
    "--denoiser",
    "--model",
    "--adapt",
    "--max-iter",
    "--samples",
    "--unknown",
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


@st.composite
def reconstructions(draw: Draw, method: str) -> Case:
    """`invsr reconstruct` by one method."""
    scans = scans_of(draw, one(draw, (1, 1, 1, 1, 2, 2, 3)))
    names = [scan.name for scan in scans]
    files: list[Any] = [*scans, Folder("folder")]
    chosen, old = output(draw)
    words = ["reconstruct", *names, "-o", chosen]
    own = {"pnp": ("--solver", "--lam"), "tv": ("--huber", "--lam"), "tikhonov": ("--lam",)}.get(method, ())
    others = [name for name in OPTIONS if name not in NOT_OF_ALL] if not rarely(draw, 8) else list(OPTIONS)
    options: dict[str, tuple[str, ...]] = {"--method": ("--method", method)} if method != "auto" else {}
    if method in ("tv", "pnp", "tikhonov"):
        options["--max-iter"] = option(draw, "--max-iter") if rarely(draw, 10) else ("--max-iter", "2")
    if method == "posterior":
        options["--samples"] = ("--samples", "2")
    if own and draw(st.booleans()):
        name = one(draw, own)
        options[name] = option(draw, name)
    for _ in range(one(draw, (0, 0, 0, 1, 1, 2))):
        name = one(draw, others)
        options[name] = option(draw, name)
    network = {"pnp": "denoiser", "posterior": "denoiser", "unrolled": "unrolled", "deq": "deq"}.get(method)
    if network is not None and not rarely(draw, 3):
        flag = "--denoiser" if network == "denoiser" else "--model"
        if rarely(draw, 8):
            options[flag] = option(draw, flag)
        else:
            files.append(weights(draw, network))
            options[flag] = (flag, files[-1].name)
    if "--uncertainty" in options:
        options["--samples"] = ("--samples", "2")
    if rarely(draw, 6):
        count = len(scans) if not rarely(draw, 5) else one(draw, (1, 2))
        masks = [mask_of(draw, scans[n % len(scans)], f"mask{n}.nii.gz") for n in range(count)]
        files += masks
        options["--mask"] = ("--mask", *(one.name for one in masks))
    if rarely(draw, 12):
        files.append(image_of(draw, Image("grid.nii", (8, 9, 12), (1, 1, 1), voxels="ones")))
        options["--reference"] = ("--reference", "grid.nii")
    if rarely(draw, 12) or (len(scans) > 1 and rarely(draw, 5)):
        files.append(transforms(draw, scans))
        options["--transforms"] = ("--transforms", "motion.json")
    if rarely(draw, 12):
        files.append(profile(draw))
        options["--slice-profile"] = ("--slice-profile", "profile.txt")
    if rarely(draw, 5):
        files.append(sidecar(draw, scans[0].name))
    return Case((*words, *(word for given in options.values() for word in given)), tuple(files), old)


@st.composite
def registrations(draw: Draw) -> Case:
    """`invsr register`."""
    scans = scans_of(draw, one(draw, (2, 2, 2, 3, 1)))
    files: list[Any] = [*scans, Folder("folder")]
    chosen, old = output(draw, "motion.json", (*OUTPUTS, "out.json", "\udcff.json"))
    words = ["register", *(scan.name for scan in scans), "-o", chosen]
    if draw(st.booleans()):
        words += ["--motion", one(draw, ("stack", "slice", "slice", "none", ""))]
    for name in ("--spacing", "--slice-thickness", "--slice-profile"):
        if rarely(draw, 6):
            words += option(draw, name)
    if rarely(draw, 5):
        masks = [mask_of(draw, scan, f"mask{n}.nii.gz") for n, scan in enumerate(scans)]
        files += masks
        words += ["--mask", *(one.name for one in masks)]
    return Case(tuple(words), tuple(files), old)


HIGH = Image("high.nii.gz", (12, 12, 12), (1, 1, 1))


@st.composite
def simulations(draw: Draw) -> Case:
    """`invsr simulate`."""
    files: list[Any] = [image_of(draw, HIGH), Folder("folder")]
    chosen, old = output(draw, others=(*OUTPUTS, "high.nii.gz"))
    words = ["simulate", "high.nii.gz", "-o", chosen, "--slice-thickness"]
    words.append(one(draw, NASTY) if rarely(draw, 6) else one(draw, ("3", "4", "2.5", "12")))
    takes = {
        "--gap": (("1", "0", "-1"), NASTY),
        "--slice-profile": (("boxcar", "sinc", "slr"), ("", "square", ".")),
        "--axis": (("i", "j", "k"), ("", "x", "3")),
        "--in-plane-factor": (("2", "1", "1.5"), NASTY),
        "--noise": (("0.01", "0.5"), NASTY),
        "--noise-model": (("rician", "gaussian"), ("", "poisson")),
        "--seed": (("0", "5"), OPTIONS["--seed"][1]),
    }
    for name, (good, bad) in takes.items():
        if rarely(draw, 5):
            words += [name, one(draw, bad) if rarely(draw, 3) else one(draw, good)]
    if rarely(draw, 8):
        files.append(profile(draw))
        words += ["--slice-profile", "profile.txt"]
    return Case(tuple(words), tuple(files), old)


@st.composite
def evaluations(draw: Draw) -> Case:
    """`invsr evaluate`."""
    size = one(draw, ((12, 12, 12), (16, 15, 14), (13, 12, 11), (8, 7, 4), (1, 9, 9)))
    plain = Image("image.nii.gz", size, (1, 1, 1))
    files: list[Any] = [image_of(draw, plain), image_of(draw, dataclasses.replace(plain, name="truth.nii.gz", seed=1))]
    words = ["evaluate", "image.nii.gz", "--truth", "truth.nii.gz"]
    if rarely(draw, 3):
        files.append(mask_of(draw, plain, "mask.nii.gz"))
        words += ["--mask", "mask.nii.gz"]
    if draw(st.booleans()):
        words.append("--json")
    return Case(tuple(words), tuple(files))


@st.composite
def benchmarks(draw: Draw) -> Case:
    """`invsr benchmark` on a small volume, or on the example, which the test replaces by a small one."""
    files = [image_of(draw, HIGH)] if draw(st.booleans()) else []
    words = ["benchmark", *(one.name for one in files)]
    words += ["--method", one(draw, ("cubic", "tikhonov", "tv", "", "best"))]
    for name in ("--slice-thickness", "--gap", "--noise"):
        if rarely(draw, 4):
            words += [name, one(draw, ("2", "1", "0.02", *NASTY))]
    if rarely(draw, 5):
        words += ["--axis", one(draw, ("i", "j", "x"))]
    if rarely(draw, 5):
        words += ["--seed", one(draw, OPTIONS["--seed"][1])]
    return Case(tuple(words), tuple(files))


@st.composite
def demonstrations(draw: Draw) -> Case:
    """`invsr demo` on a small volume, which the test puts in the place of the example."""
    words = ["demo", "--out", one(draw, ("demo", "demo", "a/b", "folder", "file", "file/demo", "", "n" * 260))]
    if draw(st.booleans()):
        words += ["--slice-thickness", one(draw, ("3", "5", *NASTY))]
    if rarely(draw, 4):
        words.append("--quiet")
    return Case(tuple(words), (Folder("folder"), Content("file", b"text")))


@st.composite
def trainings(draw: Draw) -> Case:
    """`invsr train`, a step or two on small patches."""
    kind = one(draw, ("denoiser", "denoiser", "unrolled", "deq"))
    files: list[Any] = [image_of(draw, dataclasses.replace(HIGH, name="high.nii.gz"))]
    if rarely(draw, 3):
        files.append(image_of(draw, Image("labels.nii.gz", (12, 12, 12), (1, 1, 1), voxels="pixels", datatype=2)))
    chosen, old = output(draw, "out.safetensors", (*OUTPUTS[:10], "out.ckpt", "w.safetensors", "\udcff.safetensors"))
    words = [
        "train",
        kind,
        "--data",
        "." if not rarely(draw, 12) else one(draw, ("missing", "high.nii.gz", "")),
        "--out",
        chosen,
    ]
    takes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "--steps": (("1",), ("0", "-1", "1.5", "")),
        "--patch": (("8",), ("0", "-8", "1", "3", "64", "100000", "8 8", "text")),
        "--log": (("none",), ("", "wandb")),
        "--device": (("cpu",), ("", "gpu0", "meta", "cuda")),
    }
    rare: dict[str, tuple[str, ...]] = {
        "--batch": ("2", "0", "-1"),
        "--rate": ("0.1", *NASTY),
        "--seed": ("1", *OPTIONS["--seed"][1]),
        "--save-every": ("1", "0", "-1"),
        "--devices": ("0", "-1"),
        "--workers": ("-1",),
    }
    if kind == "denoiser":
        takes["--channels"] = ("4", "4,4"), ("0", "-4", "4.5", "text", "")
        rare |= {
            "--sigma-range": ("0.1 0.2", "0.2 0.1", "nan nan", "0 0", "-1 1", "inf inf", "0 1e300"),
            "--measured": ("0.5", "2", "nan"),
            "--architecture": ("DnCNN", "GradientStep", "ShuffledUNet", "ResNet"),
            "--dim": ("2", "1", "9"),
            "--neighbours": ("1", "-1", "99"),
        }
        if rarely(draw, 5):
            files.append(weights(draw, "denoiser"))
            words += ["--start-from", "w.safetensors"]
            del takes["--channels"]
    else:
        files.append(weights(draw, one(draw, ("denoiser", "denoiser", kind))))
        words += ["--start-from", "w.safetensors"]
        takes["--max-iter" if kind == "deq" else "--n-steps"] = ("1", "2"), ("0", "-1", "")
        rare |= {
            "--step": ("admm", "pgd", "newton"),
            "--loss": ("l1", "2 l1 + edge", "", "nan l1", "-1 l1", "l9", "1e300 l1"),
            "--thickness": ("2 3", "3 2", "nan 3", "0 1", "1e9 1e9", "-2 3"),
            "--gap": ("0.1", *NASTY),
            "--noise-range": ("0.01 0.02", "0.2 0.1", "nan 1", "-1 0"),
        }
    for name, (good, bad) in takes.items():
        words += [name, *(one(draw, bad) if rarely(draw, 12) else one(draw, good)).split(" ")]
    for name, values in rare.items():
        if rarely(draw, 12):
            words += [name, *one(draw, values).split(" ")]
    if kind != "denoiser" and rarely(draw, 6):
        words.append("--self-supervised")
    if rarely(draw, 6):
        files.append(Content("out.ckpt", one(draw, (b"", b"\x80\x04.", b"text", b"PK\x05\x06" + bytes(18)))))
    return Case(tuple(words), tuple(files), old)


@st.composite
def words(draw: Draw) -> Case:
    """`invsr models`, `--help`, commands that do not exist or lack their arguments."""
    commands = ["models", "reconstruct", "simulate", "evaluate", "register", "benchmark", "train", "demo", "info", "x"]
    given = [one(draw, commands)] if not rarely(draw, 12) else []
    pool = ("mri-denoiser", "mri-unrolled", "../models", "--help", "-o", "--mask", "-1", "\udcff", "", "none.nii", "--")
    given += [one(draw, pool) for _ in range(draw(st.integers(0, 2)))]
    if given and given[0] in ("benchmark", "demo") and "--help" not in given:
        given.append("--unknown")
    return Case(tuple(given))


# How many of 500 cases each gets.
SHARES: dict[str, tuple[st.SearchStrategy[Case], int]] = {
    "tv": (reconstructions("tv"), 90),
    "pnp": (reconstructions("pnp"), 80),
    "unrolled": (reconstructions("unrolled"), 80),
    "cubic": (reconstructions("cubic"), 25),
    "tikhonov": (reconstructions("tikhonov"), 25),
    "deq": (reconstructions("deq"), 20),
    "posterior": (reconstructions("posterior"), 8),
    "auto": (reconstructions("auto"), 18),
    "simulate": (simulations(), 45),
    "evaluate": (evaluations(), 38),
    "register": (registrations(), 20),
    "train": (trainings(), 20),
    "benchmark": (benchmarks(), 12),
    "demo": (demonstrations(), 4),
    "words": (words(), 15),
}
