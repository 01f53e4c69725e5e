"""What scheduling costs: many scans by a stub that does nothing, on local workers.

    python -m benchmarks.cohort.overhead [--scans 5000] [--workers 2]

Scans are tiny files. Planning (finding them, headers, checksums), running and the group page are timed each, with the
peak memory of the main process so far.
"""

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.arguments import parser, row, table
from benchmarks.cohort.dataset import write_json
from invsr.cohort import participants
from invsr.cohort.dataset import Selection
from invsr.cohort.derivative import prepare_dataset
from invsr.cohort.engine import Crew
from invsr.cohort.group import write_group
from invsr.cohort.jobs import RUN, STACKS, Options, run_of
from invsr.cohort.work import DONE, Outcome
from invsr.io.files import sha256


def write_small(root, count):
    """A dataset of `count` tiny scans."""
    root.mkdir()
    write_json(root / "dataset_description.json", {"Name": "stub", "BIDSVersion": "1.10.0"})
    image = nib.Nifti1Image(np.ones((4, 4, 2), np.float32), np.diag([1, 1, 4, 1]))
    content = image.to_bytes()
    for n in range(count):
        folder = root / f"sub-{n:05d}" / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-{n:05d}_T2w.nii").write_bytes(content)
        write_json(folder / f"sub-{n:05d}_T2w.json", {"SliceThickness": 4})


def stub(planned, room, *, options, out):
    """What a worker does: the sidecar and an empty volume."""
    (target,) = planned.job.targets
    place = out / f"{target.output}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    volume = place.with_suffix(".nii.gz")
    volume.write_bytes(b"")
    run = run_of(planned.job, options, sha256)
    write_json(place, {"Chi2": 1.0, "Gain": 1.0, RUN: run, "SHA256": sha256(volume)})
    return Outcome(DONE, "", 0.0, 128)


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main():
    options = parser(__doc__)
    options.add_argument("--scans", type=int, default=5000)
    options.add_argument("--workers", type=int, default=2)
    args = options.parse_args()
    how = Options(report=False)
    table(["part", "seconds", "ms per scan", "peak memory so far, MB"])

    def tell(part, begun):
        seconds = time.perf_counter() - begun
        row([part, f"{seconds:.1f}", f"{1e3 * seconds / args.scans:.1f}", f"{megabytes():.0f}"])

    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "raw"), Path(folder, "out")
        write_small(root, args.scans)
        begun = time.perf_counter()
        prepare_dataset(root, out)
        planned = participants.plan_jobs(root, out, Selection(), how, STACKS)
        tell("planning", begun)
        begun = time.perf_counter()
        crew = Crew(args.workers, 1, 8_000_000_000, scratch=Path(folder, "scratch"))
        ended = []
        participants.run_planned(
            planned,
            how,
            out,
            crew,
            lambda one, outcome: ended.append(outcome),
            call=partial(stub, options=how, out=out),
        )
        tell("running", begun)
        assert len(ended) == args.scans and not any(one.error for one in ended), ended[:1]
        begun = time.perf_counter()
        again = participants.plan_jobs(root, out, Selection(), how, STACKS)
        tell("planning again, all finished", begun)
        assert all(one.state == participants.FINISHED for one in again)
        begun = time.perf_counter()
        page = write_group(out)[0]
        tell(f"group page of {page.stat().st_size / 1e6:.1f} MB", begun)


if __name__ == "__main__":
    main()
