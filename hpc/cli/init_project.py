"""`hpc init project`: a small project that trains as it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from hpc.cli.sweeps import answering


@click.command("project")
@click.argument("directory", type=click.Path(path_type=Path), default=Path())
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@answering
def project_command(directory: Path, as_json: bool) -> None:
    """A training function with its configuration and its test, in DIRECTORY or here."""
    from hpc.project.create import create_project  # deferred: its templates take longer to import than `hpc --help`

    files = [str(path) for path in create_project(directory)]
    if as_json:
        click.echo(json.dumps({"format": 1, "directory": str(directory.absolute()), "files": files}))
        return
    click.echo(f"Wrote {', '.join(files)}. Next:")
    if directory.absolute() != Path.cwd():
        click.echo(f"    cd {shlex.quote(str(directory))}")
    click.echo("    hpc run --config-path conf                                   # trains here")
    click.echo("    hpc run --config-path conf -m hardware=cpu cluster=slurm     # sends one Slurm job")
