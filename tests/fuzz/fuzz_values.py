"""What fuzz cases choose from: values in order, and values that are not."""

from __future__ import annotations

import math
from typing import Any

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
