"""Which columns and rows does the table of results have?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.report.energy import Energy
from hpc.report.history import History
from hpc.report.spans import HELD, LOST
from hpc.run.lives import SECONDS_PER_HOUR
from hpc.status.overrides import short_names
from hpc.status.results import results
from hpc.status.sweep import SweepStatus

LONGEST_CELL = 200


@dataclass(frozen=True)
class Table:
    """The points of a sweep.

    Args:
        columns: Their headings.
        numeric: Of each column, whether it holds numbers.
        rows: A cell for each column: a number, a text, or None.
    """

    columns: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[Any]]


def table(status: SweepStatus, found: Sequence[History], energy: Energy) -> Table:
    """A row for each point: its state, what tells it apart, what came out, what it took, and why it failed.

    Overrides that are the same for all points are left out, and columns that are empty.
    """
    outcome = results([each.point for each in found], [])
    alike = {key for each in found for key in each.point.overrides} - {*status.differing}
    short = short_names(status.differing)
    rows = [_row(fields, each, alike, short, energy) for fields, each in zip(outcome, found, strict=True)]
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, "") for row in rows)]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    numeric = [
        all(cell is None or isinstance(cell, (int, float)) for cell in column) for column in zip(*cells, strict=True)
    ]
    return Table(names, numeric, cells)


def _row(
    fields: Mapping[str, Any], history: History, alike: set[str], short: Mapping[str, str], energy: Energy
) -> dict[str, Any]:
    shown = {name: value for name, value in fields.items() if name not in alike}
    ahead = ("point", "state", *short)
    cause, job = history.point.standing.cause, history.point.job
    return {
        **{short.get(name, name): shown[name] for name in ahead if name in shown},
        **{name: value for name, value in shown.items() if name not in ahead},
        "attempts": history.attempts,
        "hours": _short(history.seconds(*HELD) / SECONDS_PER_HOUR),
        "hours lost": _short(history.seconds(LOST) / SECONDS_PER_HOUR),
        "kWh": _short(energy.points.get(history.point.index, 0.0)),
        "cause": "" if cause is None else cause.text,
        "job": "" if job is None else job.id,
    }


def _short(number: float) -> float | None:
    return float(f"{number:.3g}") if number else None


def _cell(value: Any) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else str(value)
    if isinstance(value, int):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
