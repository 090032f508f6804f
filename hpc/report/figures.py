"""How do curves and results look? Figures as Plotly's JSON has them; colours and fonts are the page's."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpc.report.curves import Curve
from hpc.status.overrides import differing_keys, short_names
from hpc.status.sweep import PointStatus

Figure = dict[str, Any]
MOST_LINES = 60
"""More of them are a blur; those that are drawn are spread evenly from the best to the worst."""
MOST_GROUPS = 10
MOST_DOTS = 2000
BINS = 60
DIGITS = 5
LONGEST_NAME = 36
"""Characters: what a legend and an axis have room for."""
LOGARITHMIC_FROM = 50.0
"""An axis is logarithmic where its largest value is so many times its smallest."""


def curves_by_point(found: Sequence[Curve], points: Sequence[PointStatus], metric: str) -> Figure:
    """A line for each point."""
    lines = [(curve, *curve.of(metric)) for curve in found]
    lines = sorted((line for line in lines if line[2]), key=lambda line: line[2][-1])
    labels = _labels(points)
    drawn = [lines[number] for number in _spread(len(lines), MOST_LINES)]
    traces = [
        {"x": steps, "y": _rounded(values), "name": labels[curve.point], "mode": "lines", "line": {"width": 1.5}}
        for curve, steps, values in drawn
    ]
    title = (
        f"{metric} by step" if len(drawn) == len(lines) else f"{metric} by step: {len(drawn)} of {len(lines)} points"
    )
    return _figure(traces, title, "step", metric, [value for _, _, values in drawn for value in values])


def curves_by_override(found: Sequence[Curve], points: Sequence[PointStatus], metric: str, key: str) -> Figure:
    """For each value of an override: the median of its points, and the band between the 10th and 90th percentile."""
    groups: dict[str, list[tuple[list[float], list[float]]]] = {}
    for curve in found:
        steps, values = curve.of(metric)
        if steps:
            groups.setdefault(points[curve.point].overrides.get(key, ""), []).append((steps, values))
    traces: list[Figure] = []
    names = _ordered(groups)
    for number, value in enumerate(names[place] for place in _spread(len(names), MOST_GROUPS)):
        traces += _band(groups[value], f"{cut(value)} ({len(groups[value])})", number)
    title = f"{metric} by step and {key}: median, and 10th to 90th percentile"
    if len(groups) > MOST_GROUPS:
        title += f" ({MOST_GROUPS} of {len(groups)} values)"
    return _figure(traces, title, "step", metric, [value for trace in traces for value in trace["y"]])


def results_by_override(last: Mapping[int, float], points: Sequence[PointStatus], metric: str, key: str) -> Figure:
    """The last value of each point: a box for each value of an override, or a dot for each point.

    Args:
        last: By the place of a point.
        points: Of the sweep.
        metric: Its name.
        key: Of the override.
    """
    groups: dict[str, list[float]] = {}
    for place, value in last.items():
        groups.setdefault(points[place].overrides.get(key, ""), []).append(value)
    title = f"last {metric} by {key}"
    names, values = _ordered(groups), list(last.values())
    if len(names) <= MOST_GROUPS * 2:
        boxes = [_box(name, groups[name], number) for number, name in enumerate(names)]
        return _figure(boxes, title, key, metric, values, {"type": "category"}, legend=False)
    dots = [(name, value) for name in names for value in groups[name]]
    if len(dots) > MOST_DOTS:  # at random: at even distances every dot may have the same value of another override
        dots = random.Random(0).sample(dots, MOST_DOTS)
    numbers = [number for number in (_number(name) for name, _ in dots) if number is not None]
    is_numeric = len(numbers) == len(dots)
    places = numbers if is_numeric else [cut(name) for name, _ in dots]
    trace = {"x": places, "y": _rounded([value for _, value in dots]), "mode": "markers", "marker": {"opacity": 0.6}}
    axis = _scale(numbers) if is_numeric else {"type": "category"}
    return _figure([trace], title, key, metric, values, axis, legend=False)


def distribution(last: Mapping[int, float], metric: str) -> Figure:
    """How many points ended with which value."""
    counts, edges = np.histogram(list(last.values()) or [0.0], bins=min(40, max(5, len(last) // 5)))
    middles = (edges[:-1] + edges[1:]) / 2
    trace = {"type": "bar", "x": _rounded(middles.tolist()), "y": counts.tolist()}
    return _figure([trace], f"last {metric} of all points", metric, "points", [], legend=False)


def _band(lines: Sequence[tuple[list[float], list[float]]], name: str, number: int) -> list[Figure]:
    """Steps are binned, since points log at steps of their own; a bin without a value is left out."""
    low, high = min(steps[0] for steps, _ in lines), max(steps[-1] for steps, _ in lines)
    width = max(1.0, (high - low) / BINS)
    bins: dict[int, list[float]] = {}
    for steps, values in lines:
        for step, value in zip(steps, values, strict=True):
            bins.setdefault(int((step - low) / width), []).append(value)
    places = sorted(bins)
    x = [round(low + (place + 0.5) * width if width > 1 else low + place) for place in places]
    lower, median, upper = (
        _rounded([float(np.quantile(bins[place], part)) for place in places]) for part in (0.1, 0.5, 0.9)
    )
    band = {"x": [*x, *x[::-1]], "y": [*upper, *lower[::-1]], "fill": "toself", "opacity": 0.2, "line": {"width": 0}}
    shared = {"legendgroup": name, "name": name, "colour": number}
    return [
        {**band, **shared, "mode": "lines", "hoverinfo": "skip", "showlegend": False},
        {"x": x, "y": median, **shared, "mode": "lines", "line": {"width": 2}},
    ]


def _box(name: str, values: Sequence[float], number: int) -> Figure:
    low, first, middle, third, high = (float(each) for each in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    five = {"lowerfence": [low], "q1": [first], "median": [middle], "q3": [third], "upperfence": [high]}
    return {"type": "box", "x": [cut(name)], "name": f"{cut(name)} ({len(values)})", **five, "colour": number}


def _figure(
    traces: list[Figure], title: str, x: str, y: str, values: Sequence[float], axis: Figure | None = None,
    legend: bool = True,
) -> Figure:  # fmt: skip
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": x}, **(axis or {})},
        "yaxis": {"title": {"text": y}, **_scale(values)},
        "showlegend": legend and len(traces) > 1,
    }
    return {"data": traces, "layout": layout}


def _scale(values: Sequence[float]) -> Figure:
    """Logarithmic where values span much."""
    least, largest = min(values, default=0.0), max(values, default=0.0)
    return {"type": "log"} if least > 0 and largest / least >= LOGARITHMIC_FROM else {}


def _spread(count: int, most: int) -> list[int]:
    """All numbers below `count`, or so many of them at even distances, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) for number in range(most)]


def _ordered(names: Mapping[str, Any]) -> list[str]:
    """As numbers where they are, then as text."""
    numbers = {name: _number(name) for name in names}
    return sorted(names, key=lambda name: (numbers[name] is None, numbers[name] or 0.0, name))


def _number(text: str) -> float | None:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


def _labels(points: Sequence[PointStatus]) -> list[str]:
    """Each point's name, and what tells it apart."""
    short = short_names(differing_keys([point.overrides for point in points]))
    told = (
        " ".join(f"{short[key]}={value}" for key, value in point.overrides.items() if key in short) for point in points
    )
    return [cut(f"{point.name}: {text}") if text else point.name for point, text in zip(points, told, strict=True)]


def cut(text: str) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
