"""`hpc checkpoint`: which checkpoints does a run have, can they be trusted, and how do its weights leave?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hpc.checkpoint.manifest import Manifest
from hpc.checkpoint.reading import DamagedError, shown
from hpc.checkpoint.store import Checkpoint, CheckpointStore, damage
from hpc.checkpoint.untrusted import read_manifest
from hpc.cli.columns import aligned
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


@checkpoint_command.command("ls")
@click.argument("run", type=RUN)
@click.pass_context
def list_command(context: click.Context, run: Path) -> None:
    """Every checkpoint of RUN: step, size, age, when it was last read back whole, and what was logged.

    Exit with 65 when one cannot be followed.
    """
    with _told(context):
        rows: list[tuple[str, ...]] = []
        for directory in _points(run):
            rows = [*rows, *(own := listing(directory, time.time()))]
            click.echo(f"{directory}\n{aligned([COLUMNS, *own])}")
        if any(DAMAGED in row for row in rows):
            context.exit(LoadError.exit_code)


@checkpoint_command.command("verify")
@click.argument("run", type=RUN)
@click.pass_context
def verify_command(context: click.Context, run: Path) -> None:
    """Read every byte of every checkpoint of RUN; exit with 65 when one is damaged."""
    with _told(context):
        found = [_verified(directory, each) for directory in _points(run) for each in _store(directory).list()]
        if not found:
            raise LoadError(f"{run} must be a run directory with checkpoints, but has none.")
        if not all(found):
            context.exit(LoadError.exit_code)


@checkpoint_command.command("export")
@click.argument("run", type=RUN)
@click.option("--format", "file_format", type=click.Choice(["safetensors", "pt"]), default="safetensors")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="RUN/model.<format> when not given.")
@click.pass_context
def export_command(context: click.Context, run: Path, file_format: str, output: Path | None) -> None:
    """Write the weights of the newest good checkpoint of RUN into one file, whoever saved them; no GPU is needed."""
    from hpc.checkpoint.export import export  # deferred: it imports torch

    with _told(context):
        output = output or _beside(run, f"model.{file_format}")
        newest = _store(run).latest(warn)
        if newest is None:
            raise LoadError(f"{run} must be a run directory with a good checkpoint, but has none.")
        size = export(newest, output.absolute(), file_format)
        click.echo(f"{output}: step {newest.step}, {_size(size)}")


def listing(directory: Path, now: float) -> list[tuple[str, ...]]:
    """The checkpoints of one point, a row of COLUMNS for each.

    Args:
        directory: The point's.
        now: Seconds since the epoch.
    """
    verified = read_back_times(read_journal(directory))
    return [_row(each, verified.get(each.step), now) for each in _store(directory).list()]


def _row(checkpoint: Checkpoint, verified_at: float | None, now: float) -> tuple[str, ...]:
    try:
        manifest = read_manifest(checkpoint.directory)
    except DamagedError as error:
        return (str(checkpoint.step), "?", "?", DAMAGED, str(error))
    read_at = verified_at if verified_at is not None and verified_at >= manifest.saved_at else None
    return (
        str(checkpoint.step),
        _size(_bytes(manifest)),
        f"{_duration(now - manifest.saved_at)}",
        "not read back" if read_at is None else f"{_duration(now - read_at)} ago",
        "  ".join(f"{shown(name)} {value:.4g}" for name, value in manifest.metrics.items()),
    )


def _verified(directory: Path, checkpoint: Checkpoint) -> bool:
    """Say what a checkpoint is like; a good one is noted in the journal, where `ls` finds it, if the run is ours."""
    problems = damage(checkpoint)
    if problems:
        click.echo(f"{checkpoint.directory}: damaged: {', '.join(problems)}")
        return False
    files = read_manifest(checkpoint.directory).written.files
    click.echo(f"{checkpoint.directory}: {len(files)} files as they were written")
    if directory.stat().st_uid == os.geteuid() and os.access(directory, os.W_OK):
        Journal(directory, f"verify-{os.uname().nodename}-{os.getpid()}").write(Verified(checkpoint.step))
    return True


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
