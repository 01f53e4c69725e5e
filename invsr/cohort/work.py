"""One reconstruction of a cohort, in a worker's process: from files to files."""

from __future__ import annotations

import json
import math
import shlex
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from invsr.cohort.derivative import entries_of, publish, remove, staging
from invsr.cohort.jobs import Job, Options, Run, Target, run_of
from invsr.cohort.pictures import write_thumbnails
from invsr.errors import InvsrError, InvsrWarning
from invsr.io.files import make_folder, sha256, write_whole
from invsr.io.nifti import load, save
from invsr.numerics.axes import so_many_threads
from invsr.pipeline import Reconstruction

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    state : str
        DONE or FAILED.
    error : str
        In one line; empty where it is done.
    seconds : float
    voxels : int
        Number of voxels of the results.
    """

    state: str
    error: str = ""
    seconds: float = 0.0
    voxels: int = 0


def run_job(job: Job, options: Options, out: Path, available: int | None = None, threads: int | None = None) -> Outcome:
    """Reconstruct, and put the results into the derivative dataset, whole or not at all.

    Parameters
    ----------
    job : Job
    options : Options
    out : Path
    available : int, optional
        Bytes that it may take in addition to what the process holds; by default what is free.
    threads : int, optional
        Of PyTorch and OpenVINO.
    """
    begun = time.monotonic()
    try:
        with so_many_threads(threads or torch.get_num_threads()):
            voxels = _run(job, options, out, available)
    except InvsrError as error:
        return Outcome(FAILED, " ".join(str(error).split()), time.monotonic() - begun)
    return Outcome(DONE, "", time.monotonic() - begun, voxels)


def _run(job: Job, options: Options, out: Path, available: int | None) -> int:
    run = run_of(job, options, sha256)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", InvsrWarning)
        results = _reconstructed(job, options, available)
    said = list(dict.fromkeys(str(one.message) for one in heard if issubclass(one.category, InvsrWarning)))
    if run_of(job, options, sha256) != run:
        raise InvsrError(
            f"{job.sources[0].path}: it, or a file it goes with, changed while it was reconstructed: run again"
        )
    with staging(out) as folder:
        staged = [
            _staged(folder, target, result, [one for one in results if one is not result], job, options, run, said)
            for target, result in zip(job.targets, results, strict=True)
        ]
        for target in job.targets:
            remove(out / f"{target.output}.json")  # without it a result is not finished
        for files in staged:
            for place, path in files.items():
                publish(path, out / place)
    return sum(result.grid.size for result in results)


def _reconstructed(job: Job, options: Options, available: int | None) -> list[Reconstruction]:
    """As `invsr reconstruct` of the same scans."""
    from invsr.numerics.memory import held_memory
    from invsr.pipeline import reconstruct, reconstruct_contrasts
    from invsr.pipeline.joint import together_of
    from invsr.pipeline.run import find_device

    given = asdict(options)
    common: dict[str, Any] = {
        name: given[name]
        for name in ("slice_thickness", "slice_profile", "in_plane", "noise_model", "zero_filling", "faults")
    }
    common |= {"spacing": options.spacing, "device": options.device}
    held = held_memory(find_device(options.device))
    common["memory"] = None if available is None else (held + available) / 1e9
    scans = [load(source.path) for source in job.sources]
    motion = job.motion(options.motion)
    if len(job.targets) == 1:
        method: dict[str, Any] = {"method": options.method, "model": options.model, "seed": options.seed}
        return [reconstruct(scans, motion=motion, **method, **common)]
    names = [str(n) for n, target in enumerate(job.targets) for _ in target.sources]
    how = together_of(options.method, {"model": options.model})
    return reconstruct_contrasts(scans, names, method=how, motion=motion, **common)


def _staged(
    folder: Path,
    target: Target,
    result: Reconstruction,
    others: Sequence[Reconstruction],
    job: Job,
    options: Options,
    run: Run,
    said: Sequence[str],
) -> dict[str, Path]:
    """The files of a result, whole, by their places in the dataset; the sidecar, which ends it, last."""
    from invsr.report import write_report

    room = folder / target.stem
    make_folder(room)
    volume = room / "volume.nii.gz"
    save(result.volume, volume)
    files = {f"{target.output}.nii.gz": volume}
    scan = result.problem.scans[0]
    write_thumbnails(room / "picture.png", scan.volume.with_data(scan.data + scan.offset), result.volume)
    files[target.picture] = room / "picture.png"
    if options.report:
        command = command_of(job, options)
        roles = {source.relative: source.path for source in target.sources} | {"the result": volume}
        for path in write_report(room / "report", result, command=command, files=roles, others=others):
            files[f"{target.report}/{path.name}"] = path
    words = [*said, *(one for one in result.remarks() if one not in said)]
    write_whole(room / "sidecar.json", json_of(entries_of(target, result, run, words, sha256(volume))))
    files[f"{target.output}.json"] = room / "sidecar.json"
    return files


def command_of(job: Job, options: Options) -> str:
    """The command that makes the same results of the same scans."""
    words = ["invsr", "reconstruct", *(source.relative for source in job.sources)]
    if len(job.targets) > 1:
        words += ["--contrast", *(target.stem for target in job.targets for _ in target.sources), "-o", "FOLDER"]
    else:
        words += ["-o", f"{job.targets[0].stem}.nii.gz"]
    words += [] if (motion := job.motion(options.motion)) == "none" else ["--motion", motion]
    default = Options()
    for name, value in asdict(options).items():
        if name in ("report", "motion", "device") or value == getattr(default, name):
            continue
        text = "x".join(f"{one:g}" for one in value) if name == "spacing" else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)


def json_of(entries: dict[str, Any]) -> str:
    """A JSON file; numbers that are not finite become null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entries.items()
    }
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"
