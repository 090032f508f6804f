"""A group of commands of which only the one that is typed is imported: what others import takes longer than it does."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from hpc.cli.surroundings import surroundings
from hpc.errors import HpcError


class LazyGroup(click.Group):
    """Commands by name.

    Args:
        places: Name -> `module:attribute`, in the order in which they are listed.
        options: As click.Group has them.
    """

    def __init__(self, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.places = places

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's own: a command explains its errors itself; those of its surroundings are explained here."""
        try:
            with surroundings():
                return super().main(*args, **extra)
        except HpcError as error:
            from hpc.say import fail  # deferred: a verb that works need not wait for it

            fail(error)
            raise SystemExit(error.exit_code) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in self.places:
            return None
        module, _, name = self.places[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command
