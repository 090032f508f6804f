"""When did what happen? Attempts of points as bars, and of many points how many were in which state at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpc.report.energy import Energy
from hpc.report.history import History
from hpc.report.spans import HELD, KINDS, LOST, Span

MOST_BARS = 40
"""Points that are shown one by one: those that have lost most, then the ones that lived longest."""
TIMES = 200
MILLISECONDS = 1000.0


def bars(found: Sequence[History], energy: Energy) -> dict[str, Any]:
    """A row for each point, from its submission on; its lives one after the other."""
    ranked = sorted(found, key=lambda each: (-each.seconds(LOST), -each.seconds(*KINDS)))[:MOST_BARS]
    shown = sorted((each for each in ranked if each.spans), key=lambda each: each.point.index)
    pieces = [(each, span) for each in shown for span in each.spans]
    traces = [_bar(kind, [piece for piece in pieces if piece[1].kind == kind], energy) for kind in KINDS]
    count = sum(bool(each.spans) for each in found)
    title = (
        "Attempts of each point"
        if len(shown) == count
        else f"Attempts: {len(shown)} of {count} points, those that lost most"
    )
    layout = {
        "title": {"text": title},
        "barmode": "overlay",
        "bargap": 0.25,
        "xaxis": {"type": "date", "title": {"text": time.strftime("%Z")}},
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1},
        "height": 170 + 22 * len(shown),
        "showlegend": True,
    }
    return {"data": [trace for trace in (*traces, _ends(shown)) if trace["y"]], "layout": layout}


def crowd(found: Sequence[History]) -> dict[str, Any]:
    """How many points were in each kind of span, over time."""
    pieces = [span for each in found for span in each.spans]
    begin, end = min(span.begin for span in pieces), max(span.end for span in pieces)
    times = np.linspace(begin, end, TIMES)
    traces = [_area(kind, [span for span in pieces if span.kind == kind], times) for kind in KINDS]
    layout = {
        "title": {"text": "All points over time"},
        "xaxis": {"type": "date", "title": {"text": time.strftime("%Z")}},
        "yaxis": {"title": {"text": "points"}},
        "showlegend": True,
    }
    return {"data": [trace for trace in traces if any(trace["y"])], "layout": layout}


def _bar(kind: str, pieces: Sequence[tuple[History, Span]], energy: Energy) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": kind,
        "kind": kind,
        "y": [each.point.name for each, _ in pieces],
        "base": [_moment(span.begin) for _, span in pieces],
        "x": [span.seconds * MILLISECONDS for _, span in pieces],
        "customdata": [f"{_attempt(each, span, energy)}, {span.seconds:.0f} s" for each, span in pieces],
        "hovertemplate": "point %{y}, %{customdata}<extra>" + kind + "</extra>",
    }


def _attempt(history: History, span: Span, energy: Energy) -> str:
    """Its number, and what it has taken in all."""
    kwh = energy.attempts.get((history.point.index, span.life)) if span.kind in HELD else None
    return f"attempt {span.life}" if kwh is None else f"attempt {span.life} ({kwh:.3g} kWh)"


def _ends(found: Sequence[History]) -> dict[str, Any]:
    """Where lives ended with an error."""
    failed = [(each, life) for each in found for life in each.past if life.first_failure is not None]
    return {
        "name": "failed",
        "kind": "failed",
        "mode": "markers",
        "marker": {"symbol": "x", "size": 9},
        "y": [each.point.name for each, _ in failed],
        "x": [_moment(life.events[-1].time) for _, life in failed],
        "text": [life.first_failure.reason[:120] for _, life in failed if life.first_failure is not None],
        "hovertemplate": "point %{y}: %{text}<extra>failed</extra>",
    }


def _moment(seconds: float) -> float:
    """As a date axis has it: it knows no time zones, and is given this one's."""
    return round((seconds + time.localtime(seconds).tm_gmtoff) * MILLISECONDS)


def _area(kind: str, pieces: Sequence[Span], times: np.ndarray[Any, Any]) -> dict[str, Any]:
    begun = np.searchsorted(np.sort([span.begin for span in pieces]), times, side="right")
    ended = np.searchsorted(np.sort([span.end for span in pieces]), times, side="right")
    return {
        "name": kind,
        "kind": kind,
        "stackgroup": "all",
        "mode": "lines",
        "line": {"width": 0.5},
        "x": [_moment(each) for each in times.tolist()],
        "y": (begun - ended).tolist(),
    }
