"""What has a point written? Its job's output as it is, or the logs of its ranks, merged by the time on each line.

A rank's log has a time on every entry (`hpc.say`), by the clock of its node; a line without one belongs to the entry
above it. What a program prints goes to the job's output only, which has no times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hpc.files import open_to_read
from hpc.run.directory import RunDirectory
from hpc.run.lives import Life

STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")
"""logging's asctime, in local time; `hpc.say.FORMAT` begins every entry with it."""
RANK_LOG = re.compile(r"rank_(\d+)\.log")
EARLY_SECONDS = 0.5
"""A rank sets its log up before the journal has the start of its life."""


@dataclass(frozen=True)
class Entry:
    """A line of a log, and those below it that have no time of their own.

    Args:
        time: Seconds since the epoch; of what stands before the first stamp, 0.
        label: Which log it is from; "" where there is only one.
        lines: Without their line ends.
    """

    time: float
    label: str
    lines: tuple[str, ...]

    def shown(self) -> str:
        """As text, each line with the label before it."""
        return "\n".join(f"{self.label}{line}" for line in self.lines)


@dataclass
class Log:
    """A file that grows.

    Args:
        path: It may be missing still.
        label: Shown before each of its lines.
    """

    path: Path
    label: str = ""
    _read: int = field(default=0, init=False)
    _inode: int = field(default=0, init=False)
    _rest: bytes = field(default=b"", init=False)
    _time: float = field(default=0.0, init=False)

    def new(self, is_last: bool = False) -> list[Entry]:
        """What was added since the last call. A file that was replaced or cut short is read from its beginning.

        Args:
            is_last: Nothing more will come: a line without its end counts, too.
        """
        *lines, self._rest = (self._rest + self._more()).split(b"\n")
        if is_last and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        return list(self._entries(line.decode(errors="replace").rstrip("\r") for line in lines))

    def _more(self) -> bytes:
        try:
            opened = open_to_read(self.path)
        except OSError:
            return b""
        with opened as file:
            now = os.fstat(file.fileno())
            if now.st_ino != self._inode or now.st_size < self._read:
                self._inode, self._read, self._rest = now.st_ino, 0, b""
            file.seek(self._read)
            data = file.read()
            self._read += len(data)
            return data

    def _entries(self, lines: Iterable[str]) -> Iterator[Entry]:
        held: list[str] = []
        for line in lines:
            stamp = STAMP.match(line)
            if stamp and held:
                yield Entry(self._time, self.label, tuple(held))
                held = []
            if stamp:
                with suppress(ValueError):
                    self._time = datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            held.append(line)
        if held:
            yield Entry(self._time, self.label, tuple(held))


def rank_logs(directory: Path, rank: int | None) -> list[Log]:
    """The log of one rank, or those of all ranks that have one, in their order."""
    if rank is not None:
        return [Log(RunDirectory(directory).log(rank))]
    try:
        names = [path.name for path in RunDirectory(directory).logs.iterdir()]
        found = [RANK_LOG.fullmatch(name) for name in names]
    except OSError:
        found = []
    ranks = sorted(int(match[1]) for match in found if match)
    width = len(str(ranks[-1])) if ranks else 1
    return [Log(RunDirectory(directory).log(each), f"{each:>{width}} | ") for each in ranks]


def merged(
    logs: Sequence[Log], window: tuple[float, float] = (0.0, float("inf")), is_last: bool = False
) -> list[Entry]:
    """What is new in all logs, by its time; entries of one log stay in their order.

    Args:
        logs: At equal times, an earlier one comes first.
        window: Only entries from here on and before there, in seconds since the epoch.
        is_last: Nothing more will come.
    """
    entries = [entry for log in logs for entry in log.new(is_last) if window[0] <= entry.time < window[1]]
    return sorted(entries, key=lambda entry: entry.time) if len(logs) > 1 else entries


def window_of(past: Sequence[Life], attempt: int) -> tuple[float, float]:
    """From when to when an attempt lived, in seconds since the epoch.

    Args:
        past: The lives of the point.
        attempt: Counted from 1, as `hpc status` shows it.

    Raises:
        IndexError: There was no such attempt.
    """
    started = [life for life in past if life.has_started]
    begin = [life.events[0].time - EARLY_SECONDS for life in started]
    if not 1 <= attempt <= len(begin):
        raise IndexError(attempt)
    return begin[attempt - 1], begin[attempt] if attempt < len(begin) else float("inf")
