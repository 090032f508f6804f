"""What came out of each point? The last row of its metrics, the best value of some, and what the function returned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigurationError, HpcError
from hpc.files import read_regular
from hpc.run.result import read_result
from hpc.status.rows import METRICS_FILE, last_metrics
from hpc.status.standing import UNSUBMITTED
from hpc.status.sweep import PointStatus

FIXED = ("point", "state", "step", "value")


@dataclass(frozen=True)
class Best:
    """Which value of a metric counts as the best.

    Args:
        name: As it was logged.
        mode: min or max.
    """

    name: str
    mode: str

    @classmethod
    def of(cls, text: str) -> Best:
        """`loss:min`, or `accuracy:max`.

        Raises:
            ConfigurationError: It is neither.
        """
        name, _, mode = text.rpartition(":")
        if not name or mode not in ("min", "max"):
            raise ConfigurationError(f"--best must be a metric and min or max, as loss:min, but is {text}.")
        return cls(name, mode)


def results(points: Sequence[PointStatus], best: Sequence[Best]) -> list[dict[str, Any]]:
    """A flat row for each point, alike in its keys: point, state, step, value, overrides, metrics, best values.

    Where a metric is called like an override, it has `metric_` before its name.
    """
    found = [_result(point, best) for point in points]
    overrides = list(dict.fromkeys(key for point in points for key in point.overrides))
    metrics = list(dict.fromkeys(name for _, values, _ in found for name in values))
    names = {name: f"metric_{name}" if name in (*FIXED, *overrides) else name for name in metrics}
    rows = []
    for point, (fixed, values, bests) in zip(points, found, strict=True):
        row = {**fixed, **{key: _typed(point.overrides.get(key)) for key in overrides}}
        row |= {names[name]: values.get(name) for name in metrics}
        rows.append({**row, **bests})
    return rows


def _result(point: PointStatus, best: Sequence[Best]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    last: dict[str, Any] = {}
    value = None
    if point.state != UNSUBMITTED:
        last = last_metrics(point.directory) or {}
        with suppress(HpcError):
            result = read_result(Path(point.directory))
            value = None if result is None else result.value
    fixed = {"point": point.name, "state": point.state, "step": last.pop("step", None), "value": value}
    return fixed, last, _bests(point.directory, best)


def _bests(directory: str, best: Sequence[Best]) -> dict[str, Any]:
    """The best value of each, and the step that logged it; a value that is no number is passed over."""
    found: dict[str, Any] = {}
    rows = _rows(directory) if best else []
    for each in best:
        pairs = [(row[each.name], row["step"]) for row in rows if _is_number(row.get(each.name))]
        choose = min if each.mode == "min" else max
        value, step = choose(pairs, key=lambda pair: pair[0], default=(None, None))
        found |= {f"best_{each.name}": value, f"best_{each.name}_step": step}
    return found


def _rows(directory: str) -> list[Mapping[str, Any]]:
    try:
        lines = read_regular(f"{directory}/{METRICS_FILE}").splitlines()
    except OSError:
        return []
    rows: list[Mapping[str, Any]] = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and "step" in row:
                rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _typed(value: str | None) -> Any:
    """Numbers and truth values as such, everything else as it was typed."""
    if value is None:
        return None
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
