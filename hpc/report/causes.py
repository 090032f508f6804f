"""Why did points fail? What the rank that failed first wrote down, once for all points that failed alike."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.attempt.cause import Cause
from hpc.files import read_regular
from hpc.run.directory import RunDirectory
from hpc.status.sweep import PointStatus

MOST_SHOWN = 50
"""Of different causes."""
LONGEST_RECORD = 20_000
"""Characters; the whole of it is in the point's directory."""


@dataclass(frozen=True)
class Failure:
    """Points that failed alike.

    Args:
        cause: Why.
        points: Their names, in order.
        record: What the first of them wrote down; "" where it had no time to.
    """

    cause: Cause
    points: Sequence[str]
    record: str


def failures(points: Sequence[PointStatus]) -> list[Failure]:
    """One for each kind of cause and its phrase; what most points have comes first."""
    alike: dict[tuple[str, str], tuple[Cause, list[PointStatus]]] = {}
    for point in points:
        cause = point.standing.cause
        if cause is not None:
            alike.setdefault((cause.kind, cause.text), (cause, []))[1].append(point)
    groups = sorted(alike.values(), key=lambda group: len(group[1]), reverse=True)[:MOST_SHOWN]
    return [
        Failure(cause, [point.name for point in group], _record(Path(group[0].directory))) for cause, group in groups
    ]


def _record(directory: Path) -> str:
    """What the newest attempt of a point that failed has left for a person; see docs/first-cause.md."""
    with suppress(OSError, ValueError):
        newest = max(RunDirectory(directory).failures.glob("*.txt"), key=lambda path: path.stat().st_mtime)
        return read_regular(newest).decode(errors="replace")[-LONGEST_RECORD:]
    return ""
