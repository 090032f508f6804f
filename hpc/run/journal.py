"""Where are the events of a run written down, and how are they read?

    journal/<attempt>.jsonl           what rank 0 of an attempt told
    journal/<attempt>.rank_3.jsonl    what rank 3 told, where it failed first
    journal/ended.jsonl               how every life has ended, as told by whoever watched over its ranks

Each file has one writer, because appending is not atomic on NFS. A directory of an older version has one journal.jsonl
for all attempts, whose events name none; they are read as well.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from hpc.errors import LoadError, SaveError
from hpc.files import append_text, make_directory, read_regular
from hpc.run.directory import RunDirectory
from hpc.run.events import Ended, Event, Started, Verified, beginning, from_line, to_line

ENDS = "ended.jsonl"
"""Written by the epilogue of the batch script, too, in slurm_templates/."""
JOURNAL, OLD_JOURNAL = RunDirectory(Path()).journal.name, RunDirectory(Path()).old_journal.name


class Journal:
    """What one process tells about a run.

    Args:
        directory: The run directory.
        attempt: Id of the attempt that this process belongs to; becomes part of a file name.
        rank: This process.
    """

    def __init__(self, directory: Path, attempt: str, rank: int = 0) -> None:
        self.directory, self.attempt = directory, attempt
        name = f"{attempt}.rank_{rank}.jsonl" if rank else f"{attempt}.jsonl"
        self.path = RunDirectory(directory).journal / name

    def write(self, event: Event) -> None:
        """Append an event, with this attempt's id and the time of now.

        Raises:
            SaveError: It cannot be written.
        """
        line = to_line(replace(event, attempt=self.attempt, time=round(time.time(), 3)))
        path = self.path.with_name(ENDS) if isinstance(event, Ended) else self.path
        try:
            make_directory(path.parent)
            append_text(path, line)
        except OSError as error:
            raise SaveError(
                f"{path} must be a file that can be written, but is not: {error.strerror}; make room there, or "
                "choose another run_dir."
            ) from error

    def events(self) -> list[Event]:
        """The events of all attempts so far; see `read_journal`."""
        return read_journal(self.directory)


def read_journal(directory: str | Path, kinds: Collection[type[Event]] = ()) -> list[Event]:
    """All events of a run in the order of their times; nothing where there is no journal.

    A line that a crash or a full disk has cut short is passed over, and so is one that this version does not know.

    Args:
        directory: The run directory.
        kinds: Only events of these kinds, for whoever reads thousands of journals; all of them when none is named.

    Raises:
        LoadError: The journal is there and cannot be read.
    """
    beginnings = tuple(map(beginning, kinds)) or ("",)
    old = f"{directory}/{OLD_JOURNAL}"
    try:
        events = [event for path in _files(f"{directory}/{JOURNAL}") for event in _events_of(path, beginnings)]
        if os.path.lexists(old):
            events = [*_adopted(_events_of(old, ("",))), *events]
    except OSError as error:
        raise LoadError(
            f"The journal of {directory} must be readable, but {error.filename} is not: {error.strerror}; repair it, "
            "or choose another run_dir."
        ) from error
    return sorted(events, key=lambda event: event.time)


def read_journal_and_parts(directory: Path) -> list[Event]:
    """The events of a run, and of its named folds and phases, which have directories of their own below its.

    Raises:
        LoadError: A journal is there and cannot be read.
    """
    parts = sorted(path.parent for path in directory.glob(f"*/{JOURNAL}"))
    return sorted((event for each in (directory, *parts) for event in read_journal(each)), key=lambda event: event.time)


def _files(directory: str) -> list[str]:
    """Without pathlib, which takes ten times as long; a sweep has thousands of journals."""
    try:
        kind = os.lstat(directory).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not stat.S_ISDIR(kind):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", directory)
    with os.scandir(directory) as entries:
        return sorted(entry.path for entry in entries if entry.name.endswith(".jsonl"))


def _events_of(path: str, beginnings: tuple[str, ...]) -> Iterator[Event]:
    for line in read_regular(path).decode(errors="replace").splitlines():
        event = from_line(line) if line.startswith(beginnings) else None
        if event is not None:
            yield event


def _adopted(events: Iterator[Event]) -> Iterator[Event]:
    """Events that name no attempt belong to the one that the newest `started` before them began."""
    number = 0
    for event in events:
        number += isinstance(event, Started)
        yield event if isinstance(event, Verified) else replace(event, attempt=event.attempt or f"old-{number}")
