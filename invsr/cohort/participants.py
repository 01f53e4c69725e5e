"""The participant level: what is to be done, doing it, and a log of what became of each job."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from invsr.cohort.dataset import Selection, find_scans
from invsr.cohort.derivative import HIDDEN, remove_left_over
from invsr.cohort.engine import HELD, Crew, Ended, Room, run_tasks
from invsr.cohort.forecast import Forecast, correction_of, forecast, seconds_of
from invsr.cohort.jobs import Checksums, Job, Options, is_finished, jobs_of, read_entries, run_of
from invsr.cohort.work import DONE, FAILED, Outcome, json_of, run_job
from invsr.errors import InvsrError
from invsr.io.files import make_folder, write_whole
from invsr.numerics.axes import so_many_threads

TO_DO, FINISHED, LEFT_OUT = "to do", "finished", "left out"
LOGS = "logs"


@dataclass(frozen=True)
class Planned:
    """A job, and whether it is to be run.

    Attributes
    ----------
    job : Job
    state : {"to do", "finished", "left out", "failed"}
    why : str
        In words, where it is left out or cannot be run.
    forecast : Forecast
    seconds : float
        That it will take.
    """

    job: Job
    state: str
    why: str
    forecast: Forecast
    seconds: float


def plan_jobs(
    root: Path, out: Path, selection: Selection, options: Options, combine: str, threads: int = 1
) -> list[Planned]:
    """The jobs of a dataset, and which of them are finished or have nothing to gain.

    Raises
    ------
    InvsrError
        When the dataset cannot be used, or no scan is asked for.
    """
    jobs = jobs_of(find_scans(root, selection), combine, options.isotropic)
    checksums = Checksums(out / HIDDEN / "checksums.json")
    correction = correction_of(out, options)
    found = []
    with so_many_threads(threads):  # those of the jobs, for which engines are chosen
        for job in jobs:
            ahead = forecast(job, options)
            state, why = _state(job, ahead, out, options, checksums)
            found.append(Planned(job, state, why, ahead, seconds_of(ahead, options, correction)))
    if (out / HIDDEN).is_dir():
        checksums.save()
    return found


def _state(job: Job, ahead: Forecast, out: Path, options: Options, checksums: Checksums) -> tuple[str, str]:
    if ahead.nothing_to_gain:
        return LEFT_OUT, ahead.nothing_to_gain
    if not all((out / f"{target.output}.json").is_file() for target in job.targets):
        return TO_DO, ""
    try:
        finished = is_finished(job, out, run_of(job, options, checksums), checksums, options.report)
    except InvsrError:  # a file cannot be read: running the job says so
        finished = False
    return (FINISHED if finished else TO_DO), ""


def run_planned(
    planned: Sequence[Planned],
    options: Options,
    out: Path,
    crew: Crew,
    tell: Callable[[Planned, Outcome], None],
    started: Callable[[str], None] = lambda link: None,
    call: Callable[[Planned, Room], Outcome] | None = None,
) -> None:
    """Run the jobs that are to be done on the crew's workers, tell how each ended, and log it.

    Parameters
    ----------
    planned : sequence of Planned
    options, out
        As of `invsr.cohort.work.run_job`.
    crew : Crew
    tell : callable
        Called as each job ends.
    started : callable
        Called with the address of the dashboard, or "".
    call : callable, optional
        What a worker does with a planned job and its room, in place of `run_job`.
    """
    remove_left_over(out)
    make_folder(out / LOGS)
    for one in planned:
        if one.state == LEFT_OUT:
            _log(out, one, Outcome(LEFT_OUT, one.why))
        elif one.state == FINISHED:
            _log(out, one, _outcome_known(out, one))
    # Those that take several workers' shares first: later, one would wait while a worker has nothing to do.
    to_do = [one for one in planned if one.state == TO_DO]
    to_do.sort(key=lambda one: -crew.shares(need_of(one, crew)))
    if crew.is_local:
        for shares in sorted({crew.shares(need_of(one, crew)) for one in to_do}):
            measure_networks(shares * crew.threads)

    def ended(one: Planned, how: Ended[Outcome]) -> None:
        outcome = Outcome(FAILED, how.error) if how.result is None else how.result
        _log(out, one, outcome, how.traceback)
        tell(one, outcome)

    if to_do:
        work = partial(_run, options=options, out=out) if call is None else call
        run_tasks(to_do, work, crew, partial(need_of, crew=crew), ended, started)


def _run(one: Planned, room: Room, *, options: Options, out: Path) -> Outcome:
    return run_job(one.job, options, out, room.memory, room.threads)


def need_of(one: Planned, crew: Crew) -> int:
    """Bytes that a job asks for: with which it is fastest, if there are so many, else what it takes at the least."""
    return one.forecast.memory if one.forecast.memory + HELD <= crew.memory else one.forecast.least


def measure_networks(threads: int) -> None:
    """Choose the engines of the networks once, for all workers: measured while others work, each might find another."""
    import torch

    from invsr.models import engines
    from invsr.models.architectures import build
    from invsr.models.registry import DEVIATION, models, weights_of
    from invsr.models.weights import read_description

    with so_many_threads(threads):
        timed = [name for name, entry in models().items() if entry["kind"] != DEVIATION]
        described = [read_description(weights_of(model)[0]) for model in timed]
        for architecture, config in {one["architecture"]: one["config"] for one in described}.items():
            network = build(architecture, config).eval()
            if not network.is_gradient_step:
                engines.choose(network, torch.device("cpu"))


def _outcome_known(out: Path, one: Planned) -> Outcome:
    """What became of a job that is finished: as logged, or done where a later run with other options failed."""
    known = read_entries(out / LOGS / f"{one.job.name}.json")
    if known.get("State") != DONE:
        known = {}
    return Outcome(DONE, "", float(known.get("Seconds") or math.nan), int(known.get("Voxels") or 0))


def _log(out: Path, one: Planned, outcome: Outcome, traceback: str = "") -> None:
    """What became of a job, beside its results: this is what differs from run to run."""
    entries = {
        "State": outcome.state,
        "Error": outcome.error,
        "Seconds": round(outcome.seconds, 2),
        "Voxels": outcome.voxels,
        "Sources": [source.relative for source in one.job.sources],
        "Outputs": [target.output for target in one.job.targets],
    } | ({"Traceback": traceback} if traceback else {})
    write_whole(out / LOGS / f"{one.job.name}.json", json_of(entries))
