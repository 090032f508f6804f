"""One HTML file: everything about a sweep, with what draws it, so that it opens without a network."""

from __future__ import annotations

import base64
import gzip
import html
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution as installed
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hpc.errors import ConfigurationError
from hpc.report import figures, timeline
from hpc.report.asked import asked, code_of, versions
from hpc.report.causes import failures
from hpc.report.curves import Curve, curves, metrics_of
from hpc.report.energy import Energy, energy
from hpc.report.history import History, Split, histories, split
from hpc.report.spans import PRODUCTIVE
from hpc.report.table import table
from hpc.run.stored import open_sweep
from hpc.status.standing import UNSUBMITTED
from hpc.status.sweep import SweepStatus

MOST_METRICS, MOST_KEYS = 8, 6
LIBRARIES = {"plotly": "package_data/plotly.min.js", "itables": "html/dt_bundle.js"}
"""By distribution: what of it goes into the page. Plotly draws, and itables has DataTables in one file."""
MARKUP = ("hovertemplate",)
"""Texts of figures in which Plotly's own markup is meant."""


def page(status: SweepStatus, now: float, environ: Mapping[str, str]) -> str:
    """The file's content.

    Args:
        status: The sweep, as it is now.
        now: Seconds since the epoch.
        environ: This process's environment variables, for sacct.

    Raises:
        ConfigurationError: None of its points was submitted.
        LoadError: The sweep's files are damaged.
    """
    if all(point.state == UNSUBMITTED for point in status.points):
        raise ConfigurationError(f"{status.directory} must have been submitted before there is something to report.")
    sweep = open_sweep(status.directory)
    past = histories(status.points, sweep, now)
    held, code, taken = split(past), code_of(status.directory), _energy(status, past, environ)
    environment = Environment(
        loader=PackageLoader("hpc.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {}  # names stay in their order
    environment.filters["brief"] = _brief
    return environment.get_template("page.html.j2").render(
        title=status.directory.name,
        status=status,
        made=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(now)),
        asked=asked(status, sweep, [each.hardware for each in past], code),
        versions=versions(code),
        split=held,
        productive=_share(held),
        energy=taken,
        failures=failures(status.points),
        data=_data(status, past, taken),
        libraries={name: _packed(name, path) for name, path in LIBRARIES.items()},
        styles=(files("itables") / "html/dt_bundle.css").read_text(),
        licences={name: _licence(name) for name in LIBRARIES},
    )


def _data(status: SweepStatus, past: Sequence[History], taken: Energy) -> Mapping[str, Any]:
    """What the page's own script shows."""
    found = curves([point.directory for point in status.points])
    metrics = metrics_of(found)[:MOST_METRICS]
    keys = status.differing[:MOST_KEYS]
    timelines = [timeline.bars(past, taken)] if any(each.spans for each in past) else []
    if sum(bool(each.spans) for each in past) > timeline.MOST_BARS:
        timelines.append(timeline.crowd(past))
    return {
        "table": vars(table(status, past, taken)),
        "views": {metric: _views(found, status, metric, keys) for metric in metrics},
        "timelines": _escaped(timelines),
    }


def _energy(status: SweepStatus, past: Sequence[History], environ: Mapping[str, str]) -> Energy:
    """A Slurm that has given no answer is not asked again."""
    return Energy() if status.problem else energy(status.directory, past, environ)


def _views(found: Sequence[Curve], status: SweepStatus, metric: str, keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """Two figures for each way to look at a metric: its curves, and the values they end with."""
    points = status.points
    pairs = [(curve.point, curve.of(metric)[1][-1:]) for curve in found]
    last = {place: values[0] for place, values in pairs if values}
    views = [("each point", figures.curves_by_point(found, points, metric), figures.distribution(last, metric))]
    for key in keys:
        both = (
            figures.curves_by_override(found, points, metric, key),
            figures.results_by_override(last, points, metric, key),
        )
        views.append((key, *both))
    return [{"name": name, "figures": _escaped(both)} for name, *both in views]


def _escaped(value: Any) -> Any:
    """Plotly shows some tags in any text; what a person has typed is shown as it was typed."""
    if isinstance(value, Mapping):
        return {name: each if name in MARKUP else _escaped(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(each) for each in value]
    return html.escape(value, quote=False) if isinstance(value, str) else value


def _brief(number: float) -> str:
    """With as many digits as a person needs."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def _share(held: Split) -> float | None:
    return held.hours[PRODUCTIVE] / held.total if held.total else None


def _packed(distribution: str, path: str) -> str:
    """Compressed, in letters that mean nothing in HTML."""
    data = (files(distribution) / path).read_bytes()
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _licence(distribution: str) -> str:
    """Its name and version, and the text of its licence."""
    found = installed(distribution)
    texts = [
        path.read_text() for path in found.files or () if "license" in path.name.lower() and ".dist-info" in str(path)
    ]
    return "\n\n".join([f"{distribution} {found.version}", *texts])
