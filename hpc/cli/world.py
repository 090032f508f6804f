"""`hpc world`: which rank would a process started like this one be, and why?"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

import click

from hpc.errors import WorldError
from hpc.world import Explanation, World, explain_world

SHOWN_HOSTS = 4


@click.command("world")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.pass_context
def world_command(context: click.Context, as_json: bool) -> None:
    """Which rank is this process, and who says so?

    Run it where training would run: on a laptop, in a batch script, behind srun or torchrun, inside a container.
    """
    try:
        explanation = explain_world(os.environ)
    except WorldError as error:
        click.echo(str(error), err=True)
        context.exit(error.exit_code)
    click.echo(json.dumps(asdict(explanation)) if as_json else render_explanation(explanation))


def render_explanation(explanation: Explanation) -> str:
    """The explanation as aligned text: the answer, every launcher considered, the warnings."""
    candidates = [(each.name, each.status, each.reason) for each in explanation.candidates]
    blocks = [_table(_answer(explanation.world)), _table(candidates)]
    blocks += [f"warning: {warning}" for warning in explanation.warnings]
    return "\n\n".join(blocks)


def _answer(world: World) -> list[tuple[str, ...]]:
    return [
        ("rank", f"{world.rank} of {world.world_size}"),
        ("local rank", f"{world.local_rank} of {world.local_world_size}"),
        ("node", f"{world.node_rank} of {world.node_count}"),
        ("hosts", _hosts(world.hosts)),
        ("source", world.source),
        ("job", f"{world.job}, attempt {world.attempt}"),
        ("rank 0", _meeting_point(world)),
    ]


def _hosts(hosts: tuple[str, ...]) -> str:
    shown = " ".join(hosts[:SHOWN_HOSTS])
    return shown if len(hosts) <= SHOWN_HOSTS else f"{shown} ... {hosts[-1]} ({len(hosts):,})"


def _meeting_point(world: World) -> str:
    if world.world_size == 1:
        return "is this process"
    return f"is met at {world.master[0]}:{world.master[1]}" if world.master else "is found through its beacon"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell; the last one is left ragged."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)][:-1]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
