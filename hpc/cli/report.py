"""`hpc report`: one page about a sweep, as a file for a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from hpc.cli.sweeps import answering, completions, find_sweep, json_option
from hpc.environ import process_environ
from hpc.errors import ConfigurationError
from hpc.files import replace_text
from hpc.status.sweep import look


@click.command("report")
@click.argument("words", nargs=-1, metavar="[SWEEP]", shell_complete=completions)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file to write; report.html in the sweep's directory."
)
@json_option
@answering
def report_command(words: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """One HTML file: what was asked, results, curves, where the time went, and why points failed."""
    from hpc.report.page import page  # deferred: its templates take longer to import than other verbs need

    directory, rest = find_sweep(words)
    if rest:
        raise ConfigurationError(f"A report is about a whole sweep, but {' '.join(rest)} names points: leave it out.")
    path = output or directory / "report.html"
    if path.is_dir():
        raise ConfigurationError(f"--output must be a file, but {path} is a directory.")
    environ = process_environ()
    text = page(look(directory, environ), time.time(), environ)
    try:
        replace_text(path, text)
    except OSError as error:
        raise ConfigurationError(
            f"--output must be a file that can be written, but {path} is not: {error.strerror}."
        ) from error
    if as_json:
        click.echo(json.dumps({"format": 1, "sweep": str(directory), "report": str(path.absolute())}))
        return
    click.echo(f"{path} ({len(text.encode()) / 1e6:.1f} MB)")
