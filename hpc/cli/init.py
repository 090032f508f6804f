"""`hpc init WHAT`: files to begin with. One file per WHAT, imported when it is typed."""

from __future__ import annotations

import importlib

import click

WHATS = {
    "project": "hpc.cli.init_project:project_command",
    "site": "hpc.cli.init_site:site_command",
}


class _Whats(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the alphabet."""
        del ctx
        return sorted(WHATS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in WHATS:
            return None
        module, _, name = WHATS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


init_command = _Whats(
    "init",
    help="Write files to begin with; nothing that is there is ever replaced.",
    short_help="Write files to begin with.",
)
