"""What was logged along the way? A few rows of each point's metrics, however long its file is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hpc.files import open_to_read
from hpc.status.rows import METRICS_FILE

MOST_ROWS = 300_000
"""Of all points together: what is read for a page takes seconds, not minutes."""
FEWEST_PER_POINT, MOST_PER_POINT = 30, 200
LINE_BYTES = 4096
"""A longer line is passed over."""
Row = Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """What one point logged, thinned out.

    Args:
        point: Its place in the sweep.
        rows: In the order of their steps; each has `step`.
    """

    point: int
    rows: Sequence[Row]

    def of(self, metric: str) -> tuple[list[float], list[float]]:
        """Steps, and the finite values of one metric at them."""
        pairs = [(row["step"], row[metric]) for row in self.rows if metric in row]
        return [step for step, _ in pairs], [value for _, value in pairs]


def curves(directories: Sequence[str]) -> list[Curve]:
    """Those of points that have logged something.

    Args:
        directories: Of all points of a sweep.
    """
    count = max(FEWEST_PER_POINT, min(MOST_PER_POINT, MOST_ROWS // max(1, len(directories))))
    found = (Curve(number, _rows(f"{directory}/{METRICS_FILE}", count)) for number, directory in enumerate(directories))
    return [curve for curve in found if curve.rows]


def metrics_of(found: Sequence[Curve]) -> list[str]:
    """The names of all metrics: loss first, then by how many points have logged them."""
    names: dict[str, int] = {}
    for curve in found:
        for name in {name for row in curve.rows for name in row if name != "step"}:
            names[name] = names.get(name, 0) + 1
    return sorted(names, key=lambda name: (name != "loss", -names[name], name))


def _rows(path: str, count: int) -> list[Row]:
    rows: dict[float, Row] = {}
    with suppress(OSError):
        for line in _lines(path, count):
            row = _row(line)
            if row is not None:
                rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def _lines(path: str, count: int) -> Iterator[bytes]:
    """All lines of a short file in evenly spaced ones; of a long one those at evenly spaced places, and the last."""
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= count * LINE_BYTES // 4:
            lines = file.read().splitlines()
            yield from lines[:: max(1, len(lines) // count)]
            yield from lines[-1:]
            return
        for place in (*(size * number // count for number in range(count)), size - LINE_BYTES):
            file.seek(max(0, place - 1))
            whole = file.read(LINE_BYTES).split(b"\n")[place > 0 : -1]  # what comes first has begun before
            yield from whole[:1] if place < size - LINE_BYTES else whole[-1:]


def _row(line: bytes) -> Row | None:
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict) and _is_number(found.get("step")):
            return {name: value for name, value in found.items() if _is_number(value)}
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
