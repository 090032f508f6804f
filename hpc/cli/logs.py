"""`hpc logs`: what has a point written, and what does it write now?"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from hpc.cli.sweeps import answering, chosen, find_sweep, json_option, words_argument
from hpc.environ import process_environ
from hpc.errors import ConfigurationError
from hpc.status.ending import log_path
from hpc.status.logs import Log, merged, rank_logs, window_of
from hpc.status.rows import is_done
from hpc.status.standing import past_of
from hpc.status.sweep import PointStatus, SweepStatus, look

POLL_SECONDS = 0.5
ASK_SECONDS = 10.0
"""How often it is asked whether the point has ended, while it is followed."""


@click.command("logs")
@words_argument
@click.option("--rank", type=click.IntRange(min=0), help="The log of this rank, with times.")
@click.option("--all", "all_ranks", is_flag=True, help="The logs of all ranks, merged by time.")
@click.option("--attempt", type=click.IntRange(min=1), help="Only what this attempt wrote; `hpc status` counts them.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the point has ended.")
@json_option
@answering
def logs_command(
    words: tuple[str, ...], rank: int | None, all_ranks: bool, attempt: int | None, follow: bool, as_json: bool
) -> None:
    """What has a point written? Its job's output; with --rank, --all or --attempt its ranks' logs, which have times."""
    if all_ranks and rank is not None:
        raise ConfigurationError("--rank must not be given beside --all: choose one of them.")
    if follow and as_json:
        raise ConfigurationError("--json must not be given beside --follow, which never comes to the end of an object.")
    directory, rest = find_sweep(words)
    status = look(directory, process_environ())
    point = _the_one(status, rest)
    logs = _logs(status, point, rank, all_ranks, attempt)
    window = _window(point, attempt)
    if follow and attempt is None:
        _follow(directory, point, logs, all_ranks)
        return
    entries = merged(logs, window, is_last=True)
    if not entries:
        raise ConfigurationError(
            f"Point {point.name} must have written something to be shown, but has not: its state is {point.state}."
        )
    if as_json:
        told = [{"time": entry.time or None, "log": entry.label.strip(), "lines": entry.lines} for entry in entries]
        click.echo(json.dumps({"format": 1, "sweep": str(directory), "point": point.name, "entries": told}))
        return
    for entry in entries:
        click.echo(entry.shown())


def _the_one(status: SweepStatus, words: list[str]) -> PointStatus:
    found = chosen(status, words)
    if len(found) != 1:
        raise ConfigurationError(
            f"One point must be named, but {len(found)} of {status.directory} are meant: "
            "name it as 3, lr=3e-4 or 1234_7."
        )
    return found[0]


def _logs(status: SweepStatus, point: PointStatus, rank: int | None, all_ranks: bool, attempt: int | None) -> list[Log]:
    """The job's output, as long as nothing is asked that only the ranks' logs can tell."""
    where = Path(point.directory)
    if all_ranks:
        return rank_logs(where, None)
    output = status.directory / log_path(point.job) if point.job is not None else None
    if rank is None and attempt is None and output is not None and output.is_file():
        return [Log(output)]
    return rank_logs(where, rank or 0)


def _window(point: PointStatus, attempt: int | None) -> tuple[float, float]:
    if attempt is None:
        return 0.0, float("inf")
    past = past_of(point.directory)
    try:
        return window_of(past, attempt)
    except IndexError:
        count = sum(life.has_started for life in past)
        raise ConfigurationError(
            f"--attempt must be at most {count} for point {point.name}, which has lived so often, but is {attempt}."
        ) from None


def _follow(directory: Path, point: PointStatus, logs: list[Log], all_ranks: bool) -> None:
    """As `tail -F` does; what a requeued point writes next comes, too."""
    asked = time.monotonic()
    is_over = is_done(point.state)
    while True:
        entries = merged(logs, is_last=is_over)
        for entry in entries:
            click.echo(entry.shown())
        if is_over:
            return
        time.sleep(POLL_SECONDS)
        if not entries and time.monotonic() - asked >= ASK_SECONDS:
            asked = time.monotonic()
            point = look(directory, process_environ()).points[point.index]
            is_over = is_done(point.state)
            if all_ranks:
                known = {log.path for log in logs}
                logs += [log for log in rank_logs(Path(point.directory), None) if log.path not in known]
