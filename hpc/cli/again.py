"""How do `hpc resume` and `hpc retry` submit the points that they have chosen?"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence

import click

from hpc.cli.sweeps import chosen, find_sweep
from hpc.environ import process_environ
from hpc.run.calls import Turn
from hpc.status.sweep import PointStatus, SweepStatus, check_slurm_answers, look
from hpc.submit.settle import settle_before


def look_in_turn(words: Sequence[str], as_json: bool) -> tuple[Turn, SweepStatus, list[PointStatus]]:
    """The sweep that is meant and those of its points that are, as nobody may have changed them when they are sent.

    Raises:
        ConfigurationError: No sweep is meant, or a word names no point.
        LoadError: The sweep's files are damaged.
    """
    directory, rest = find_sweep(words)
    with _quiet(as_json):
        settle_before(directory)
    turn = Turn(directory)
    status = look(directory, process_environ())
    return turn, status, chosen(status, rest)


def submit_again(
    turn: Turn,
    status: SweepStatus,
    points: Sequence[PointStatus],
    changes: Sequence[str],
    as_json: bool,
    new_code: bool = False,
) -> None:
    """Submit them, and say which with --json; nothing is submitted where there are none.

    Args:
        turn: Begun before it was looked where they stand.
        status: Their sweep, as it was a moment ago.
        points: None of them is in the queue.
        changes: Settings to change before, as hardware.memory_gb=64.
        new_code: Whether they take the code as it is now, and not that of their submission.
        as_json: Whether standard output is one JSON object, and nothing else.

    Raises:
        ConfigurationError: Slurm does not answer, a change is not valid, or the points cannot be submitted.
    """
    if points:
        check_slurm_answers(status)
        _submit(turn, status, points, changes, as_json, new_code)
    if as_json:
        click.echo(json.dumps({"format": 1, "sweep": str(status.directory), "points": [each.name for each in points]}))


def _submit(
    turn: Turn,
    status: SweepStatus,
    points: Sequence[PointStatus],
    changes: Sequence[str],
    as_json: bool,
    new_code: bool,
) -> None:
    # deferred: submitit and omegaconf take longer to import than the other verbs to run
    from hpc.launch import dispatch
    from hpc.run.points import load_sweep  # deferred, as above
    from hpc.submit.again import changed  # deferred, as above
    from hpc.submit.earlier import with_code  # deferred, as above

    sweep, names = load_sweep(status.directory), {point.name for point in points}
    if changes:
        sweep = changed(sweep, names, changes)
    with _quiet(as_json):
        for part, found in with_code(sweep, names, new_code):
            dispatch.submit_again(part, found, bool(changes), turn)


def _quiet(as_json: bool) -> contextlib.AbstractContextManager[object]:
    return contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext()
