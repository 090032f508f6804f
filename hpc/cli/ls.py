"""`hpc ls`: which sweeps are mine?"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from hpc.cli.columns import aligned, duration
from hpc.cli.sweeps import answering, json_option
from hpc.environ import process_environ
from hpc.errors import HpcError
from hpc.run.listing import SWEEP_FILE, count_points
from hpc.status.find import known_sweeps
from hpc.status.standing import FINISHED_FILE

MOST = 20


@click.command("ls")
@json_option
@click.option("--all", "show_all", is_flag=True, help=f"All of them, and not only the {MOST} newest.")
@answering
def ls_command(as_json: bool, show_all: bool) -> None:
    """My sweeps, the newest first: those I have submitted, and those below runs/ in this directory."""
    found = known_sweeps(process_environ(), Path.cwd())
    shown = found if show_all or as_json else found[:MOST]
    rows = [_row(directory) for directory in shown]
    if as_json:
        click.echo(json.dumps({"format": 1, "sweeps": rows}))
        return
    if not rows:
        click.echo("There are no sweeps: none was submitted from here, and runs/ has none.")
        return
    table = [("age", "points", "finished", "directory"), *(_cells(row) for row in rows)]
    click.echo(aligned(table))
    if len(found) > len(shown):
        click.echo(f"\n{len(found) - len(shown)} older ones: --all shows them.")


def _row(directory: Path) -> dict[str, Any]:
    """A sweep that is damaged has no numbers, and a sentence."""
    row: dict[str, Any] = {"sweep": str(directory), "made_at": None, "points": None, "finished": None, "problem": ""}
    try:
        row["made_at"] = (directory / SWEEP_FILE).stat().st_mtime
        row["points"] = count_points(directory)
        row["finished"] = _finished(directory)
    except (HpcError, OSError) as error:
        row["problem"] = str(error)
    return row


def _finished(directory: Path) -> int:
    """How many points are; a sweep of one may be its own point."""
    with os.scandir(directory) as entries:
        beside = sum(os.path.exists(f"{entry.path}/{FINISHED_FILE}") for entry in entries)  # noqa: PTH110 (so many)
    return beside + (directory / FINISHED_FILE).exists()


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    age = duration(time.time() - row["made_at"]) if row["made_at"] else "?"
    numbers = ("damaged", "?") if row["problem"] else (str(row["points"]), str(row["finished"]))
    return (age, *numbers, row["sweep"])
