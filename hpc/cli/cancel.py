"""`hpc cancel`: end what is queued or runs of a sweep."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from hpc.cli.sweeps import answering, find_sweep, json_option, look_at, names, words_argument
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, SlurmError
from hpc.run.processes import stop
from hpc.run.queue import ask_to_cancel
from hpc.run.submissions import LOCAL, Job, newest_jobs, record_cancelled
from hpc.say import error, warn
from hpc.slurm import client
from hpc.slurm.numbers import shortened
from hpc.slurm.steps import end_step, running_steps
from hpc.status.standing import PENDING, RUNNING, SAVING
from hpc.status.sweep import PointStatus, SweepStatus
from hpc.submit.settle import settle_before

ALIVE = (PENDING, RUNNING, SAVING)
Key = TypeVar("Key")


@click.command("cancel")
@words_argument
@json_option
@click.option("--yes", is_flag=True, help="Do not ask, where no sweep is named.")
@answering
def cancel_command(words: tuple[str, ...], as_json: bool, yes: bool) -> None:
    """Cancel what is queued or runs: the whole SWEEP, or those of its POINTS. It does not come back by itself.

    A run that is cancelled has the partition's grace to save; `hpc resume` goes on from there.
    """
    settle_before(find_sweep(words)[0])
    status, points = look_at(words)
    alive = [point for point in points if point.state in ALIVE]
    if alive and not words and not yes:
        _confirm(status, alive)
    cancelled, problems = _cancel(status, alive)
    if as_json:
        click.echo(json.dumps(_told(status, cancelled, problems)))
    else:
        if cancelled or not problems:
            click.echo(_sentence(status, points, cancelled))
        for problem in problems:
            error(problem)
    if problems:
        raise SystemExit(1)


def _confirm(status: SweepStatus, alive: Sequence[PointStatus]) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"Which sweep to cancel must be said, or --yes be given to take the newest, which is {status.directory}."
        )
    click.confirm(f"Cancel {names(alive)} of {status.directory}?", abort=True)


def _cancel(status: SweepStatus, alive: Sequence[PointStatus]) -> tuple[list[PointStatus], list[str]]:
    """What was cancelled, and a sentence about what could not be."""
    problems = [
        f"Point {point.name} must be ended where it was started: hpc has not submitted it, and knows no job of it."
        for point in alive
        if point.job is None
    ]
    local = [point for point in alive if point.job is not None and point.job.submission.scheduler == LOCAL]
    stopped = [point for point in local if _stop(status.directory, point, problems)]
    in_slurm = [point for point in alive if point.job is not None and point.job.submission.scheduler != LOCAL]
    shared = [point for point in in_slurm if point.job is not None and point.job.is_shared]
    alone = [point for point in in_slurm if point not in shared]
    jobs = [point.job for point in (*stopped, *in_slurm) if point.job is not None]
    _note(status.directory, jobs)  # before: a job looks there when it comes to its end, and when it begins again
    cancelled = stopped + _scancel(alone, problems) + _cancel_shared(status, shared, problems)
    _cancel_successors(status.directory, alone, problems)
    return cancelled, problems


def _note(sweep: Path, jobs: Sequence[Job]) -> None:
    try:
        if jobs:
            record_cancelled(sweep, [job.id for job in jobs])
    except OSError as problem:
        warn(f"{sweep} must be writable to note what was cancelled, but is not: {problem.strerror}.")


def _cancel_successors(sweep: Path, points: Sequence[PointStatus], problems: list[str]) -> None:
    """End the jobs in which they were about to go on, each sent by the one before it after this command had looked."""
    newest = newest_jobs(sweep)
    moved = [replace(point, job=newest[point.name]) for point in points if _id(point) != newest[point.name].id]
    _note(sweep, [newest[point.name] for point in moved])
    _ended(_by(moved, lambda job: (job.id, job.submission.clusters)), lambda job, _: client.cancel(*job), problems)


def _id(point: PointStatus) -> str:
    return "" if point.job is None else point.job.id


def _cancel_shared(status: SweepStatus, points: Sequence[PointStatus], problems: list[str]) -> list[PointStatus]:
    """The steps of points whose job has others; the whole job where it has none left. A second time, at once."""

    def end(job: str, members: Sequence[PointStatus]) -> None:
        others = (each for each in status.points if each not in members and each.state in ALIVE)
        _end_lanes(job, members, any(each.job is not None and each.job.in_queue == job for each in others))

    return _ended(_by(points, lambda job: job.in_queue), end, problems)


def _by(points: Iterable[PointStatus], key: Callable[[Job], Key]) -> dict[Key, list[PointStatus]]:
    """Points by something about their jobs."""
    groups: dict[Key, list[PointStatus]] = {}
    for point in points:
        if point.job is not None:
            groups.setdefault(key(point.job), []).append(point)
    return groups


def _ended(
    groups: Mapping[Key, list[PointStatus]], end: Callable[[Key, Sequence[PointStatus]], None], problems: list[str]
) -> list[PointStatus]:
    """The points of the groups that could be ended."""
    done: list[PointStatus] = []
    for key, members in groups.items():
        try:
            end(key, members)
            done += members
        except SlurmError as problem:
            problems.append(f"{names(members).capitalize()} could not be cancelled: {' '.join(str(problem).split())}")
    return done


def _end_lanes(job: str, members: Sequence[PointStatus], others: bool) -> None:
    held = [member.job for member in members if member.job is not None]
    clusters = held[0].submission.clusters
    if not others:
        client.cancel(job, clusters)
        return
    steps = running_steps(job, process_environ(), clusters)
    for each in held:
        step = steps.get(f"lane-{each.id.partition('.')[2]}")
        if step is not None:
            end_step(step, "KILL" if each.is_cancelled else "TERM", clusters)


def _stop(sweep: Path, point: PointStatus, problems: list[str]) -> bool:
    """A queue is asked, because it would start a point again that has only been told to save."""
    process = None if point.job is None else point.job.submission.process
    if point.job is not None and point.job.local:
        try:
            ask_to_cancel(sweep, [point.name])
        except OSError as problem:
            problems.append(f"Point {point.name} could not be cancelled: {problem.filename}: {problem.strerror}.")
            return False
        return True
    if process is not None and stop(process):
        return True
    where = "another machine" if process is None else process.host
    problems.append(f"Point {point.name} runs on {where}, where it must be cancelled.")
    return False


def _scancel(points: Iterable[PointStatus], problems: list[str]) -> list[PointStatus]:
    """One scancel for each array."""

    def end(array: tuple[str, str | None], members: Sequence[PointStatus]) -> None:
        job, clusters = array
        client.cancel(_expression(job, members), clusters)

    return _ended(_by(points, lambda job: (job.submission.job, job.submission.clusters)), end, problems)


def _expression(job: str, members: Sequence[PointStatus]) -> str:
    """`105`, or `105_[0-3,7]` of an array."""
    ids = [member.job.id for member in members if member.job is not None]
    tasks = {int(found[1]) for found in (re.search(r"_(\d+)$", each) for each in ids) if found}
    if not tasks:
        return job
    return f"{job}_[{','.join(shortened(tasks))}]"


def _sentence(status: SweepStatus, points: Sequence[PointStatus], cancelled: Sequence[PointStatus]) -> str:
    if not cancelled:
        return f"Nothing of {names(points)} is queued or runs in {status.directory}."
    waiting = [point for point in cancelled if point.state == PENDING]
    running = [point for point in cancelled if point.state != PENDING]
    parts = [f"{names(waiting)} (pending)"] if waiting else []
    parts += [f"{names(running)} (running: saves if there is time)"] if running else []
    return f"Cancelled {' and '.join(parts)} of {status.directory}."


def _told(status: SweepStatus, cancelled: Sequence[PointStatus], problems: Sequence[str]) -> dict[str, Any]:
    return {
        "format": 1,
        "sweep": str(status.directory),
        "cancelled": [
            {"point": point.name, "job": point.job.id, "was": point.state} for point in cancelled if point.job
        ],
        "problems": list(problems),
    }
