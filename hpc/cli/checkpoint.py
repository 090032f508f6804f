"""`hpc checkpoint`: which checkpoints does a run have, can they be trusted, and how do its weights leave?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import click

from hpc.checkpoint.files import DamagedError
from hpc.checkpoint.manifest import Manifest, read_manifest
from hpc.checkpoint.store import Checkpoint, CheckpointStore, damage
from hpc.cli.columns import aligned
from hpc.errors import HpcError, LoadError
from hpc.run.directory import RunDirectory
from hpc.run.events import Verified
from hpc.run.journal import Journal, read_journal
from hpc.run.lives import read_back_times
from hpc.say import fail, warn

RUN = click.Path(exists=True, file_okay=False, path_type=Path)
UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))


@click.group("checkpoint")
def checkpoint_command() -> None:
    """What a run has saved: list, verify, export."""


@checkpoint_command.command("ls")
@click.argument("run", type=RUN)
def list_command(run: Path) -> None:
    """Every checkpoint of RUN: step, size, age, when it was last read back whole, and what was logged."""
    for directory in _points(run):
        click.echo(f"{directory}\n{listing(directory, time.time())}")


@checkpoint_command.command("verify")
@click.argument("run", type=RUN)
@click.pass_context
def verify_command(context: click.Context, run: Path) -> None:
    """Read every byte of every checkpoint of RUN; exit with 65 when one is damaged."""
    found = [_verified(directory, each) for directory in _points(run) for each in _store(directory).list()]
    if not found:
        _fail(context, LoadError(f"{run} must be a run directory with checkpoints, but has none."))
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

    output = output or run / f"model.{file_format}"
    try:
        newest = _store(run).latest(warn)
        if newest is None:
            raise LoadError(f"{run} must be a run directory with a good checkpoint, but has none.")
        size = export(newest, output.absolute(), file_format)
    except HpcError as error:
        _fail(context, error)
        return
    click.echo(f"{output}: step {newest.step}, {_size(size)}")


def listing(directory: Path, now: float) -> str:
    """The checkpoints of one point as a table.

    Args:
        directory: The point's.
        now: Seconds since the epoch.
    """
    verified = read_back_times(read_journal(directory))
    rows = [_row(each, verified.get(each.step), now) for each in _store(directory).list()]
    return aligned([("step", "size", "age", "verified", "logged"), *rows])


def _row(checkpoint: Checkpoint, verified_at: float | None, now: float) -> tuple[str, ...]:
    try:
        manifest = read_manifest(checkpoint.directory)
    except DamagedError as error:
        return (str(checkpoint.step), "?", "?", "damaged", str(error))
    read_at = verified_at if verified_at is not None and verified_at >= manifest.saved_at else None
    return (
        str(checkpoint.step),
        _size(_bytes(manifest)),
        f"{_duration(now - manifest.saved_at)}",
        "not read back" if read_at is None else f"{_duration(now - read_at)} ago",
        "  ".join(f"{name} {value:.4g}" for name, value in manifest.metrics.items()),
    )


def _verified(directory: Path, checkpoint: Checkpoint) -> bool:
    """Say what a checkpoint is like; a good one is noted in the journal, where `ls` finds it."""
    problems = damage(checkpoint)
    if problems:
        click.echo(f"{checkpoint.directory}: damaged: {', '.join(problems)}")
        return False
    files = read_manifest(checkpoint.directory).written.files
    click.echo(f"{checkpoint.directory}: {len(files)} files as they were written")
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


def _fail(context: click.Context, error: HpcError) -> None:
    fail(error)
    context.exit(error.exit_code)
