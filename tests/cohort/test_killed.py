"""Runs of `invsr bids` that are killed at random moments leave nothing half, and the same command goes on with them.

`pytest tests/cohort/test_killed.py --kills 40` kills 20 times, ten workers among them.
"""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from small_dataset import describe, write_scan

from invsr.io.files import sha256

WORDS = [sys.executable, "-m", "invsr", "bids"]
HOW = ["participant", "--method", "tikhonov", "--n-workers", "2", "--memory", "6", "--seed", "1"]
SCANS = 4


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("killed") / "raw", SCANS)


def write_scans(root, count):
    describe(root)
    for n in range(count):
        write_scan(root, f"sub-{n}/anat/sub-{n}_T2w.nii.gz", shape=(24, 24, 6), seed=n, SliceThickness=4)
    return root


def start(raw, out):
    """The command in a process group of its own, as a terminal starts it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [*WORDS, str(raw), str(out), *HOW],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background are deaf to it
        **pipes,
    )


def results(out):
    """All files but what differs from run to run."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes() for name, path in found.items() if name.parts[0] not in ("logs", ".invsr-work")
    }


@pytest.fixture(scope="module")
def undisturbed(raw):
    """The results of a run that nobody disturbs, and the seconds that it takes."""
    out, begun = raw.parent / "out", time.monotonic()
    said, _ = (process := start(raw, out)).communicate()
    assert process.returncode == 0, said
    return results(out), time.monotonic() - begun


def require_whole(out):
    """Every volume can be read to its end, and every sidecar belongs to its volume."""
    for path in out.rglob("*.nii.gz"):
        if ".invsr-work" not in path.parts:
            gzip.decompress(path.read_bytes())
    for path in out.glob("sub-*/**/*.json"):
        assert json.loads(path.read_text())["SHA256"] == sha256(path.with_suffix(".nii.gz"))
    # Nothing that is being written lies among the results.
    assert [path for path in out.rglob(".invsr-*") if ".invsr-work" not in path.parts] == []


def require_resumed(raw, out, undisturbed):
    said, _ = (process := start(raw, out)).communicate(timeout=120)
    assert process.returncode == 0, said
    assert results(out) == undisturbed
    assert list((out / ".invsr-work" / "staging").iterdir()) == []


def wait_until_gone(family):
    """Workers end with the process that started them."""
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def started(raw, out, seconds):
    """A run after so many seconds, and its processes; none where it is over."""
    process = start(raw, out)
    time.sleep(seconds)
    return process, psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def moments(request, low, high):
    """When to kill, as shares of the time that an undisturbed run takes."""
    kills = request.config.getoption("--kills")
    draw = random.Random(kills)
    return [draw.uniform(low, high) for _ in range(max(1, kills // 4))]


def kill_the_command(raw, undisturbed, share, out):
    files, seconds = undisturbed
    process, family = started(raw, out, share * seconds)
    process.kill()
    process.communicate()
    wait_until_gone(family)
    if out.is_dir():
        require_whole(out)
    require_resumed(raw, out, files)


def kill_a_worker(raw, undisturbed, share, out):
    files, seconds = undisturbed
    process, family = started(raw, out, share * seconds)
    workers = [one for one in family if "spawn_main" in " ".join(one.cmdline())]
    for worker in workers[:1]:
        worker.kill()
    said, _ = process.communicate(timeout=120)
    require_whole(out)
    if process.returncode:  # it was hit while it started, or twice
        require_resumed(raw, out, files)
    assert results(out) == files, said


def test_kills_at_random_moments_cost_nothing(raw, undisturbed, request, tmp_path):
    """One test, which has its undisturbed run once."""
    for number, share in enumerate(moments(request, 0.3, 1.1)):
        kill_the_command(raw, undisturbed, share, tmp_path / f"command {number}")
    for number, share in enumerate(moments(request, 0.6, 0.95)):
        kill_a_worker(raw, undisturbed, share, tmp_path / f"worker {number}")


def test_an_interrupted_run_says_so_in_one_line(tmp_path):
    out, many = tmp_path / "out", 10 * SCANS  # so many that it is not over before it is interrupted
    process = start(write_scans(tmp_path / "raw", many), out)
    while not list(out.glob("sub-*/**/*.json")) and process.poll() is None:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the workers as well
    said, _ = process.communicate(timeout=60)
    wait_until_gone(family)
    require_whole(out)
    assert process.returncode == 130
    assert [line for line in said.splitlines() if not line.startswith(("sub-", f"{many} jobs"))] == [
        "invsr: error: interrupted: no unfinished file is left"
    ]
