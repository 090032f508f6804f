"""Why did points fail? What the rank that failed first wrote down, once for all points that failed alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.files import read_regular
from hpc.run.directory import RunDirectory
from hpc.status.causes import Cause
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
    alike: dict[tuple[str, str], list[PointStatus]] = {}
    for point in points:
        if point.standing.cause is not None:
            alike.setdefault((point.standing.cause.kind, point.standing.cause.text), []).append(point)
    groups = sorted(alike.values(), key=len, reverse=True)[:MOST_SHOWN]
    return [_failure(group) for group in groups]


def _failure(group: Sequence[PointStatus]) -> Failure:
    cause = group[0].standing.cause
    assert cause is not None
    return Failure(cause, [point.name for point in group], _record(Path(group[0].directory)))


def _record(directory: Path) -> str:
    """The newest failure record of a point: text, or JSON as text with a line for each field."""
    with suppress(OSError, ValueError, RecursionError):
        newest = max(RunDirectory(directory).failures.iterdir(), key=lambda path: path.stat().st_mtime)
        text = read_regular(newest).decode(errors="replace")
        text = _lines_of(json.loads(text)) if newest.suffix == ".json" else text
        return text[-LONGEST_RECORD:]
    return ""


def _lines_of(value: object, indent: str = "") -> str:
    """JSON for a person: names and values, long texts with their own lines below their names."""
    if isinstance(value, dict):
        return "".join(f"{indent}{name}:{_value_of(each, indent)}" for name, each in value.items())
    if isinstance(value, list):
        return "".join(f"{indent}-{_value_of(each, indent)}" for each in value)
    return f"{indent}{value}\n"


def _value_of(value: object, indent: str) -> str:
    if isinstance(value, (dict, list)) and value:
        return f"\n{_lines_of(value, indent + '    ')}"
    text = "" if value is None or value == [] or value == {} else str(value).rstrip("\n")
    if "\n" not in text:
        return f" {text}\n"
    return "\n" + "".join(f"{indent}    {line}\n" for line in text.splitlines())
