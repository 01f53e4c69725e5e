"""Strategies for each command: most of a case is in order, and one or two things in it are not."""

from __future__ import annotations

import dataclasses
from typing import Any

from fuzz_files import Content, Folder, Image
from fuzz_parts import (
    Draw,
    image_of,
    mask_of,
    one,
    option,
    output,
    profile,
    rarely,
    scans_of,
    sidecar,
    transforms,
    weights,
)
from fuzz_run import Case
from fuzz_values import NASTY, NOT_OF_ALL, OPTIONS, OUTPUTS
from hypothesis import strategies as st


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
