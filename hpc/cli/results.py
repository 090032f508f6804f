"""`hpc results`: what came out of each point of a sweep?"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import click

from hpc.cli.columns import aligned, fitted, terminal_width
from hpc.cli.sweeps import answering, json_option, look_at, words_argument
from hpc.errors import ConfigurationError
from hpc.status.overrides import short_names
from hpc.status.results import FIXED, Best, results


@click.command("results")
@words_argument
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values, as pandas.read_csv takes them.")
@click.option("--best", multiple=True, metavar="METRIC:MODE", help="The best value of a metric, as loss:min.")
@answering
def results_command(words: tuple[str, ...], as_json: bool, as_csv: bool, best: tuple[str, ...]) -> None:
    """What came out: the last logged values of each point, what its function returned, and its overrides."""
    if as_json and as_csv:
        raise ConfigurationError("--csv must not be given beside --json: choose one of them.")
    wanted = [Best.of(each) for each in best]
    status, points = look_at(words)
    rows = results(points, wanted)
    if as_json:
        click.echo(json.dumps({"format": 1, "sweep": str(status.directory), "points": rows}))
    elif as_csv:
        click.echo(_csv(rows), nl=False)
    else:
        click.echo(_table(rows, list(status.differing), {key for point in points for key in point.overrides}))


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(FIXED), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell_of_csv(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _cell_of_csv(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _table(rows: list[dict[str, Any]], differing: list[str], overrides: set[str]) -> str:
    """Overrides that are the same for all points are left out."""
    short = short_names(differing)
    keys = [key for key in rows[0] if key not in overrides or key in short]
    columns = {short.get(key, key): [_cell(row[key]) for row in rows] for key in keys}
    return aligned(fitted(columns, (), terminal_width()))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
