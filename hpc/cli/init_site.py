"""`hpc init site`: the preset of this cluster."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from hpc.cli.sweeps import answering

FOLDER = Path("conf/cluster")


@click.command("site")
@click.argument("name", required=False)
@click.option("--partition", help="Where jobs go; the default partition unless given.")
@click.option("--account", help="What jobs are charged to; asked for on a terminal where it is needed and not known.")
@click.option("--directory", type=click.Path(path_type=Path), default=FOLDER, help=f"Where the file goes: {FOLDER}.")
@click.option("--print", "is_shown", is_flag=True, help="Print the file, and write none.")
@click.option("--json", "as_json", is_flag=True, help="As --print, as JSON.")
@answering
def site_command(
    name: str | None, partition: str | None, account: str | None, directory: Path, is_shown: bool, as_json: bool
) -> None:
    """Read this cluster's configuration, and write conf/cluster/NAME.yaml: cluster=NAME is then this cluster.

    NAME is the cluster's own name unless given. A file that is there is never replaced.
    """
    from hpc.slurm.survey import survey  # deferred, as the rest: OmegaConf takes longer to import than `hpc --help`
    from hpc.submit.site_preset import as_yaml, site_preset  # deferred, as above

    found = survey()
    preset = site_preset(found, partition, account or _account(found), time.strftime("%Y-%m-%d"))
    if is_shown or as_json:
        click.echo(json.dumps({"format": 1, "cluster": preset}) if as_json else as_yaml(preset), nl=as_json)
        return
    path = _written(directory, name or preset["site"], as_yaml(preset))
    click.echo(f"Wrote {path}. Next: hpc doctor, and hpc script hardware=... cluster={path.stem}")


def _account(found: Any) -> str | None:
    """The only one that this user has; else what a person at a terminal says; else none, and each job must name one."""
    from hpc.slurm.limits import own_name  # deferred, as above
    from hpc.submit.site_preset import accounts_of, needs_account  # deferred, as above

    if not needs_account(found):
        return None
    known = accounts_of(own_name())
    if len(known) == 1:
        return known[0]
    if not sys.stdin.isatty():
        return None
    choice = click.Choice(known) if known else None
    return str(click.prompt("Account that jobs are charged to", type=choice, err=True))


def _written(directory: Path, name: str, text: str) -> Path:
    """Raises ConfigurationError where it cannot be written, or is there."""
    from hpc.errors import ConfigurationError  # deferred, as above
    from hpc.files import create, make_directory  # deferred, as above

    path = directory / f"{name}.yaml"
    if Path(name).name != name or not name.strip():
        raise ConfigurationError(f"NAME must be a name for a file, but is {name!r}.")
    try:
        make_directory(directory)
        with create(path) as file:
            file.write(text.encode())
    except FileExistsError as error:
        raise ConfigurationError(f"{path} must not be there yet, but is: choose another NAME, or delete it.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} must be writable, but is not: {error.strerror}.") from error
    return path
