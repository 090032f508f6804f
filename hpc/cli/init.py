"""`hpc init WHAT`: files to begin with."""

from __future__ import annotations

import click

from hpc.cli.init_project import project_command

init_command = click.Group(
    "init",
    commands={"project": project_command},
    help="Write files to begin with; nothing that is there is ever replaced.",
)
