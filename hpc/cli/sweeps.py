"""What the verbs about sweeps have in common: how a sweep and its points are named, completed, found, and refused."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from hpc.cli import options
from hpc.cli.surroundings import readable
from hpc.environ import process_environ
from hpc.errors import EXIT_INTERRUPTED, HpcError
from hpc.run.listing import list_points
from hpc.status import find
from hpc.status.overrides import differing_keys, values_of
from hpc.status.sweep import PointStatus, SweepStatus, look

COMPLETED_VALUES = 200
"""A shell shows no more at once."""


def completions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers after these verbs: my sweeps, and the overrides of the sweep that is meant."""
    del parameter
    here = Path.cwd()
    typed: Sequence[str] = context.params.get("words") or ()
    offered = [] if typed else [os.path.relpath(path) for path in find.known_sweeps(process_environ(), here)]
    try:
        directory, _ = find.split(typed, process_environ(), here)
        offered += _overrides(directory)
    except HpcError:
        pass
    items = [CompletionItem(each) for each in dict.fromkeys(offered) if each.startswith(incomplete)]
    return items[:COMPLETED_VALUES] or [CompletionItem(incomplete, type="dir")]


words_argument = click.argument("words", nargs=-1, metavar="[SWEEP] [POINTS]...", shell_complete=completions)
"""A sweep's directory or the end of it, then its points: 3, lr=3e-4, 1234_7; the newest sweep, and all its points."""
json_option = options.json_option("docs/status.md")


def answering(function: Callable[..., Any]) -> Callable[..., None]:
    """Around a verb: an error of ours is one sentence and its exit code, and a closed pipe is the end."""

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> None:
        try:
            with readable():
                function(*arguments, **options)
        except HpcError as error:
            from hpc.say import fail  # deferred: logging is imported for nothing else

            fail(error)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None

    return verb


def find_sweep(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The sweep that is meant, and the words that name points of it.

    Raises:
        ConfigurationError: No sweep is meant, or several may be.
    """
    return find.split(words, process_environ(), Path.cwd())


def look_at(words: Sequence[str]) -> tuple[SweepStatus, list[PointStatus]]:
    """The sweep that is meant as it is now, and those of its points that are.

    Raises:
        ConfigurationError: No sweep is meant, or a word names no point.
        LoadError: The sweep's files are damaged.
    """
    directory, rest = find_sweep(words)
    status = look(directory, process_environ())
    return status, chosen(status, rest)


def chosen(status: SweepStatus, words: Sequence[str]) -> list[PointStatus]:
    """The points that are meant; all where no word names one.

    Raises:
        ConfigurationError: A word names no point.
    """
    jobs = {point.name: point.job.id for point in status.points if point.job is not None}
    return [status.points[index] for index in find.select(status.points, jobs, words)]


def names(points: Iterable[PointStatus]) -> str:
    """`point 3`, or `points 0, 1, 2 and 5 more`."""
    found = [point.name for point in points]
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"point{'s' * (len(found) != 1)} {', '.join(found[:8])}{more}"


def _overrides(directory: Path) -> list[str]:
    values = [values_of(overrides) for _, overrides in list_points(directory).overrides()]
    return [f"{key}={each[key]}" for key in differing_keys(values) for each in values if key in each]
