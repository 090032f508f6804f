"""`hpc world`: which rank would a process started like this one be, and why? And why would another one be another?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hpc.cli.columns import aligned
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, WorldError
from hpc.say import fail
from hpc.world import Explanation, World, explain_world
from hpc.world.comparison import Answer, differing_variables, explain_differences
from hpc.world.resolve import ABSENT

SHOWN_HOSTS = 4
ABSENT_WIDTH = 100
CELL_WIDTH = 36


@click.command("world")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.option("--compare", is_flag=True, help="Compare answers that `hpc world --json` printed, each in its FILE.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def world_command(context: click.Context, as_json: bool, compare: bool, files: tuple[Path, ...]) -> None:
    """Which rank is this process, and who says so?

    Run it where training would run: on a laptop, in a batch script, behind srun or torchrun, inside a container.

    Where two of these disagree, keep both answers and ask why: `hpc world --json >batch.json`, `srun hpc world --json
    >step.json`, then `hpc world --compare batch.json step.json`.
    """
    if compare != bool(files) or (compare and len(files) < 2):
        raise click.UsageError("--compare needs two or more files, and files need --compare.")
    try:
        text = compare_answers(files) if compare else _explained(as_json)
    except ConfigurationError as error:
        fail(error)
        context.exit(error.exit_code)
    click.echo(text)


def _explained(as_json: bool) -> str:
    explanation = explain_world(process_environ())
    return json.dumps(asdict(explanation)) if as_json else render_explanation(explanation)


def render_explanation(explanation: Explanation) -> str:
    """The explanation as aligned text: the answer, every launcher that left a trace, the others' names, warnings."""
    present = [each for each in explanation.candidates if each.status != ABSENT]
    absent = [each.name for each in explanation.candidates if each.status == ABSENT]
    blocks = [aligned(_answer(explanation.world)), aligned([(e.name, e.status, e.reason) for e in present])]
    blocks += [_not_here(absent)] if absent else []
    blocks += [f"warning: {warning}" for warning in explanation.warnings]
    return "\n\n".join(blocks)


def compare_answers(files: Sequence[Path]) -> str:
    """Saved answers side by side: what they say, the variables that differ, and sentences about why.

    Raises:
        ConfigurationError: A file holds no answer.
    """
    saved = [_load(path) for path in files]
    names = _short_names(files)
    worlds = [World(**{**each["world"], "hosts": tuple(each["world"]["hosts"])}) for each in saved]
    answers = [
        Answer(name, (world.rank, world.world_size), world.source, world.job, each["variables"])
        for name, world, each in zip(names, worlds, saved, strict=True)
    ]
    rows = list(zip(*(_answer(world)[:-1] for world in worlds), strict=True))
    table = [("", *names), *((row[0][0], *(cell for _, cell in row)) for row in rows)]
    variables = [(name, *(_cell(a.variables.get(name)) for a in answers)) for name in differing_variables(answers)]
    blocks = [aligned(table), *([aligned([("differing", *names), *variables])] if variables else [])]
    return "\n\n".join([*blocks, *explain_differences(answers)])


def _load(path: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(path.read_text())
        World(**answer["world"])
        dict(answer["variables"])
    except OSError as error:
        raise WorldError(f"{path} must hold what `hpc world --json` printed, but cannot be read: {error}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WorldError(
            f"{path} must hold what `hpc world --json` printed, but does not: see what it printed on stderr instead."
        ) from error
    return answer


def _short_names(files: Sequence[Path]) -> tuple[str, ...]:
    """File names where they are enough to tell the files apart."""
    names = tuple(path.stem for path in files)
    return names if len({*names}) == len(names) else tuple(str(path) for path in files)


def _cell(value: str | None) -> str:
    text = "-" if value is None else value
    return text if len(text) <= CELL_WIDTH else f"{text[: CELL_WIDTH - 3]}..."


def _not_here(names: Sequence[str]) -> str:
    """One paragraph of names, wrapped."""
    lines = ["not here:"]
    for name in names:
        if len(lines[-1]) + len(name) > ABSENT_WIDTH:
            lines.append("         ")
        lines[-1] += f" {name}"
    return "\n".join(lines)


def _answer(world: World) -> list[tuple[str, str]]:
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
    shown = " ".join(hosts[:SHOWN_HOSTS]) or "unknown"
    return shown if len(hosts) <= SHOWN_HOSTS else f"{shown} ... {hosts[-1]} ({len(hosts):,})"


def _meeting_point(world: World) -> str:
    if world.world_size == 1:
        return "is this process"
    return f"is met at {world.master[0]}:{world.master[1]}" if world.master else "is found through its beacon"
