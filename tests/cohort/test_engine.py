"""Tasks on Dask workers in processes of their own: all end, whatever becomes of one."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from stubs import work

from invsr.cohort.engine import HELD, Crew, run_tasks
from invsr.cohort.interrupts import deferred_interrupts
from invsr.errors import InvsrError

GB = 1_000_000_000


def ended(tasks, crew, folder, needs=lambda task: 0):
    found = {}
    pairs = [(task, str(folder)) for task in tasks]
    run_tasks(pairs, work, crew, lambda pair: needs(pair[0]), lambda pair, how: found.setdefault(pair[0], how))
    return found


def test_no_task_stops_the_others_and_a_worker_that_dies_gets_its_task_tried_again_once(tmp_path):
    found = ended(["fine", "fail", "full", "die once", "die", "threads"], Crew(2, 1, 2 * HELD + 2 * GB), tmp_path)
    assert found["fine"].result == f"fine {GB} 1"
    assert found["die once"].result == f"die once {GB} 1"
    assert found["threads"].result == 1
    assert "KeyError" in found["fail"].error and "report" in found["fail"].error
    assert "nobody foresaw this" in found["fail"].traceback and "stubs.py" in found["fail"].traceback
    assert found["full"].error.startswith("out of memory: give it more --memory")
    assert "killed twice" in found["die"].error
    assert len(found) == 6


def test_a_task_that_needs_the_memory_of_two_workers_waits_for_both_and_has_their_threads(tmp_path):
    crew = Crew(2, 1, 2 * HELD + 2 * GB)
    tasks = ["large 1", "large 2", "large alone", "large 3", "beyond"]
    needs = {"large alone": 2 * GB, "beyond": 100 * GB}
    found = ended(tasks, crew, tmp_path, lambda task: needs.get(task, GB // 2))
    assert found["large alone"].result == f"large alone {HELD + 2 * GB} 2"
    assert found["beyond"].result == f"beyond {HELD + 2 * GB} 2"
    running, most = set(), Counter()
    for line in (tmp_path / "log").read_text().split("\n")[:-1]:
        (running.add if line[0] == "+" else running.remove)(line[1:])
        for one in running:
            most[one] = max(most[one], len(running))
    assert most["large alone"] == 1
    assert most["large 1"] == 2


def test_a_cluster_is_read_from_a_file_and_gets_its_workers(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        "class: distributed.LocalCluster\nthreads_per_worker: 1\nn_workers: 0\n"
        "dashboard_address: 127.0.0.1:0\nhost: 127.0.0.1\n"
    )
    found = ended(["a", "b"], Crew(2, 1, 0, cluster=path), tmp_path)
    assert found["a"].result == "a None None" and found["b"].result == "b None None"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("n_workers: 1", "names no cluster"),
        ("class: dask_nowhere.Cluster", "cannot be made"),
        ("class: distributed.LocalCluster\nnonsense: [", "cannot be read as YAML"),
        ("class: distributed.Nothing", "cannot be made"),
    ],
)
def test_a_file_that_describes_no_cluster_is_refused(tmp_path, text, words):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(InvsrError, match=words):
        ended(["a"], Crew(cluster=path), tmp_path)


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler with one worker, each a process of its own; the address, and the scheduler's process."""
    port = str(40000 + hash(str(tmp_path)) % 20000)
    words = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--no-dashboard",
    ]
    how = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}}
    first = subprocess.Popen(words, **how)
    address = f"tcp://127.0.0.1:{port}"
    words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    second = subprocess.Popen([*words, "--local-directory", str(tmp_path)], **how)
    yield address, first
    for one in (second, first):
        one.kill()
        one.wait()


def test_a_scheduler_that_runs_is_used_and_its_loss_is_told(tmp_path, scheduler, monkeypatch):
    address, process = scheduler
    crew = Crew(scheduler=address)
    assert ended(["a", "b", "c"], crew, tmp_path)["c"].result == "c None None"

    monkeypatch.setattr("invsr.cohort.engine.PATIENCE", 2.0)  # it might come back

    def lose(_, how):
        process.kill()

    with pytest.raises(InvsrError, match="is lost, .* jobs are left: the same command goes on"):
        tasks = ["a", *(f"large {n}" for n in range(9))]  # of which it has time to lose some
        run_tasks([(task, str(tmp_path)) for task in tasks], work, crew, lambda task: 0, lose)


def test_a_scheduler_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("invsr.cohort.engine.PATIENCE", 0.5)
    with pytest.raises(InvsrError, match="no Dask workers there"):
        ended(["a"], Crew(scheduler="tcp://127.0.0.1:9"), tmp_path)


@pytest.fixture
def heard():
    """SIGINT raises KeyboardInterrupt, in tests that were started in the background, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_it_is_asked_for_and_a_second_one_does_not(heard):
    class Fragile:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)  # an exception raised here would be lost

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as answer:
        Fragile()
        reached = True
        answer()
        reached = False
    assert reached
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)  # nobody asks: it is raised at the end
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one waited, too")
    assert signal.getsignal(signal.SIGINT) is before
