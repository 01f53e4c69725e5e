"""Jobs on Dask workers: as many at once as workers and memory allow, none stopped by another one's failure."""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any, Generic, TypeVar

from invsr.cohort.dataset import INSTALL
from invsr.cohort.interrupts import deferred_interrupts
from invsr.errors import InvsrError
from invsr.io.bounds import read_text

T = TypeVar("T")
# What a worker's process holds before it begins (program, networks), bytes: 1.2 to 1.4 GB after jobs of 128^3 voxels.
HELD = 1_300_000_000
# Jobs that a scheduler elsewhere has at once: it hands them to workers as they come, and may call for more of them.
QUEUED = 1000
# The usual port of Dask's dashboard; another one where it is taken.
DASHBOARD = 8787
# Seconds that a scheduler and workers elsewhere are waited for: a batch system may let them queue.
PATIENCE = 60.0
# Seconds that workers of this machine are waited for: while it does much else, it may take a minute to start them.
STARTING = 180.0
# Seconds between looks at whether a job has ended.
POLL = 0.01
FULL = "out of memory: give it more --memory, fewer --n-workers, or a coarser --spacing"
KILLED = "its worker was killed twice (out of memory?): give it more --memory, or fewer --n-workers"
# The variables that bound the threads of numerical libraries.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Room:
    """What a task may take of its worker's machine; None where that is not known.

    Attributes
    ----------
    memory : int, optional
        Bytes, in addition to what the worker's process holds.
    threads : int, optional
    """

    memory: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Crew:
    """Who works.

    Attributes
    ----------
    n_workers : int
        Processes, each with one job at a time.
    threads : int
        Threads of each job.
    memory : int
        Bytes that all workers of this machine may hold together.
    scheduler : str, optional
        Address of a Dask scheduler that runs already, whose workers are taken as they are.
    cluster : Path, optional
        YAML file with the class of a Dask cluster and its arguments: see `cluster_of`.
    dashboard : bool
        Whether the local cluster shows Dask's dashboard.
    scratch : Path, optional
        Folder for the workers' own files.
    """

    n_workers: int = 1
    threads: int = 1
    memory: int = 0
    scheduler: str | None = None
    cluster: Path | None = None
    dashboard: bool = False
    scratch: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the workers are processes of this machine, started here."""
        return self.scheduler is None and self.cluster is None

    @property
    def share(self) -> int:
        """Bytes for the job of one worker, beside what its process holds."""
        return max(self.memory // self.n_workers - HELD, 0)

    def shares(self, need: int) -> int:
        """How many workers' shares a job takes that needs so many bytes; all, where it needs more than there is."""
        if not self.is_local:
            return 1
        return min(-(-(need + HELD) // max(self.share + HELD, 1)), self.n_workers) or 1

    def room(self, shares: int) -> Room:
        """What a job may take that has so many shares."""
        if not self.is_local:
            return Room()
        return Room(shares * (self.share + HELD) - HELD, shares * self.threads)


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a task ended: with a result, or with words on what its worker met, and for us where."""

    result: T | None
    error: str = ""
    traceback: str = ""


def run_tasks(
    tasks: Sequence[Any],
    call: Callable[[Any, Room], T],
    crew: Crew,
    needs: Callable[[Any], int],
    tell: Callable[[Any, Ended[T]], None],
    started: Callable[[str], None] = lambda link: None,
) -> None:
    """Call a function with each task on the workers, and tell how each ended.

    A task whose worker dies is given to another one once. On this machine, a task that needs more than a worker's
    share of the memory waits until it can have the shares of several, and has their threads as well.

    Parameters
    ----------
    tasks : sequence
        Whatever can be pickled.
    call : callable
        Called as ``call(task, room)`` in a worker, with the `Room` that the task has.
    crew : Crew
    needs : callable
        Bytes that a task takes.
    tell : callable
        Called as ``tell(task, ended)`` here, in the order in which tasks end.
    started : callable
        Called once with the address of Dask's dashboard, or "".

    Raises
    ------
    InvsrError
        When there are no workers, or the scheduler is lost.
    """
    with deferred_interrupts() as answer, _client_of(crew) as client:
        from distributed import as_completed

        started(client.dashboard_link if crew.dashboard or not crew.is_local else "")
        waiting, running, again = deque(tasks), dict[Any, tuple[Any, int]](), list[Any]()
        ending = as_completed()
        while waiting or running:
            try:
                slots = _slots(client, crew, idle=not running)
                while waiting and (shares := crew.shares(needs(waiting[0]))) + _taken(running) <= slots:
                    task = waiting.popleft()
                    future = client.submit(call, task, crew.room(shares), pure=False)
                    running[future] = task, shares
                    ending.add(future)
                while not ending.has_ready():
                    answer()
                    time.sleep(POLL)
                future = next(ending)
                task, _ = running.pop(future)
                ended = _ended(future)
                future.release()
            except (OSError, CancelledError) as error:
                left = f"{len(waiting) + len(running) + 1} jobs are left"
                where = crew.scheduler or "of the workers"
                raise InvsrError(
                    f"the scheduler {where} is lost, {left}: the same command goes on with them"
                ) from error
            if ended is None and not any(one is task for one in again):
                again.append(task)
                waiting.append(task)
            else:
                tell(task, Ended(None, KILLED) if ended is None else ended)


def _slots(client: Any, crew: Crew, idle: bool) -> int:
    """How many jobs may run: one for each worker that is alive, since one that dies takes all its jobs along.

    Where nothing runs, at least as many as the largest job takes.
    """
    if not crew.is_local:
        return QUEUED
    if idle:
        try:
            client.wait_for_workers(crew.n_workers, timeout=STARTING)
        except TimeoutError:
            raise InvsrError("workers that died do not start again: give fewer --n-workers, or more --memory") from None
        return crew.n_workers
    alive: dict[str, int] = client.nthreads()
    return len(alive)


def _taken(running: dict[Any, tuple[Any, int]]) -> int:
    return sum(shares for _, shares in running.values())


def _ended(future: Any) -> Ended[Any] | None:
    """How a task ended; None where its worker died.

    Raises
    ------
    CancelledError
        When the scheduler is lost.
    """
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        return Ended(future.result())
    if future.status != "error":  # cancelled or lost, with the scheduler
        raise CancelledError
    error = future.exception()
    if isinstance(error, KilledWorker):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return Ended(None, FULL)
    where = "".join(format_exception(error))
    return Ended(None, f"{type(error).__name__}: {error}: this is a bug of invsr's, please report it", where)


@contextmanager
def _client_of(crew: Crew) -> Iterator[Any]:
    """A client of the workers, which are stopped at the end if they were started here."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise InvsrError(f"dask.distributed, which runs the jobs, is not installed: {INSTALL}") from None
    # What dies with a worker is told at once. Workers need not watch their memory: jobs are given theirs.
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if crew.scheduler is not None:
            cluster: Any = crew.scheduler
        elif crew.cluster is not None:
            cluster = stack.enter_context(cluster_of(crew.cluster))
            cluster.scale(crew.n_workers)
        else:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=crew.n_workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=crew.memory,
                    dashboard_address=f"127.0.0.1:{DASHBOARD if crew.dashboard else 0}",
                    host="127.0.0.1",
                    # Whoever reaches a scheduler can run code as its owner: other users of this machine lack the keys.
                    security=True,
                    env=dict.fromkeys(THREADS, str(crew.threads)),
                    preload=__name__,
                    local_directory=None if crew.scratch is None else str(crew.scratch),
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = stack.enter_context(Client(cluster, timeout=PATIENCE))
            client.wait_for_workers(1, timeout=STARTING if crew.is_local else PATIENCE)
        except (OSError, TimeoutError) as error:
            raise InvsrError(
                f"{crew.scheduler or 'the cluster'}: no Dask workers there ({error}): start some"
            ) from None
        yield client


def dask_setup(_: Any) -> None:
    """Let the main process alone hear Ctrl-C, which reaches all processes of a terminal: it stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(gc.freeze)  # as in the command line, which waits for workers to end


def cores() -> int:
    """Cores that this process may use."""
    import psutil

    try:
        return len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS
        return psutil.cpu_count() or 1


def cluster_of(path: Path) -> Any:
    """The Dask cluster of a YAML file: ``class`` names it (dask_jobqueue.SLURMCluster), the rest are its arguments.

    Raises
    ------
    InvsrError
        When the file cannot be read, or the class not be imported or made.
    """
    from importlib import import_module

    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvsrError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}): repair it") from error
    if not isinstance(found, dict) or not isinstance(found.get("class"), str):
        raise InvsrError(f"{path}: names no cluster: write class: dask_jobqueue.SLURMCluster, and its arguments")
    module, _, name = found.pop("class").rpartition(".")
    try:
        return getattr(import_module(module), name)(**found)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvsrError(f"{path}: {module}.{name} cannot be made ({' '.join(str(error).split())})") from error
