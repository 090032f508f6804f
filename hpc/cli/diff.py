"""`hpc diff`: how do two points, attempts or sweeps differ, in config, code and versions?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from hpc.cli.columns import aligned
from hpc.cli.options import json_option
from hpc.cli.surroundings import readable
from hpc.config.limits import typed
from hpc.errors import HpcError
from hpc.run.compare import Run, code_differences, config_differences, find_run, version_differences
from hpc.say import fail


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--code", "with_code", is_flag=True, help="The lines of code that differ, not only how many.")
@json_option("docs/frozen.md")
@click.pass_context
def diff_command(context: click.Context, old: str, new: str, with_code: bool, as_json: bool) -> None:
    """How do OLD and NEW differ? Each is the directory of a sweep or of a point; DIRECTORY@2 is its second attempt."""
    try:
        with readable():
            runs = find_run(old), find_run(new)
    except HpcError as error:
        fail(error)
        context.exit(error.exit_code)
        return
    if as_json:
        click.echo(json.dumps(_as_json(*runs, with_code=with_code), indent=2, default=str))
    else:
        click.echo("\n\n".join(filter(None, _parts(*runs, names=(old, new), with_code=with_code))) or "No difference.")


def _as_json(old: Run, new: Run, *, with_code: bool) -> dict[str, Any]:
    code = code_differences(old, new)
    return {
        "format": 1,
        "config": config_differences(old, new),
        "code": {path: {**_counts(lines), **({"diff": lines} if with_code else {})} for path, lines in code.items()},
        "has_code": [old.files is not None, new.files is not None],
        "commits": [dict(old.commits), dict(new.commits)],
        "versions": version_differences(old, new),
    }


def _parts(old: Run, new: Run, *, names: tuple[str, str], with_code: bool) -> list[str]:
    return [
        _pairs("config", config_differences(old, new)),
        _pairs("commits", _differing(old.commits, new.commits)),
        _missing(old, new, names) or _code(code_differences(old, new), with_code),
        _pairs("versions", version_differences(old, new)),
    ]


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {name: (old.get(name, ""), new.get(name, "")) for name in sorted({*old, *new})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _pairs(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> str:
    rows = [(f"  {key}", _shown(old), "->", _shown(new)) for key, (old, new) in pairs.items()]
    return f"{title}\n{aligned(rows)}" if rows else ""


def _shown(value: Any) -> str:
    return ",".join(map(typed, value)) if isinstance(value, tuple) else "-" if value == "" else typed(value)


def _missing(old: Run, new: Run, names: tuple[str, str]) -> str:
    """A sentence where the code cannot be compared; nothing where neither of the two has a copy of it."""
    without = [name for name, run in zip(names, (old, new), strict=True) if run.files is None]
    return f"code\n  {without[0]} has no copy of its code" if len(without) == 1 else ""


def _code(code: Mapping[str, Sequence[str]], with_code: bool) -> str:
    if not code:
        return ""
    if with_code:
        return "code\n" + "\n".join(line for lines in code.values() for line in lines)
    rows = [(f"  {path}", f"+{count['added']}", f"-{count['removed']}") for path, count in _all_counts(code).items()]
    return f"code (--code shows the lines)\n{aligned(rows)}"


def _all_counts(code: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    return {path: _counts(lines) for path, lines in code.items()}


def _counts(lines: Sequence[str]) -> dict[str, int]:
    body = lines[2:]  # after the names of both files
    signs = {"added": "+", "removed": "-"}
    return {name: sum(line.startswith(sign) for line in body) for name, sign in signs.items()}
