"""What does a rank that fails say of it? A small file for each of the first ranks to fail, and none where all is well.

    failures/<attempt>.own_0.json    the first rank that failed by itself, .own_1.json the second, and so on
    failures/<attempt>.echo_0.json   the first rank that lost another one

Numbers instead of ranks, because a file is made only where it was not there: of ten thousand ranks that fail at once,
MOST of each sort tell it, and all others leave without a file.
"""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hpc.attempt.words import ECHO, LATE, sort_of, telling
from hpc.errors import HpcError
from hpc.files import create, make_directory, read_regular
from hpc.stop.activity import Activity

MOST = {"own": 16, "echo": 8}
"""How many ranks of an attempt may tell of a failure of their own, and of another's."""
TOLD = re.compile(r"(.+)\.(?:own|echo)_\d+\.json")
"""The name of such a file, and in it the attempt."""
MOST_LINES, MOST_CHARACTERS = 40, 400
"""Kept of a traceback, and of each of its lines."""


@dataclass(frozen=True)
class Statement:
    """What one rank said when it failed.

    Args:
        rank: Which one.
        host: Its node.
        time: When, in seconds since the epoch, by the clock of its node.
        monotonic: When, in seconds since its node was booted: of two ranks of a node, the smaller was first.
        code: The exit code it leaves with.
        reason: Its sentence, or `Type: message` in one line.
        chain: The exception, then those it was raised from or while handling, each as `Type: message`.
        lines: The end of what a person is shown of it.
        step: The step that it was in; None where it was in none.
        phase: What it did; "" where that is not known.
    """

    rank: int
    host: str
    time: float
    monotonic: float
    code: int
    reason: str = ""
    chain: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    step: int | None = None
    phase: str = ""

    @property
    def sort(self) -> str:
        """Whose failure it tells of; see `hpc.attempt.words`."""
        return sort_of(self.chain)

    @property
    def is_echo(self) -> bool:
        """Whether another rank must have failed before."""
        return self.sort in (ECHO, LATE)

    @property
    def exception(self) -> str:
        """The type of its exception."""
        return telling(self.chain).partition(":")[0]


def statement(
    rank: int, host: str, code: int, cause: BaseException, text: str, activity: Activity | None = None
) -> Statement:
    """What a rank says of its failure, now.

    Args:
        rank: Of this process.
        host: Its node.
        code: The exit code it leaves with.
        cause: What it fails with.
        text: What a person is shown of it.
        activity: What the process does; None where nobody says so.
    """
    lines = tuple(line[:MOST_CHARACTERS] for line in text.splitlines()[-MOST_LINES:])
    chain, now = chain_of(cause), (round(time.time(), 6), round(time.monotonic(), 6))
    told = Statement(rank, host, *now, code, _reason(cause, chain, lines), chain, lines)
    return told if activity is None else replace(told, step=activity.step, phase=activity.phase)


def chain_of(cause: BaseException) -> tuple[str, ...]:
    """An exception and what it was raised from, or while handling; `raise ... from None` ends it."""
    found: list[BaseException] = []
    each: BaseException | None = cause
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return tuple(_line(each) for each in found)


def write_statement(record: Path, told: Statement) -> bool:
    """Write it down, unless enough ranks have said the like; returns whether it was written.

    Args:
        record: The report of the attempt, beside which it lies.
        told: What to write.

    Raises:
        OSError: The file system says no.
    """
    make_directory(record.parent)
    sort = "echo" if told.is_echo else "own"
    for number in range(MOST[sort]):
        with suppress(FileExistsError), create(record.with_name(f"{record.stem}.{sort}_{number}.json")) as file:
            file.write((json.dumps(asdict(told)) + "\n").encode(errors="backslashreplace"))
            return True
    return False


def statement_files(record: Path) -> list[Path]:
    """The files of the ranks of an attempt that have failed. None is missed that was there when this began."""
    names = [record.with_name(f"{record.stem}.{sort}_{n}.json") for sort, most in MOST.items() for n in range(most)]
    try:
        there = {path.name for path in record.parent.iterdir()}
    except OSError:
        return []
    return [path for path in names if path.name in there]


def read_statements(paths: Iterable[Path]) -> Iterator[Statement]:
    """What was said; a file that is not whole is passed over."""
    for path in paths:
        with suppress(OSError, ValueError, TypeError, RecursionError):
            yield statement_of(json.loads(read_regular(path)))


def statement_of(found: Any) -> Statement:
    """The same as read from JSON.

    Raises:
        TypeError, ValueError: It is none.
    """
    told = Statement(**{each.name: found[each.name] for each in fields(Statement) if each.name in found})
    texts = [told.host, told.reason, told.phase, *told.chain, *told.lines]
    numbers = [told.time, told.monotonic]
    is_whole = all(type(each) is int for each in (told.rank, told.code, told.step or 0))
    if not is_whole or not all(isinstance(each, str) for each in texts) or not all(map(math.isfinite, numbers)):
        raise TypeError("it is no statement")
    return replace(told, chain=tuple(told.chain), lines=tuple(told.lines))


def _reason(cause: BaseException, chain: Sequence[str], lines: Sequence[str]) -> str:
    """A worker process's exception is the last line of what its rank shows; elsewhere that may be advice."""
    if isinstance(cause, HpcError):
        return " ".join(str(cause).split())
    is_told_below = bool(lines) and "Original Traceback" in str(chain[0])
    return lines[-1] if is_told_below else telling(chain).partition("\n")[0]


def _line(cause: BaseException) -> str:
    shown = traceback.format_exception_only(cause)
    return shown[-1 if isinstance(cause, SyntaxError) else 0].strip()[:MOST_CHARACTERS]
