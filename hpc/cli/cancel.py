"""`hpc cancel`: end what is queued or runs of a sweep."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hpc.cli.sweeps import answering, find_sweep, json_option, look_at, names, words_argument
from hpc.errors import ConfigurationError, SlurmError
from hpc.run.processes import stop
from hpc.run.queue import ask_to_cancel
from hpc.run.submissions import LOCAL, record_cancelled
from hpc.say import error, warn
from hpc.slurm import client
from hpc.slurm.steps import end_step, running_steps
from hpc.status.standing import PENDING, RUNNING, SAVING
from hpc.status.sweep import PointStatus, SweepStatus
from hpc.submit.settle import settle_before

ALIVE = (PENDING, RUNNING, SAVING)


@click.command("cancel", short_help="End what is queued or runs.")
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
    _note(status.directory, shared)  # before: their job looks there when one of its points comes to its end
    cancelled = stopped + _scancel(alone, problems) + _cancel_shared(status, shared, problems)
    _note(status.directory, [point for point in cancelled if point not in shared])
    return cancelled, problems


def _note(sweep: Path, points: Sequence[PointStatus]) -> None:
    try:
        if points:
            record_cancelled(sweep, [point.job.id for point in points if point.job is not None])
    except OSError as problem:
        warn(f"{sweep} must be writable to note what was cancelled, but is not: {problem.strerror}.")


def _cancel_shared(status: SweepStatus, points: Sequence[PointStatus], problems: list[str]) -> list[PointStatus]:
    """The steps of points whose job has others; the whole job where it has none left. A second time, at once."""
    jobs: dict[str, list[PointStatus]] = {}
    for point in points:
        assert point.job is not None
        jobs.setdefault(point.job.in_queue, []).append(point)
    done: list[PointStatus] = []
    for job, members in jobs.items():
        others = [
            each for each in status.points
            if each.job is not None and each.job.in_queue == job and each not in members and each.state in ALIVE
        ]  # fmt: skip
        try:
            _end_lanes(job, members, bool(others))
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
    steps = running_steps(job, os.environ, clusters)
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
    arrays: dict[tuple[str, str | None], list[PointStatus]] = {}
    for point in points:
        assert point.job is not None
        arrays.setdefault((point.job.submission.job, point.job.submission.clusters), []).append(point)
    done: list[PointStatus] = []
    for (job, clusters), members in arrays.items():
        try:
            client.cancel(_expression(job, members), clusters)
            done += members
        except SlurmError as problem:
            problems.append(f"{names(members).capitalize()} could not be cancelled: {' '.join(str(problem).split())}")
    return done


def _expression(job: str, members: Sequence[PointStatus]) -> str:
    """`105`, or `105_[0-3,7]` of an array."""
    ids = [member.job.id for member in members if member.job is not None]
    tasks = sorted(int(found[1]) for found in (re.search(r"_(\d+)$", each) for each in ids) if found)
    if not tasks:
        return job
    runs: list[list[int]] = []
    for task in tasks:
        if runs and task == runs[-1][1] + 1:
            runs[-1][1] = task
        else:
            runs.append([task, task])
    return f"{job}_[{','.join(str(low) if low == high else f'{low}-{high}' for low, high in runs)}]"


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
