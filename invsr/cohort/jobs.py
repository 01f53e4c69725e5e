"""Which scans are reconstructed together, where the results go, and whether they are there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from invsr.cohort.dataset import Source
from invsr.errors import InvsrError
from invsr.io.bounds import parse_json, read_text
from invsr.io.files import make_folder, sha256, write_whole
from invsr.io.sidecars import sidecars_of
from invsr.models.registry import ROOM
from invsr.motion import NONE as STILL
from invsr.motion import PACKAGES, STACK

# What belongs together: stacks of one contrast in a session, all contrasts of a session, or each scan alone.
STACKS, CONTRASTS, NONE = COMBINATIONS = ("stacks", "contrasts", "none")
# The name of the thumbnails in the folder of a report.
THUMBNAILS = "thumbnails.png"
# The key of a sidecar that says what a result was made of.
RUN = "InvsrRun"
Run = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How all scans are reconstructed: as of `invsr.reconstruct`.

    Attributes
    ----------
    motion : str, optional
        What moves in the jobs that it suits (`Job.motion`); by default several scans do, each as a whole.
    report : bool
        Whether each result gets a report.
    """

    method: str = "auto"
    model: str | None = None
    spacing: tuple[float, ...] | None = None
    slice_thickness: float | str | None = None
    slice_profile: str | None = None
    in_plane: str | None = None
    noise_model: str | None = None
    zero_filling: str = "auto"
    faults: str = "auto"
    motion: str | None = None
    device: str = "cpu"
    seed: int = 0
    report: bool = True

    @property
    def isotropic(self) -> bool:
        """Whether the result's voxels are cubes."""
        return self.spacing is None or len(set(self.spacing)) == 1


@dataclass(frozen=True)
class Target:
    """A result, and the scans that it is made of.

    Attributes
    ----------
    sources : tuple of Source
        Stacks of one contrast.
    output : str
        Path of the result in the derivative dataset, without an ending.
    """

    sources: tuple[Source, ...]
    output: str

    @property
    def stem(self) -> str:
        """The name of the result's files, without an ending."""
        return self.output.rsplit("/", 1)[1]

    @property
    def report(self) -> str:
        """The folder of its report."""
        return f"reports/{self.stem}"

    @property
    def picture(self) -> str:
        """Its thumbnails, before and after."""
        return f"{self.report}/{THUMBNAILS}"


@dataclass(frozen=True)
class Job:
    """One reconstruction: a target, or several contrasts of one session together."""

    targets: tuple[Target, ...]

    @property
    def name(self) -> str:
        """What it is called on the terminal and in the log."""
        name = self.targets[0].stem
        return name if len(self.targets) == 1 else f"{name.rsplit('_', 1)[0]}_contrasts"

    @property
    def sources(self) -> list[Source]:
        """All scans."""
        return [source for target in self.targets for source in target.sources]

    def motion(self, wanted: str | None) -> str:
        """What moves: of one scan packages of slices, if that is wanted; several as it is wanted, else as a whole."""
        if len(self.sources) == 1:
            return PACKAGES if wanted == PACKAGES else STILL
        return STACK if wanted in (None, PACKAGES) else str(wanted)


def jobs_of(sources: Sequence[Source], combine: str = STACKS, isotropic: bool = True) -> list[Job]:
    """The reconstructions that scans make.

    Stacks of one contrast are scans of one session whose names differ in the number of the run and in the direction of
    the slices (acq-axial, acq-sag) alone.
    """
    groups: dict[str, list[Source]] = {}
    names: set[str] = set()
    for source in sources:
        if str(source.name) in names:  # a .nii beside a .nii.gz
            raise InvsrError(f"{source.path}: another scan has the same entities: move one of them away")
        names.add(str(source.name))
        key = source.name if combine == NONE else source.name.without_direction()
        groups.setdefault(str(key), []).append(source)
    sessions: dict[str, list[Target]] = {}
    taken: set[str] = set()
    for members in groups.values():
        target = _target(members, isotropic, taken)
        taken.add(target.output)
        first = members[0].name
        session = f"{first.get('sub')}/{first.get('ses')}" if combine == CONTRASTS else target.output
        sessions.setdefault(session, []).append(target)
    return [Job(tuple(targets)) for targets in sessions.values()]


def _target(members: Sequence[Source], isotropic: bool, taken: set[str]) -> Target:
    name = members[0].name if len(members) == 1 else members[0].name.without_direction()
    added = {"space": "orig", "res": "iso" if isotropic else "given", "desc": "invsr"}
    folder = members[0].relative.rsplit("/", 1)[0]
    output = f"{folder}/{name.with_entities(added)}"
    if output in taken:  # of images that were derived already
        raise InvsrError(f"{members[0].path}: its result would have the name of another's: use --bids-filter-file")
    return Target(tuple(members), output)


def run_of(job: Job, options: Options, checksum: Callable[[Path], str]) -> Run:
    """What decides a result: checksums of scans and sidecars, options, versions of the program and of its networks."""
    inputs = {}
    for source in job.sources:
        root = Path(str(source.path)[: -len(source.relative)])
        for path in (source.path, *sidecars_of(source.path)):
            inputs[path.relative_to(root).as_posix()] = checksum(path)
    models = [ROOM / "models.json"]
    if options.model is not None and options.model.endswith(".safetensors"):
        models.append(Path(options.model))
    settings = {key: value for key, value in asdict(options).items() if value is not None and key != "report"}
    return {
        "Inputs": inputs,
        # As they are after a round trip through JSON.
        "Options": json.loads(json.dumps(settings)),
        "Version": version("invsr"),
        "Models": [checksum(path) for path in models],
    }


def is_finished(job: Job, out: Path, run: Run, checksum: Callable[[Path], str], report: bool = False) -> bool:
    """Whether all results are there, with a report each, were made by the same run, and are still what they were."""
    for target in job.targets:
        if report and not (out / target.report / "report.html").is_file():
            return False
        said = read_entries(out / f"{target.output}.json")
        volume = out / f"{target.output}.nii.gz"
        if said.get(RUN) != run or not volume.is_file() or said.get("SHA256") != checksum(volume):
            return False
    return True


def read_entries(path: Path) -> dict[str, Any]:
    """What a JSON file that this program wrote holds; nothing where it is missing or damaged."""
    try:
        found = parse_json(read_text(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Checksums:
    """Checksums of files, kept between runs for files that have not changed since by size and time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = read_entries(path)
        self.used: dict[str, Any] = {}

    def __call__(self, path: Path) -> str:
        try:
            found = path.stat()
        except OSError:
            return sha256(path)  # says what is wrong
        stamp, key = [found.st_size, found.st_mtime_ns, found.st_ino], str(path)
        entry = self.known.get(key)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp):
            entry = [stamp, sha256(path)]
        self.known[key] = self.used[key] = entry
        return str(entry[1])

    def save(self) -> None:
        """Keep those that were asked for."""
        make_folder(self.path.parent)
        write_whole(self.path, json.dumps(self.used) + "\n")
