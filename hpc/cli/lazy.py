"""A group of commands of which only the one that is typed is imported: what others import takes longer than it does."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from hpc.cli.surroundings import surroundings
from hpc.errors import HpcError


class Verb(NamedTuple):
    """A command that is not imported yet.

    Args:
        place: `module:attribute`.
        short_help: What it is for, in some words.
    """

    place: str
    short_help: str


class LazyGroup(click.Group):
    """Commands by name.

    Args:
        verbs: In the order in which they are listed.
        options: As click.Group has them.
    """

    def __init__(self, verbs: Mapping[str, Verb], **options: Any) -> None:
        super().__init__(**options)
        self.verbs = verbs

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
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        del ctx
        if cmd_name not in self.verbs:
            return None
        module, _, name = self.verbs[cmd_name].place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """For --help, which imports none of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.short_help) for name, verb in self.verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """For a shell, which waits for nothing but the names either."""
        found = [(name, verb) for name, verb in self.verbs.items() if name.startswith(incomplete)]
        items = [CompletionItem(name, help=verb.short_help) for name, verb in found]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]
