"""`invsr bids`: a whole BIDS dataset, as a BIDS app."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invsr.app import options
from invsr.app.arguments import parsed_spacing, parsed_thickness
from invsr.app.progress import duration, progress
from invsr.errors import InvsrError

if TYPE_CHECKING:
    from invsr.cohort.engine import Crew
    from invsr.cohort.jobs import Options
    from invsr.cohort.participants import Planned
    from invsr.cohort.work import Outcome

# Heavy modules are imported inside the functions: `invsr --help` answers at once.

# Share of the machine's memory that the workers are given.
SHARE = 0.8


def bids(
    bids_dir: options.BidsFolder,
    output_dir: options.DerivativeFolder,
    analysis_level: options.AnalysisLevel,
    participant_label: options.Participants = None,
    session_label: options.Sessions = None,
    suffix: options.Suffixes = None,
    bids_filter_file: options.FilterFile = None,
    combine: options.Combine = "stacks",
    spacing: options.Spacing = None,
    method: options.MethodName = "auto",
    model: options.Model = None,
    slice_thickness: options.ThicknessOfAll = None,
    slice_profile: options.ProfileOfAll = None,
    in_plane: options.InPlane = None,
    noise_model: options.NoiseModel = None,
    zero_filling: options.ZeroFilling = "auto",
    faults: options.Faults = "auto",
    motion: options.MotionOfAll = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    no_report: options.NoReports = False,
    work_dir: options.WorkFolder = None,
    n_workers: options.Workers = None,
    threads: options.Threads = 1,
    memory: options.MemoryOfAll = None,
    scheduler: options.Scheduler = None,
    cluster: options.Cluster = None,
    dashboard: options.Dashboard = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> None:
    """Reconstruct the thick-slice scans of a BIDS dataset, or sum up the results: a BIDS app."""
    if analysis_level is options.Level.GROUP:
        from invsr.cohort.group import write_group

        chosen: dict[str, object] = {
            "participant-label": participant_label,
            "session-label": session_label,
            "suffix": suffix,
        }
        chosen |= {"bids-filter-file": bids_filter_file, "dry-run": dry_run or None, "work-dir": work_dir}
        _leave_out(chosen, "the group level sums up all results that are there")
        written = write_group(output_dir)
        if not quiet:
            print(f"wrote {', '.join(map(str, written))}")
        return
    from invsr.cohort.dataset import SUFFIXES, Selection, read_filters
    from invsr.cohort.derivative import HIDDEN, prepare_dataset
    from invsr.cohort.jobs import Options
    from invsr.cohort.participants import plan_jobs

    thickness = parsed_thickness(None if slice_thickness is None else [slice_thickness])
    how = Options(
        method=method,
        model=model,
        spacing=None if spacing is None else tuple(parsed_spacing(spacing)),
        slice_thickness=None if thickness is None else thickness[0],
        slice_profile=slice_profile,
        in_plane=in_plane,
        noise_model=noise_model,
        zero_filling=zero_filling,
        faults=faults,
        motion=motion,
        device=device,
        seed=seed,
        report=not no_report,
    )
    _require_usable(how, combine)
    filters = None if bids_filter_file is None else read_filters(bids_filter_file)
    selection = Selection(participant_label or None, session_label or None, tuple(suffix or SUFFIXES), filters)
    crew = _crew(n_workers, threads, memory, scheduler, cluster, dashboard, work_dir or output_dir / HIDDEN / "dask")
    if dry_run:
        _list(plan_jobs(bids_dir, output_dir, selection, how, combine, crew.threads), crew)
        return
    prepare_dataset(bids_dir, output_dir)
    _run(plan_jobs(bids_dir, output_dir, selection, how, combine, crew.threads), how, output_dir, crew, quiet)
    if not quiet:
        print(f"a page of all results: {shlex.join(['invsr', 'bids', str(bids_dir), str(output_dir), 'group'])}")


def _run(planned: Sequence[Planned], how: Options, out: Path, crew: Crew, quiet: bool) -> None:
    """Run what is to be done, and tell how each job ended.

    Raises
    ------
    InvsrError
        After all jobs, when one failed.
    """
    from invsr.cohort.participants import TO_DO, run_planned

    to_do = [one for one in planned if one.state == TO_DO]
    total, done, failed = sum(one.seconds for one in to_do), 0.0, 0
    if not quiet:
        print(_summary(planned))
    with progress(lambda figures: f"{figures['ended']:.0f} of {len(to_do)}", quiet=quiet) as bar:
        tell_bar, count = bar.part("ended"), 0

        def ended(one: Planned, outcome: Outcome) -> None:
            nonlocal done, count, failed
            done, count, failed = done + one.seconds, count + 1, failed + bool(outcome.error)
            if outcome.error:
                print(f"invsr: {one.job.name}: failed: {outcome.error}", file=sys.stderr)
            elif not quiet:
                print(f"{one.job.name}: {outcome.state}, {outcome.seconds:.0f} s")
            if tell_bar is not None:
                tell_bar(done / total, {"ended": count})

        def started(link: str) -> None:
            if link and not quiet:
                print(f"dashboard: {link}")

        run_planned(planned, how, out, crew, ended, started)
    if failed:
        raise InvsrError(
            f"{failed} of {len(to_do)} jobs failed, for the reasons above; the same command tries them again"
        )


def _summary(planned: Sequence[Planned]) -> str:
    """How many jobs are in which state."""
    states = [one.state for one in planned]
    return f"{len(planned)} jobs: " + ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states))


def _list(planned: Sequence[Planned], crew: Crew) -> None:
    """Print what would be done, with the memory and time that each job takes, and all of them."""
    from invsr.cohort.engine import HELD
    from invsr.cohort.participants import TO_DO, need_of

    for one in planned:
        scans = ", ".join(source.relative for source in one.job.sources)
        ahead = f" ({one.why})" if one.why else ""
        if one.state == TO_DO and one.forecast.voxels:
            need = need_of(one, crew)
            gb, shares = (need + HELD) / 1e9, crew.shares(need)
            seconds = one.seconds / (crew.threads * shares)
            ahead = f", {one.forecast.voxels / 1e6:.1f} million voxels, {gb:.1f} GB, {seconds:.0f} s"
        elif one.state == TO_DO:
            ahead = ", cannot be read"
        print(f"{one.job.name}: {one.state}{ahead}: {scans}")
    seconds = sum(one.seconds for one in planned if one.state == TO_DO) / (crew.n_workers * crew.threads)
    print(f"{_summary(planned)}; about {duration(seconds)} with {crew.n_workers} workers of {crew.threads} threads")


def _require_usable(how: Options, combine: str) -> None:
    """Raise for words that no job could use."""
    from invsr.cohort.jobs import COMBINATIONS, CONTRASTS
    from invsr.pipeline.choice import method_of
    from invsr.pipeline.joint import together_of
    from invsr.pipeline.moved import require_level

    if combine not in COMBINATIONS:
        raise InvsrError(f"--combine {combine}: use {', '.join(COMBINATIONS)}")
    method_of(how.method, {"model": how.model}, how.seed)
    if combine == CONTRASTS:
        together_of(how.method, {"model": how.model})
    if how.motion is not None:
        require_level(how.motion)


def _leave_out(given: Mapping[str, object], why: str) -> None:
    """Raise for options that are given and would be ignored."""
    for name, value in given.items():
        if value:
            raise InvsrError(f"--{name}: {why}: leave it out")


def _crew(
    n_workers: int | None,
    threads: int,
    memory: float | None,
    scheduler: str | None,
    cluster: Path | None,
    dashboard: bool,
    scratch: Path,
) -> Crew:
    from invsr.cohort.engine import HELD, Crew, cores
    from invsr.numerics.memory import total_memory

    if scheduler is not None and cluster is not None:
        raise InvsrError("--scheduler and --cluster: give one of them")
    if scheduler is not None or cluster is not None:
        here: dict[str, object] = {"memory": memory, "threads": threads > 1, "dashboard": dashboard}
        here |= {"n-workers": n_workers} if cluster is None else {}
        _leave_out(here, "is for workers of this machine")
    if memory is not None and not 0 < memory < math.inf:
        raise InvsrError(f"--memory {memory:g}: give GB, above zero")
    held = SHARE * total_memory() if memory is None else memory * 1e9
    fitting = max(1, int(held // (2 * HELD)))
    workers = n_workers or min(max(1, cores() // threads), fitting)
    if held < workers * HELD and scheduler is None and cluster is None:
        raise InvsrError(
            f"--memory {held / 1e9:.1f}: {workers} workers hold {HELD / 1e9:g} GB each before they begin: give more"
        )
    return Crew(workers, threads, int(held), scheduler, cluster, dashboard, scratch)
