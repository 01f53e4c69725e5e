"""Scans per hour by workers and threads, against a shell loop over the same scans.

    python -m benchmarks.cohort.throughput DATASET [--crews 1x2 2x1] [--method auto]

DATASET is a BIDS dataset whose scans are all reconstructed alone: `python -m benchmarks.cohort.dataset --plain`.
"1x2" is one worker of two threads; the loop is `invsr reconstruct SCAN --report` for each, with all cores. "CPU" is the
time of all processes over the time that passed and the cores; "peak memory" is that of all processes together.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.arguments import parser, row, table
from invsr.cohort.dataset import Selection, find_scans


def measured(commands):
    """Seconds, share of the cores used and peak memory of commands, one after the other."""
    before, begun = os.times(), time.perf_counter()
    peak = 0
    for words in commands:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        watcher = Watcher(process.pid)
        _, said = process.communicate()
        peak = max(peak, watcher.stop())
        if process.returncode not in (0, 1):
            sys.exit(f"{' '.join(words)}: {said}")
    seconds, after = time.perf_counter() - begun, os.times()
    used = sum(getattr(after, name) - getattr(before, name) for name in ("children_user", "children_system"))
    return seconds, used / seconds / (os.cpu_count() or 1), peak


class Watcher:
    """The largest sum of the memory of a process and its children."""

    def __init__(self, number):
        self.process, self.peak, self.over = psutil.Process(number), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.1):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(one.memory_info().rss for one in family))
            except psutil.NoSuchProcess:
                continue

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.peak


def main():
    options = parser(__doc__)
    options.add_argument("dataset", type=Path)
    options.add_argument("--crews", nargs="*", default=["1x2", "2x1"], help="workers x threads")
    options.add_argument("--method", default="auto")
    args = options.parse_args()
    scans = find_scans(args.dataset, Selection())
    table(["way", "seconds", "scans per hour", "CPU", "peak memory, GB"])
    method = ["--method", args.method]
    program = [sys.executable, "-m", "invsr"]
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "shell loop": [
                [
                    *program,
                    "reconstruct",
                    str(scan.path),
                    "-o",
                    f"{folder}/{n}.nii.gz",
                    *method,
                    "--report",
                    f"{folder}/{n}",
                ]
                for n, scan in enumerate(scans)
            ]
        }
        for crew in args.crews:
            workers, threads = crew.split("x")
            words = ["bids", str(args.dataset), f"{folder}/{crew}", "participant", *method]
            words += ["--combine", "none", "--n-workers", workers, "--threads", threads]
            ways[f"{workers} workers of {threads} threads"] = [[*program, *words]]
        for way, commands in ways.items():
            seconds, used, peak = measured(commands)
            row([way, f"{seconds:.0f}", f"{3600 * len(scans) / seconds:.0f}", f"{used:.0%}", f"{peak / 1e9:.2f}"])


if __name__ == "__main__":
    main()
