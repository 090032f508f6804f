"""`hpc checkpoint`: which checkpoints does a run have, can they be trusted, and how do its weights leave?"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from hpc.checkpoint.manifest import Manifest
from hpc.checkpoint.reading import DamagedError, shown
from hpc.checkpoint.store import Checkpoint, CheckpointStore, damage
from hpc.checkpoint.untrusted import read_manifest
from hpc.cli.columns import aligned
from hpc.cli.options import json_option
from hpc.errors import ConfigurationError, HpcError, LoadError
from hpc.run.directory import RunDirectory
from hpc.run.events import Verified
from hpc.run.journal import Journal, read_journal
from hpc.run.lives import read_back_times
from hpc.say import fail, warn

RUN = click.Path(exists=True, file_okay=False, path_type=Path)
COLUMNS = ("step", "size", "age", "verified", "logged")
DAMAGED = "damaged"
UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


@click.group("checkpoint")
def checkpoint_command() -> None:
    """What a run has saved: list, verify, export."""


@checkpoint_command.command("ls", short_help="Every checkpoint of RUN.")
@click.argument("run", type=RUN)
@json_option("docs/settings.md")
@click.pass_context
def list_command(context: click.Context, run: Path, as_json: bool) -> None:
    """Every checkpoint of RUN: step, size, age, when it was last read back whole, and what was logged.

    Exit with 65 when one cannot be followed.
    """
    with _told(context):
        found = {directory: listing(directory) for directory in _points(run)}
        if as_json:
            points = [{"directory": str(directory), "checkpoints": own} for directory, own in found.items()]
            click.echo(json.dumps({"format": 1, "run": str(run), "points": points}))
        for directory, own in found.items() if not as_json else ():
            click.echo(f"{directory}\n{aligned([COLUMNS, *(_row(each, time.time()) for each in own)])}")
        if any(each["problem"] for own in found.values() for each in own):
            context.exit(LoadError.exit_code)


@checkpoint_command.command("verify", short_help="Read every byte of them; 65 where one is damaged.")
@click.argument("run", type=RUN)
@json_option("docs/settings.md")
@click.pass_context
def verify_command(context: click.Context, run: Path, as_json: bool) -> None:
    """Read every byte of every checkpoint of RUN; exit with 65 when one is damaged."""
    with _told(context):
        stored = [(directory, each) for directory in _points(run) for each in _store(directory).list()]
        if not stored:
            raise LoadError(f"{run} must be a run directory with checkpoints, but has none.")
        found = {str(each.directory): _verified(directory, each, as_json) for directory, each in stored}
        if as_json:
            told = [{"checkpoint": checkpoint, "problems": problems} for checkpoint, problems in found.items()]
            click.echo(json.dumps({"format": 1, "run": str(run), "checkpoints": told}))
        if any(found.values()):
            context.exit(LoadError.exit_code)


@checkpoint_command.command("export", short_help="Write the newest good weights into one file.")
@click.argument("run", type=RUN)
@click.option("--format", "file_format", type=click.Choice(["safetensors", "pt"]), default="safetensors")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="RUN/model.<format> when not given.")
@json_option("docs/settings.md")
@click.pass_context
def export_command(context: click.Context, run: Path, file_format: str, output: Path | None, as_json: bool) -> None:
    """Write the weights of the newest good checkpoint of RUN into one file, whoever saved them; no GPU is needed."""
    from hpc.checkpoint.export import export  # deferred: it imports torch

    with _told(context):
        output = output or _beside(run, f"model.{file_format}")
        newest = _store(run).latest(warn)
        if newest is None:
            raise LoadError(f"{run} must be a run directory with a good checkpoint, but has none.")
        size = export(newest, output.absolute(), file_format)
        told = {"format": 1, "file": str(output.absolute()), "step": newest.step, "bytes": size}
        click.echo(json.dumps(told) if as_json else f"{output}: step {newest.step}, {_size(size)}")


def listing(directory: Path) -> list[dict[str, Any]]:
    """The checkpoints of one point: step, bytes, when each was saved and read back (seconds since the epoch), metrics.

    Of one that cannot be followed only the step is known, and the `problem`.

    Args:
        directory: The point's.
    """
    verified = read_back_times(read_journal(directory))
    return [_entry(each, verified.get(each.step)) for each in _store(directory).list()]


def _entry(checkpoint: Checkpoint, verified_at: float | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "step": checkpoint.step,
        **dict.fromkeys(("bytes", "saved_at", "read_back_at")),
        "metrics": {},
    }
    try:
        manifest = read_manifest(checkpoint.directory)
    except DamagedError as error:
        return {**entry, "problem": str(error)}
    return {
        **entry,
        "bytes": _bytes(manifest),
        "saved_at": manifest.saved_at,
        "read_back_at": verified_at if verified_at is not None and verified_at >= manifest.saved_at else None,
        "metrics": {shown(name): value for name, value in manifest.metrics.items()},
        "problem": "",
    }


def _row(entry: dict[str, Any], now: float) -> tuple[str, ...]:
    step, read_at = str(entry["step"]), entry["read_back_at"]
    if entry["problem"]:
        return (step, "?", "?", DAMAGED, entry["problem"])
    return (
        step,
        _size(entry["bytes"]),
        _duration(now - entry["saved_at"]),
        "not read back" if read_at is None else f"{_duration(now - read_at)} ago",
        "  ".join(f"{name} {value:.4g}" for name, value in entry["metrics"].items()),
    )


def _verified(directory: Path, checkpoint: Checkpoint, is_quiet: bool) -> list[str]:
    """What is wrong with a checkpoint; a good one is noted in the journal, where `ls` finds it, if the run is ours."""
    problems = damage(checkpoint)
    if problems:
        told = f"damaged: {', '.join(problems)}"
    else:
        told = f"{len(read_manifest(checkpoint.directory).written.files)} files as they were written"
        if directory.stat().st_uid == os.geteuid() and os.access(directory, os.W_OK):
            Journal(directory, f"verify-{os.uname().nodename}-{os.getpid()}").write(Verified(checkpoint.step))
    if not is_quiet:
        click.echo(f"{checkpoint.directory}: {told}")
    return problems


def _points(run: Path) -> Iterator[Path]:
    """The run itself, or the points of a sweep in their order."""
    if RunDirectory(run).checkpoints.is_dir():
        yield run
    else:
        yield from sorted(
            (path.parent for path in run.glob(f"*/{RunDirectory(run).checkpoints.name}")),
            key=lambda path: (len(path.name), path.name),
        )


def _store(directory: Path) -> CheckpointStore:
    return CheckpointStore(RunDirectory(directory).checkpoints)


def _bytes(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.written.files.values())


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _duration(seconds: float) -> str:
    name, length = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
    return f"{max(0.0, seconds) / length:.0f} {name}"


def _beside(run: Path, name: str) -> Path:
    if not os.access(run, os.W_OK):
        raise ConfigurationError(f"--output must name a file, because {run} is not yours to write, but is not given.")
    return run / name


@contextmanager
def _told(context: click.Context) -> Iterator[None]:
    """Say what is wrong in one sentence, and exit with its code."""
    try:
        yield
    except HpcError as error:
        fail(error)
        context.exit(error.exit_code)
    except OSError as error:
        fail(LoadError(f"{error.filename} must be readable, but is not: {error.strerror}."))
        context.exit(LoadError.exit_code)
